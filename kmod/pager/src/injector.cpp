// See injector.hpp.
#include "injector.hpp"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>

#include "tracee.hpp"
#include "util.hpp"

namespace elastic {

namespace {

// What a task never needs to see while it makes calls for us: all but the signals of an instruction.
constexpr uint64_t kKeptBack = ~(1ull << (SIGTRAP - 1) | 1ull << (SIGSEGV - 1) | 1ull << (SIGBUS - 1) |
                                 1ull << (SIGILL - 1) | 1ull << (SIGFPE - 1) | 1ull << (SIGSYS - 1));

// Lets `tid`, whose signals are blocked, run until its int3; clone events give the child's tid. `stopped`: a
// SIGSTOP, which cannot be blocked, was kept back.
int64_t run_to_trap(pid_t tid, pid_t* child, bool& stopped) {
  for (;;) {
    if (!resume(tid)) return -ESRCH;
    // Its end stays to be reported; that of a leader may come only after other threads have been waited for.
    siginfo_t info{};
    while (waitid(P_PID, static_cast<id_t>(tid), &info, WSTOPPED | __WALL) != 0)
      if (errno != EINTR) return -ESRCH;
    const int status = info.si_status << 8 | 0x7f;  // as waitpid has it
    const int event = stop_event(status);
    if (event == PTRACE_EVENT_CLONE || event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK) {
      if (child != nullptr) *child = new_task(tid).value_or(0);
      continue;
    }
    if (event != 0) continue;
    if (WSTOPSIG(status) == SIGTRAP) break;
    if (WSTOPSIG(status) == SIGSEGV) throw Failure("the injected call's trampoline is not mapped");
    if (WSTOPSIG(status) == SIGSTOP) stopped = true;
  }
  user_regs_struct registers{};
  if (!get_registers(tid, registers)) return -ESRCH;
  return static_cast<int64_t>(registers.rax);
}

void set_call(user_regs_struct& r, uint64_t ip, long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
              uint64_t e, uint64_t f) {
  r.rip = ip;
  r.rax = static_cast<uint64_t>(number);
  r.orig_rax = ~0ull;  // not inside a system call: no restart may touch these registers
  r.rdi = a;
  r.rsi = b;
  r.rdx = c;
  r.r10 = d;
  r.r8 = e;
  r.r9 = f;
}

}  // namespace

int64_t Injector::run(const user_regs_struct& registers, pid_t* child) {
  if (!set_registers(tid_, registers)) return -ESRCH;
  bool stopped = false;
  return run_to_trap(tid_, child, stopped);  // it is stopped but for our calls in any case
}

Injector Injector::borrow(pid_t tid) {
  Injector injector;
  injector.tid_ = tid;
  injector.borrowed_ = true;
  return injector;
}

int64_t Injector::call(long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f) {
  if (borrowed_) return call_in(tid_, kTrampoline, number, a, b, c, d, e, f);
  user_regs_struct registers = base_;
  set_call(registers, kTrampoline, number, a, b, c, d, e, f);
  return run(registers, nullptr);
}

int64_t Injector::clone(uint64_t flags, uint64_t stack, pid_t& child) {
  user_regs_struct registers = base_;
  set_call(registers, kTrampoline, SYS_clone, flags, stack, 0, 0, 0, 0);
  return run(registers, &child);
}

int64_t call_in(pid_t tid, uint64_t ip, long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                uint64_t e, uint64_t f, pid_t* child) {
  user_regs_struct saved{};
  uint64_t mask = 0;
  if (!get_registers(tid, saved) || !get_signal_mask(tid, mask)) return -ESRCH;
  user_regs_struct registers = saved;
  set_call(registers, ip, number, a, b, c, d, e, f);
  if (!set_signal_mask(tid, kKeptBack) || !set_registers(tid, registers)) return -ESRCH;
  bool stopped = false;
  const int64_t result = run_to_trap(tid, child, stopped);
  saved.orig_rax = ~0ull;
  if (result != -ESRCH && !(set_registers(tid, saved) && set_signal_mask(tid, mask))) return -ESRCH;
  if (stopped) syscall(SYS_tkill, tid, SIGSTOP);
  return result;
}

Fd open_of_task(pid_t pid, const char* name, int flags, Injector* injector) {
  const std::string path = format("/proc/%d/%s", pid, name);
  Fd file(open(path.c_str(), flags | O_CLOEXEC));
  if (file || (errno != EACCES && errno != EPERM)) return file;
  const auto set_dumpable = [&](uint64_t value) {
    if (injector != nullptr) return injector->call(SYS_prctl, PR_SET_DUMPABLE, value);
    return call_in(pid, kTrampoline, SYS_prctl, PR_SET_DUMPABLE, value);
  };
  if (set_dumpable(1) != 0) {
    errno = EACCES;
    return file;
  }
  file.reset(open(path.c_str(), flags | O_CLOEXEC));
  const int error = errno;
  set_dumpable(0);
  errno = error;
  return file;
}

}  // namespace elastic
