// Running probes, and the list of what `elasticos doctor` looks at: what is tried here is small; the larger
// probes are in facts_trace.cpp and facts_memory.cpp.
#include "facts_probe.hpp"

#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <system_error>

#include "spill.hpp"
#include "spill_file.hpp"
#include "util.hpp"

namespace elastic {

namespace {

constexpr int kSecondsMax = 3;
constexpr size_t kReportBytesMax = 16384;
constexpr uint64_t kSpillRoomMin = 64ull << 20;  // less than this is a full disk
constexpr long kMapCountUsual = 65530;           // the kernel's default

// What the child writes: "1" or "0", detail, remedy, each ended by a zero byte.
std::string encode(const Outcome& outcome) {
  std::string text = outcome.ok ? "1" : "0";
  text += '\0' + outcome.detail + '\0' + outcome.remedy + '\0';
  return text;
}

Outcome decode(const std::string& text) {
  const size_t detail = 2;
  const size_t remedy = text.find('\0', detail) + 1;
  if (text.size() < 4 || remedy == 0 || text.back() != 0) return {false, "the probe died", ""};
  return {text[0] == '1', text.substr(detail, remedy - 1 - detail),
          text.substr(remedy, text.size() - 1 - remedy)};
}

[[noreturn]] void run_child(int out, const std::function<Outcome()>& body) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int number : {SIGCHLD, SIGPIPE, SIGTERM, SIGINT}) signal(number, SIG_DFL);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  Outcome outcome;
  try {
    outcome = body();
  } catch (const std::exception& error) {
    outcome = {false, error.what(), ""};
  }
  const std::string text = encode(outcome);
  const ssize_t written = write(out, text.data(), std::min(text.size(), kReportBytesMax));
  _exit(written == static_cast<ssize_t>(text.size()) ? 0 : 1);
}

Outcome check_platform() {
  utsname system{};
  uname(&system);
  const std::string what = std::string("Linux ") + system.release + ", " + system.machine;
  int major = 0;
  int minor = 0;
  const bool parsed = std::sscanf(system.release, "%d.%d", &major, &minor) == 2;
  if (std::strcmp(system.machine, "x86_64") != 0)
    return {false, what, "elasticos runs on x86-64 machines only"};
  if (sysconf(_SC_PAGESIZE) != 4096) return {false, what + ", pages are not 4096 bytes", ""};
  if (!parsed || major < 6 || (major == 6 && minor < 1)) {
    return {false, what + "; 6.1 or newer is needed", "install a kernel of 6.1 or newer (Debian 12 has one)"};
  }
  return {true, what, ""};
}

Outcome check_namespaces() {
  int kinds = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID;
  if (geteuid() != 0) kinds |= CLONE_NEWUSER;
  errno = 0;
  // Some systems let anybody make namespaces and then give them no rights inside: the mount tells.
  if (unshare(kinds) == 0 && mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0) {
    return {true, "guest threads run in namespaces of their own", ""};
  }
  Outcome outcome = failed("guest threads are held by the system call filter alone; namespaces are refused");
  if (read_setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1") {
    outcome.remedy = "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0";
  } else if (read_setting("/proc/sys/kernel/unprivileged_userns_clone") == "0") {
    outcome.remedy = "sudo sysctl kernel.unprivileged_userns_clone=1";
  } else if (read_setting("/proc/sys/user/max_user_namespaces") == "0") {
    outcome.remedy = "sudo sysctl user.max_user_namespaces=15000";
  }
  return outcome;
}

Outcome check_spill(const std::string& directory) {
  const std::string refusal = spill_refusal(directory);
  if (!refusal.empty()) return {false, refusal, "elasticos agent --data DIR, on a disk"};
  struct stat status {};
  if (stat(directory.c_str(), &status) != 0) return failed(directory, "mkdir -p -m 700 " + directory);
  struct statvfs space {};
  if (statvfs(directory.c_str(), &space) != 0) return failed(directory);
  const uint64_t room = static_cast<uint64_t>(space.f_bavail) * space.f_frsize;
  const std::string left = std::to_string(room >> 20) + " MiB free in " + directory;
  if (room < kSpillRoomMin) return {false, left, "make room there, or choose another place with --data DIR"};
  try {
    Spill spill(directory, 1 << 20, 1);
    std::string page(kPageBytes, 'e');
    uint32_t slot = 0;
    SpillError error = SpillError::io;
    const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(page.data()), page.size());
    static_cast<void>(spill.write(bytes, {&slot, 1}, [&error](SpillError result) { error = result; }));
    pollfd waited{spill.event_fd(), POLLIN, 0};
    poll(&waited, 1, -1);
    spill.drain();
    std::string back(kPageBytes, 0);
    const bool read =
        error == SpillError::none && spill.read_now({&slot, 1}, reinterpret_cast<uint8_t*>(back.data()));
    if (!read || back != page) return {false, "a page written to " + directory + " does not come back", ""};
    return {true, left + (spill.buffered() ? ", without direct I/O (slower)" : ", direct I/O"), ""};
  } catch (const std::system_error& error) {
    return {false, error.what(), "choose a directory that you may write to with --data DIR"};
  }
}

