// Probes of what the pager does as a tracer: seize a child, be told of its filtered system calls, take a
// descriptor out of it, and end it by ending itself.
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>

#include "facts_probe.hpp"
#include "util.hpp"

namespace elastic {

namespace {

constexpr unsigned kTraceeSecondsMax = 2;  // a tracee that everybody has forgotten ends by itself
constexpr uint64_t kExitOptions = PTRACE_O_EXITKILL | PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD;

// A child to trace. It holds the write end of `alive` until it dies and waits for a byte in `go`, then runs
// `body`.
struct Tracee {
  pid_t pid = -1;
  Fd alive;
  Fd go;
};

template <typename Body>
bool start_tracee(Tracee& tracee, Body body) {
  int alive[2];
  int go[2];
  if (pipe2(alive, O_CLOEXEC) != 0 || pipe2(go, O_CLOEXEC) != 0) return false;
  const pid_t pid = fork();
  if (pid < 0) return false;
  if (pid == 0) {
    close(alive[0]);
    close(go[1]);
    alarm(kTraceeSecondsMax);
    char byte;
    if (read(go[0], &byte, 1) == 1) body();
    _exit(0);
  }
  close(alive[1]);
  close(go[0]);
  tracee.pid = pid;
  tracee.alive = Fd(alive[0]);
  tracee.go = Fd(go[1]);
  return true;
}

void end_tracee(Tracee& tracee) {
  kill(tracee.pid, SIGKILL);
  waitpid(tracee.pid, nullptr, __WALL);
}

std::string trace_remedy() {
  const std::string scope = read_setting("/proc/sys/kernel/yama/ptrace_scope");
  if (scope == "3") return "set kernel.yama.ptrace_scope = 1 in /etc/sysctl.d and reboot";
  if (scope == "2") return "sudo sysctl kernel.yama.ptrace_scope=1";
  return "in a container: --cap-add SYS_PTRACE --security-opt seccomp=unconfined";
}

// Seizes, stops and reads the tracee; then leaves without letting go of it, holding on to nothing.
Outcome seize_and_leave(Tracee& tracee) {
  if (ptrace(PTRACE_SEIZE, tracee.pid, 0, kExitOptions) != 0)
    return failed("PTRACE_SEIZE of a child", trace_remedy());
  if (ptrace(PTRACE_INTERRUPT, tracee.pid, 0, 0) != 0) return failed("PTRACE_INTERRUPT", trace_remedy());
  int status = 0;
  if (waitpid(tracee.pid, &status, __WALL) != tracee.pid || !WIFSTOPPED(status))
    return failed("wait for the stop");
  user_regs_struct registers{};
  if (ptrace(PTRACE_GETREGS, tracee.pid, 0, &registers) != 0) return failed("PTRACE_GETREGS", trace_remedy());
  if (ptrace(PTRACE_CONT, tracee.pid, 0, 0) != 0) return failed("PTRACE_CONT", trace_remedy());
  return {true, "children can be traced and end with their tracer", ""};
}

void ask_for_trace() {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | 7),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program{sizeof code / sizeof code[0], code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) _exit(1);
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) _exit(errno == 0 ? 1 : errno);
  syscall(SYS_getppid);
  _exit(0);
}

}  // namespace

Outcome probe_ptrace() {
  // The tracer is a process of its own: only its end shows whether the tracee ends with it.
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) return failed("pipe");
  Tracee tracee;
  const pid_t self = getpid();
  int alive[2];
  if (pipe2(alive, O_CLOEXEC) != 0) return failed("pipe");
  const pid_t tracer = fork();
  if (tracer < 0) return failed("fork");
  if (tracer == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != self || !start_tracee(tracee, [] {})) _exit(1);
    close(alive[0]);
    close(alive[1]);  // from here on only the tracee has it
    const Outcome outcome = seize_and_leave(tracee);
    if (!outcome.ok) end_tracee(tracee);
    const std::string text = (outcome.ok ? "+" : "-") + outcome.detail + '\0' + outcome.remedy;
    const bool told = write(report[1], text.data(), text.size()) == static_cast<ssize_t>(text.size());
    _exit(told ? 0 : 1);
  }
  close(report[1]);
  close(alive[1]);
  char bytes[1024];
  const ssize_t size = read(report[0], bytes, sizeof bytes);
  waitpid(tracer, nullptr, 0);
  if (size <= 0) return {false, "the tracer died", trace_remedy()};
  const std::string text(bytes, static_cast<size_t>(size));
  const size_t split = text.find('\0');
  const Outcome outcome{text[0] == '+', text.substr(1, split - 1), text.substr(split + 1)};
  if (!outcome.ok) return outcome;
  pollfd waited{alive[0], POLLIN, 0};
  // The tracee's own alarm must not pass for the kill: half of its time.
  if (poll(&waited, 1, kTraceeSecondsMax * 500) == 1 && (waited.revents & POLLHUP) != 0) return outcome;
  return {false, "a traced child outlives its tracer", ""};
}

Outcome probe_seccomp() {
  Tracee tracee;
  if (!start_tracee(tracee, ask_for_trace)) return failed("fork");
  if (ptrace(PTRACE_SEIZE, tracee.pid, 0, kExitOptions) != 0) {
    const Outcome outcome = failed("PTRACE_SEIZE of a child", trace_remedy());
    end_tracee(tracee);
    return outcome;
  }
  if (write(tracee.go.get(), "g", 1) != 1) return failed("write");
  int status = 0;
  waitpid(tracee.pid, &status, __WALL);
  if (WIFEXITED(status)) {
    errno = WEXITSTATUS(status);
    return failed("a filter cannot be set",
                  "use a kernel with CONFIG_SECCOMP_FILTER; in a container: "
                  "--security-opt seccomp=unconfined");
  }
  const bool told = status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8);
  unsigned long message = 0;
  ptrace(PTRACE_GETEVENTMSG, tracee.pid, 0, &message);
  end_tracee(tracee);
  if (told && message == 7) return {true, "filtered system calls reach the tracer", ""};
  return {false, "a filtered system call does not reach the tracer", trace_remedy()};
}

Outcome probe_pidfd() {
  Tracee tracee;
  if (!start_tracee(tracee, [] {})) return failed("fork");
  const Fd process(static_cast<int>(syscall(SYS_pidfd_open, tracee.pid, 0)));
  Outcome outcome{true, "descriptors can be taken out of a child", ""};
  if (!process) {
    outcome = failed("pidfd_open");
  } else {
    const Fd taken(static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), 0, 0)));
    // Descriptor 0 may be closed here: EBADF comes after the permission.
    if (!taken && errno != EBADF) outcome = failed("pidfd_getfd", trace_remedy());
  }
  end_tracee(tracee);
  return outcome;
}

}  // namespace elastic
