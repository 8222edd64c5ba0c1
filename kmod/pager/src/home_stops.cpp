// What the application's tasks report through ptrace, and what becomes of them. See home.hpp.
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <utility>

#include "facts.hpp"
#include "home.hpp"
#include "proc_text.hpp"

namespace elastic {

namespace {
constexpr int kSyscallStop = SIGTRAP | 0x80;
// A creator says what it made as soon as it runs again after waking it. Counted in ticks of ours, so that a
// time in which nothing ran (a frozen container) is none.
constexpr int kOrphanTicks = 10;

// Whether `pid` may lack pages that only we can give: it maps our memory file, as the application's threads
// and a child before its first instruction do, or, like every child and grandchild that has not executed a
// program, the trampoline.
bool may_lack_pages(pid_t pid, bool if_unreadable, bool any_child) {
  ProcLines lines(format("/proc/%d/maps", pid));
  if (!lines) return if_unreadable;
  while (const char* line = lines.next())
    if (strstr(line, "/memfd:elastic") != nullptr ||
        (any_child && strtoull(line, nullptr, 16) == kTrampoline))
      return true;
  return false;
}

// A step that was made elsewhere gets the signal that the processor gave it there. Behind the trampoline's
// call nobody comes but a program that has jumped into it: what it called nobody has seen.
void on_trap(Thread& thread) {
  user_regs_struct r{};
  if (!get_registers(thread.tid, r)) return;
  if (r.rip == kTrampoline + kTrampolineCallBytes)
    throw Failure("the program has jumped into the page through which elasticos makes its calls");
  if (!std::exchange(thread.stepped, false)) return;
  siginfo_t info{};
  info.si_signo = SIGTRAP;
  info.si_code = TRAP_TRACE;
  info.si_addr = reinterpret_cast<void*>(r.rip);
  ptrace(PTRACE_SETSIGINFO, thread.tid, nullptr, &info);
}
}  // namespace

Thread& Home::add_thread(pid_t tid, bool in_group) {
  auto thread = std::make_unique<Thread>();
  thread->tid = tid;
  thread->in_group = in_group;
  thread->slot = next_slot_++;
  if (rule_.may_jump()) {
    thread->syscall_file = open_task_file(tid, tid, "syscall");
    thread->schedstat_file = open_task_file(tid, tid, "schedstat");
  }
  slots_[thread->slot] = tid;
  Thread& added = *thread;
  threads_[tid] = std::move(thread);
  counters_.threads_peak = std::max(counters_.threads_peak, count_threads_here());
  return added;
}

bool Home::threads_here() const {
  return std::any_of(threads_.begin(), threads_.end(), [](const auto& entry) {
    const ThreadState state = entry.second->state;
    return state != ThreadState::away && state != ThreadState::recalling;
  });
}

uint64_t Home::count_threads_here() const {
  const auto here = std::count_if(threads_.begin(), threads_.end(), [](const auto& entry) {
    const Thread& thread = *entry.second;
    return thread.in_group && thread.state != ThreadState::away && thread.state != ThreadState::recalling;
  });
  return static_cast<uint64_t>(here);
}

Thread* Home::find_thread(pid_t tid) {
  const auto it = threads_.find(tid);
  return it == threads_.end() ? nullptr : it->second.get();
}

Thread* Home::thread_of_slot(uint32_t slot) {
  const auto it = slots_.find(slot);
  return it == slots_.end() ? nullptr : find_thread(it->second);
}

void Home::forget_thread(pid_t tid) {
  Thread* thread = find_thread(tid);
  if (thread == nullptr) return;
  if (thread->state == ThreadState::away || thread->state == ThreadState::recalling) {
    if (Node* node = lanes_->find(thread->node)) {
      node->threads_there -= node->threads_there > 0 ? 1 : 0;
      FrameHeader header;
      header.argument = thread->slot;
      lanes_->send(*node, FrameType::thread_end, header);
    }
  }
  release(thread->pinned);
  release(thread->kept);
  pins_->unpin(thread->pins);
  slots_.erase(thread->slot);
  threads_.erase(tid);
}

// The injector's stops, which its calls wait for themselves, raise the signal as well: what has come of it
// while stops were answered is taken at the end, so that it does not make a round of the loop.
void Home::on_child_events() {
  take_stops();
  signalfd_siginfo info;
  if (read(signal_fd_.get(), &info, sizeof info) > 0) take_stops();
}

void Home::take_stops() {
  for (;;) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, __WALL | WNOHANG);
    if (pid <= 0) return;
    if (pid == holder_.pid() || pid == memory_.injector().tid()) continue;
    if (WIFSTOPPED(status))
      on_stop(pid, status);
    else
      on_task_end(pid, status);
  }
}

void Home::on_task_end(pid_t pid, int status) {
  foreign_.erase(pid);
  early_.erase(pid);
  forget_thread(pid);
  drop_snapshot(snapshots_.leave(pid));
  if (pid != application_ || ending_) return;
  application_ = 0;
  if (WIFSIGNALED(status) && WCOREDUMP(status)) warn_of_core();
  if (snapshots_.empty())
    for (const auto& [early, ticks] : early_) kill(early, SIGKILL);  // nobody is left to say what they are
  if (WIFEXITED(status))
    parting_ = {0, WEXITSTATUS(status), ""};
  else
    parting_ = {1, WTERMSIG(status), ""};
  hand_over_memory(true, [this] { end(*parting_); });
}