Outcome check_overcommit() {
  const std::string mode = read_setting("/proc/sys/vm/overcommit_memory");
  if (mode != "2") return {true, "vm.overcommit_memory = " + mode, ""};
  return {false, "vm.overcommit_memory = 2: address space cannot be reserved ahead",
          "sudo sysctl vm.overcommit_memory=0"};
}

// By it a jump is judged: how long a thread has run since the last one.
Outcome check_processor_time() {
  const std::string text = read_setting("/proc/thread-self/schedstat");
  if (!text.empty() && text != "0 0 0") return {true, "the processor time of threads is known", ""};
  return {false, "there is no /proc/PID/schedstat: threads that jump pull more pages than they need to",
          "use a kernel with CONFIG_SCHED_INFO"};
}

Outcome check_map_count() {
  const std::string most = read_setting("/proc/sys/vm/max_map_count");
  const std::string detail = "vm.max_map_count = " + most;
  if (std::atol(most.c_str()) >= kMapCountUsual) return {true, detail, ""};
  return {false, detail + ": programs with many mappings run out of them",
          "sudo sysctl vm.max_map_count=262144"};
}

Outcome check_privileges() {
  if (geteuid() != 0) return {true, "pagers need none beyond this user's, and can gain none", ""};
  return {
      true,
      "of root's, a pager keeps those to trace programs that change their user (SYS_PTRACE, DAC_OVERRIDE, "
      "KILL, SYS_RESOURCE); one that lends, those to trace guests and shut them in (SYS_PTRACE, "
      "DAC_OVERRIDE, KILL, SYS_ADMIN, SETUID, SETGID)",
      ""};
}

}  // namespace

Outcome failed(const std::string& what, const std::string& remedy) {
  return {false, what + ": " + std::strerror(errno), remedy};
}

std::string read_setting(const char* path) {
  const int before = errno;  // callers look up a remedy for the error they have
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  errno = before;
  return line;
}

std::string user_name() {
  const passwd* entry = getpwuid(geteuid());
  return entry != nullptr ? entry->pw_name : std::to_string(geteuid());
}

Outcome probe(int seconds, const std::function<Outcome()>& body) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return failed("pipe");
  Fd in(ends[0]);
  Fd out(ends[1]);
  const pid_t child = fork();
  if (child < 0) return failed("fork");
  if (child == 0) {
    in.reset();
    run_child(out.get(), body);
  }
  out.reset();
  std::string text;
  const uint64_t end_us = now_us() + static_cast<uint64_t>(seconds) * 1000000;
  bool in_time = false;
  while (!in_time && text.size() < kReportBytesMax) {
    const uint64_t now = now_us();
    pollfd waited{in.get(), POLLIN, 0};
    if (now >= end_us || poll(&waited, 1, static_cast<int>((end_us - now) / 1000 + 1)) == 0) break;
    char bytes[4096];
    const ssize_t size = read(in.get(), bytes, sizeof bytes);
    if (size < 0 && errno == EINTR) continue;
    in_time = size <= 0;
    if (size > 0) text.append(bytes, static_cast<size_t>(size));
    // The report is whole with its third zero byte; what the child forked may still hold the pipe.
    in_time = in_time || std::count(text.begin(), text.end(), '\0') >= 3;
  }
  if (!in_time) kill(child, SIGKILL);
  while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  return in_time ? decode(text) : Outcome{false, "no answer within " + std::to_string(seconds) + " s", ""};
}

std::vector<Check> run_checks(const std::string& spill_dir) {
  std::vector<Check> checks;
  const auto add = [&checks](const char* name, bool needed, const std::function<Outcome()>& body) {
    Outcome outcome = probe(kSecondsMax, body);
    checks.push_back(Check{name, outcome.ok, needed, std::move(outcome.detail), std::move(outcome.remedy)});
  };
  add("platform", true, check_platform);
  add("ptrace", true, probe_ptrace);
  add("userfaultfd", true, probe_userfaultfd);
  add("seccomp", true, probe_seccomp);
  add("pidfd_getfd", true, probe_pidfd);
  add("memfd", true, probe_memfd);
  add("overcommit", true, check_overcommit);
  add("PAGEMAP_SCAN", false, probe_page_scan);
  add("processor time", false, check_processor_time);
  add("map count", false, check_map_count);
  add("user namespaces", false, check_namespaces);
  add("privileges", false, check_privileges);
  if (!spill_dir.empty()) add("spill directory", true, [&spill_dir] { return check_spill(spill_dir); });
  return checks;
}

}  // namespace elastic
