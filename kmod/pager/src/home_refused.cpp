// Calls, and programs, that cannot work while the application's memory may be elsewhere, or while it is
// traced. The program is told what a kernel without them tells it, and the user one line for each kind of
// call in a run. Calls that libraries try at every start, and silently do without, are refused by the filter
// itself. See home.hpp.
//
// A child that runs natively is given all of them but ptrace: its memory is its own.
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <iterator>

#include "home.hpp"

namespace elastic {

namespace {

struct Refused {
  long call;
  int error;
  const char* asked_for;
  const char* told;
};

constexpr const char* kNoSuchCall = "it was told that this kernel has none";
constexpr Refused kRefused[] = {
    {SYS_io_uring_setup, ENOSYS, "io_uring", kNoSuchCall},
    {SYS_userfaultfd, ENOSYS, "userfaultfd", kNoSuchCall},
    {SYS_vmsplice, ENOSYS, "vmsplice", kNoSuchCall},
    {SYS_process_madvise, ENOSYS, "process_madvise", kNoSuchCall},
    {SYS_setsockopt, ENOPROTOOPT, "sends without a copy (SO_ZEROCOPY)",
     "it was told that this protocol has none"},
};

}  // namespace

void Home::refuse_call(Thread& thread) {
  const auto refused = std::find_if(std::begin(kRefused), std::end(kRefused), [&](const Refused& r) {
    return r.call == static_cast<long>(thread.call.orig_rax);
  });
  if (refused == std::end(kRefused)) return run_native(thread, false);
  if (told_refused_.insert(refused->call).second)
    control_->log(LogLevel::warning,
                  format("the program asked for %s, which cannot work while its memory may be elsewhere; %s",
                         refused->asked_for, refused->told));
  answer(thread, -refused->error);
}

// The kernel's own answer follows: it refuses a second tracer.
void Home::note_ptrace(pid_t caller, const user_regs_struct& r) {
  const auto target = r.rdi == PTRACE_TRACEME ? caller : static_cast<pid_t>(r.rsi);
  if (find_thread(target) == nullptr && !foreign_.contains(target)) return;
  if (told_refused_.insert(SYS_ptrace).second)
    control_->log(LogLevel::warning,
                  "the program asked to trace a process of its own (ptrace), which elasticos traces already; "
                  "it was told that it may not");
}

// A child has come upon the filter that it inherited.
void Home::on_foreign_call(pid_t pid) {
  user_regs_struct r{};
  if (!get_registers(pid, r)) return;
  if (r.orig_rax == SYS_ptrace && control_) note_ptrace(pid, r);
  resume(pid);
}

// What a child executes runs natively, but under the filter and the tracer: a program that cannot is not to
// run as something else than it is alone.
void Home::on_foreign_exec(pid_t pid) {
  const std::optional<ProgramProblem> problem = check_executed(pid, may_gain_);
  if (!problem) {
    resume(pid);
  } else if (control_) {
    throw Failure(problem->message, problem->exit_status);
  } else {
    kill(pid, SIGKILL);  // the run is over, and nobody is left to be told
  }
}

}  // namespace elastic