void Home::on_stop(pid_t pid, int status) {
  if (Thread* thread = find_thread(pid)) return on_thread_stop(*thread, status);
  if (!foreign_.contains(pid)) return on_unknown_stop(pid);
  if (on_child_stop(pid, status)) return;
  const int event = stop_event(status);
  if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE) {
    const std::optional<pid_t> child = new_task(pid);
    if (child && is_traced(*child)) foreign_.insert(*child);
    if (child && early_.erase(*child) > 0) resume(*child);
    resume(pid);
    return;
  }
  if (event == PTRACE_EVENT_SECCOMP) return on_foreign_call(pid);
  if (event == PTRACE_EVENT_EXEC) return on_foreign_exec(pid);
  if (event == PTRACE_EVENT_STOP && stops_group(WSTOPSIG(status))) {
    listen(pid);
    return;
  }
  if (event != 0 || WSTOPSIG(status) == kSyscallStop)
    resume(pid);
  else
    resume(pid, WSTOPSIG(status));
}

// The first stop of a task that its creator has not reported, and never will if it has died meanwhile.
// What lacks no pages is a process of another one of the tree and runs. Else it waits to be told from others
// by the creator's event; it has not run an instruction.
void Home::on_unknown_stop(pid_t pid) {
  const bool creators = application_ > 0 || !snapshots_.empty();
  if (!may_lack_pages(pid, creators, !snapshots_.empty())) {
    foreign_.insert(pid);
    resume(pid);
  } else if (creators) {
    early_[pid] = 0;
  } else {
    kill(pid, SIGKILL);
  }
}

// Those whose creator has died: as if it had died before the fork.
void Home::end_orphans() {
  for (auto& [pid, ticks] : early_)
    if (!foreign_.contains(pid) && ++ticks == kOrphanTicks) kill(pid, SIGKILL);
}

void Home::on_thread_stop(Thread& thread, int status) {
  const int event = stop_event(status);
  const pid_t tid = thread.tid;
  if (thread.state == ThreadState::to_jump) return try_finish_jump(thread, status);
  switch (event) {
    case PTRACE_EVENT_SECCOMP: return on_call(thread);
    case PTRACE_EVENT_CLONE:
    case PTRACE_EVENT_FORK:
    case PTRACE_EVENT_VFORK: return on_new_task(thread);
    case PTRACE_EVENT_EXEC: return on_exec(tid);
    case PTRACE_EVENT_STOP:
      if (stops_group(WSTOPSIG(status)))
        listen(tid);
      else
        resume(tid);  // a new thread's first stop, SIGCONT, or an interrupt that came too late
      return;
    case 0:
      if (WSTOPSIG(status) == kSyscallStop) {
        if (thread.wants_exit_stop)
          on_call_end(thread);
        else
          resume(tid);
        return;
      }
      return on_signal(thread, WSTOPSIG(status));
    default: resume(tid);
  }
}

void Home::on_signal(Thread& thread, int signal) {
  if (thread.state != ThreadState::away && thread.state != ThreadState::recalling) {
    if (signal == SIGTRAP) on_trap(thread);
    resume(thread.tid, signal);
    return;
  }
  // Its context is elsewhere: the parked task stays in this stop until the context is back, then the signal
  // goes in.
  thread.signals.push_back(signal);
  if (thread.state == ThreadState::away) recall(thread);
}

void Home::on_new_task(Thread& parent) {
  const std::optional<pid_t> child = new_task(parent.tid);
  user_regs_struct r{};
  if (!child || !get_registers(parent.tid, r)) return;  // the parent is gone: see end_orphans
  const uint64_t flags = r.orig_rax == SYS_clone ? r.rdi : r.orig_rax == SYS_vfork ? CLONE_VM : 0;
  if ((flags & CLONE_VM) == 0) return on_fork_event(parent, *child);
  if (is_traced(*child)) {
    Thread& thread = add_thread(*child, (flags & CLONE_THREAD) != 0);
    constexpr uint64_t kClearTid = 0x200000;
    if (flags & kClearTid) thread.clear_tid_address = r.r10;
  }
  if (early_.erase(*child) > 0) resume(*child);
  resume(parent.tid);
}

// A new image: everything of the old one ends, on every node, and frames of it are fenced from now on.
void Home::on_exec(pid_t pid) {
  if (pid != application_) {  // a vfork child leaves our memory
    forget_thread(pid);
    foreign_.insert(pid);
    return on_foreign_exec(pid);
  }
  const std::optional<ProgramProblem> problem = check_executed(pid, may_gain_);
  if (problem) throw Failure(problem->message, problem->exit_status);
  const pid_t injector = memory_.injector().tid();
  pins_->clear();
  aio_.clear();
  int status = 0;
  std::vector<pid_t> gone;
  for (const auto& [tid, thread] : threads_) {
    gone.push_back(tid);
    if (thread->in_group) continue;
    kill(tid, SIGKILL);  // a vfork child of another thread: the memory that it borrowed ends now
    while (wait_stop_or_end(tid, status) && WIFSTOPPED(status)) {
    }
  }
  for (const pid_t tid : gone) {
    threads_[tid]->state = ThreadState::running;  // guests end with the reset
    threads_[tid]->pinned.clear();
    threads_[tid]->kept.clear();
    forget_thread(tid);
  }
  tickets_.clear();
  if (snapshots_.pending() > 0)  // the old image's memory is there still
    return hand_over_memory(false, [this, pid] {
      if (pid == application_) on_exec(pid);
    });
  loop_.forget(memory_.uffd().fd());
  lanes_->image++;
  for (auto& [index, node] : lanes_->all()) {
    FrameHeader header;
    header.argument = lanes_->image;
    lanes_->send(*node, FrameType::reset, header);
    node->synced = false;
    node->threads_there = 0;
  }
  engine_->reset();
  regions_.clear();
  memory_.reset();
  kill(injector, SIGKILL);
  waitpid(injector, &status, __WALL);
  add_thread(application_, true);
  prepare_image();
  resume(application_);
}

}  // namespace elastic
