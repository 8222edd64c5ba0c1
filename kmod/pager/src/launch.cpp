// See launch.hpp.
#include "launch.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "seccomp_filter.hpp"
#include "tracee.hpp"

namespace elastic {

namespace {

constexpr long kSyscallInt3 = 0xcc050f;                  // `syscall; int3`, little-endian
constexpr uint64_t kInjectorStack = kTrampoline + 4000;  // never used: the injector only makes calls

constexpr uint64_t kPathAt = kTrampoline + 1024;  // read-only for the application

// Opens `path` in the injector's own descriptor table; its number there, or -errno.
int64_t open_in(Injector& injector, pid_t pid, const std::string& path) {
  for (size_t at = 0; at <= path.size(); at += 8) {
    long word = 0;
    memcpy(&word, path.c_str() + at, std::min<size_t>(8, path.size() + 1 - at));
    if (ptrace(PTRACE_POKETEXT, pid, kPathAt + at, word) != 0) return -errno;
  }
  return injector.call(SYS_open, kPathAt, O_RDWR | O_CLOEXEC);
}

[[noreturn]] void run_child(const std::string& path, const std::vector<char*>& argv, SignalSet ignored,
                            int report) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  restore_signals(ignored);
  personality(static_cast<unsigned long>(personality(0xffffffff)) | ADDR_NO_RANDOMIZE);
  raise(SIGSTOP);  // the tracer seizes us here
  int error = 0;
  if (!install_application_filter()) {
    error = -errno;
  } else {
    execv(path.c_str(), argv.data());
    error = errno;
    if (error == ENOEXEC) {  // a script without #!: as execvp does
      std::vector<char*> shell{const_cast<char*>("sh"), const_cast<char*>(path.c_str())};
      for (size_t i = 1; i < argv.size(); i++) shell.push_back(argv[i]);
      execv("/bin/sh", shell.data());
    }
  }
  if (write(report, &error, sizeof error) < 0) _exit(125);
  _exit(126);
}

void wait_for_stop(pid_t pid, int& status, const char* what) {
  if (waitpid(pid, &status, __WALL) != pid) fail_errno("waiting for %s", what);
}

}  // namespace

Launched launch(const std::string& path, const std::vector<std::string>& arguments, SignalSet ignored) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) fail_errno("pipe");
  Fd read_end(ends[0]), write_end(ends[1]);
  const pid_t pid = fork();
  if (pid < 0) fail_errno("fork");
  if (pid == 0) run_child(path, argv, ignored, write_end.get());
  write_end.reset();
  int status = 0;
  if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status))
    throw Failure("the application's process ended before its start");
  if (ptrace(PTRACE_SEIZE, pid, nullptr, static_cast<long>(kTraceOptions)) != 0) {
    const int error = errno;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    throw Failure(
        format("ptrace is not permitted (%s): run `sudo sysctl kernel.yama.ptrace_scope=1`, or allow ptrace "
               "in this container",
               strerror(error)));
  }
  kill(pid, SIGCONT);
  Launched launched{pid, 0};
  for (;;) {
    wait_for_stop(pid, status, "the application's start");
    if (!WIFSTOPPED(status)) {
      if (read(read_end.get(), &launched.exec_error, sizeof launched.exec_error) <= 0)
        throw Failure("the application's process ended before its start");
      if (launched.exec_error < 0)
        throw Failure(format("cannot install the seccomp filter: %s", strerror(-launched.exec_error)));
      launched.pid = 0;
      return launched;
    }
    if (stop_event(status) == PTRACE_EVENT_EXEC) return launched;
    resume(pid);
  }
}

void attach_memory(pid_t pid, Memory& memory) {
  int status = 0;
  // The exec event is inside execve, whose return clobbers rax: step over it.
  if (!resume_to_syscall(pid)) throw Failure("the application ended during its start");
  wait_for_stop(pid, status, "the end of execve");
  if (!WIFSTOPPED(status) || WSTOPSIG(status) != (SIGTRAP | 0x80))
    throw Failure("the application ended during its start");
  user_regs_struct entry{};
  get_registers(pid, entry);
  // The first call is made from the program's entry point, which is put right again at once.
  const long original = ptrace(PTRACE_PEEKTEXT, pid, entry.rip, nullptr);
  ptrace(PTRACE_POKETEXT, pid, entry.rip, (original & ~0xffffffl) | kSyscallInt3);
  const int64_t at = call_in(pid, entry.rip, SYS_mmap, kTrampoline, kPageBytes, PROT_READ | PROT_EXEC,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, ~0ull, 0);
  ptrace(PTRACE_POKETEXT, pid, entry.rip, original);
  if (static_cast<uint64_t>(at) != kTrampoline) throw Failure("cannot map the trampoline page");
  ptrace(PTRACE_POKETEXT, pid, kTrampoline, kSyscallInt3);
  pid_t injector = 0;
  const int64_t made =
      call_in(pid, kTrampoline, SYS_clone, CLONE_VM | CLONE_PARENT, kInjectorStack, 0, 0, 0, 0, &injector);
  if (made < 0 || injector == 0)
    throw Failure(format("cannot make the injector: %s", strerror(static_cast<int>(-made))));
  wait_for_stop(injector, status, "the injector");
  user_regs_struct base{};
  if (!WIFSTOPPED(status) || !get_registers(injector, base))
    throw Failure("the injector ended during its start");
  entry.orig_rax = ~0ull;
  set_registers(pid, entry);
  Injector task(injector, base);
  const int64_t file = open_in(task, pid, format("/proc/%d/fd/%d", getpid(), memory.file()));
  if (file < 0)
    throw Failure(
        format("the application cannot reach the pager's memory file through /proc (%s): is /proc mounted?",
               strerror(static_cast<int>(-file))));
  const int64_t device = open_in(task, pid, "/dev/userfaultfd");
  Uffd uffd = Uffd::create(task, device < 0 ? -1 : static_cast<int>(device), false);
  if (device >= 0) task.call(SYS_close, static_cast<uint64_t>(device));
  memory.attach(task, std::move(uffd), static_cast<int>(file));
}

}  // namespace elastic
