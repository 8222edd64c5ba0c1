// What this machine is and can do: the compatibility facts that travel in a stretch offer, and the checks
// behind `elasticos doctor`. Read once at start, never on a fault path.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace elastic {

struct Check {
  std::string
      name;  // "userfaultfd", "ptrace", "seccomp", "user namespaces", "spill directory", "PAGEMAP_SCAN", …
  bool ok = false;
  bool needed = true;  // false: only slower, or a weaker sandbox, without it
  std::string detail;
  std::string remedy;  // the exact line to run, or empty
};

// One JSON object: protocolVersion, arch, pageSize, kernel, cpuVendor, cpuFeatures, xcr0. A CPU feature is
// listed if user code can use it: present, and its registers enabled by the kernel.
std::string facts_json();

// Tries each thing in a child process of its own, at most a few seconds each. `spill_dir` may be empty: not
// checked.
std::vector<Check> run_checks(const std::string& spill_dir);
std::string checks_json(const std::vector<Check>& checks);  // an array of {name, ok, needed, detail, remedy}

// Why a program cannot be stretched, as one line without a trailing full stop.
struct ProgramProblem {
  int exit_status;  // 125, 126 or 127
  std::string message;
};

// Why `path` (as find_program gives it) cannot be run stretched, or nothing: 32-bit, another CPU
// architecture, setuid/setgid or file capabilities (where they would count), not executable, interpreter
// missing. Scripts are followed to their interpreter as far as the kernel does. A file that is no executable
// format at all is no problem: see runs_by_shell.
std::optional<ProgramProblem> check_program(const std::string& path);

// True if this process, and so whatever it starts, gains no privileges by any file.
bool cannot_gain();

// The same for what process `pid` has executed: it has no more rights than before, because it is traced.
// `may_gain`: untraced, it might have.
std::optional<ProgramProblem> check_executed(pid_t pid, bool may_gain);

// The kernel would answer ENOEXEC, so execvp runs `/bin/sh PATH ARG…` instead: do the same.
bool runs_by_shell(const std::string& path);

// Finds a program as execvp would and returns the path that execvp would hand to execve: relative if `name`
// or the entry of PATH is. Sets `problem` (127 not found, 126 not executable) and returns an empty string if
// there is none.
std::string find_program(const std::string& name, std::optional<ProgramProblem>& problem);

}  // namespace elastic
