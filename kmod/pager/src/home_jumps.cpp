// Threads that leave for the node that has the page they want, and come back for every system call and
// signal. Home is the authority on where a thread is: a jump from one participant to another passes through
// here. See home.hpp; the other side is guests.cpp.
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <utility>

#include "home.hpp"
#include "jump.hpp"

namespace elastic {

namespace {
constexpr uint64_t kSpinUs = 40;
constexpr uint32_t kStayFaults = 16;
constexpr uint64_t kParkAt = kTrampoline;
constexpr uint64_t kParkUs = 1'000;  // so long a signal for one that has left may wait
constexpr int kStopped = PTRACE_EVENT_STOP << 16 | SIGTRAP << 8 | 0x7f;
}  // namespace

bool Home::leave_for(const FaultEvent& fault, uint16_t owner) {
  if (!rule_.may_jump() || ending_) return false;
  Thread* thread = find_thread(fault.tid);
  if (thread == nullptr || !thread->in_group || thread->state != ThreadState::running) return false;
  if (thread->stay_faults > 0) {
    thread->stay_faults--;
    return false;
  }
  const uint64_t rip = user_mode_rip(thread->syscall_file.get());
  if (rip == 0) return false;  // inside a system call: always a pull
  const Region* code = regions_.find(page_of(rip));
  const Decision decision = rule_.on_remote_fault(thread->rule, static_cast<uint8_t>(owner),
                                                  ran_us(thread->schedstat_file.get()), rip);
  if (!decision.jump || code == nullptr || code->kind == RegionKind::native)
    return false;  // the vDSO stays here
  Node* node = lanes_->find(owner);
  if (node == nullptr || !may_host(*node)) return false;
  thread->node = owner;
  thread->fault_page = fault.page;
  thread->jump_started_ns = now_ns();
  if (!interrupt(thread->tid)) return true;  // ended: nobody waits for the page
  thread->state = ThreadState::to_jump;
  int status = 0;
  if (spin_for_stop(thread->tid, status, kSpinUs)) try_finish_jump(*thread, status);
  return true;
}

bool Home::may_host(const Node& node) const {
  return snapshots_.pending() == 0 && !fork_in_progress() && node.up && node.synced && !node.left &&
         !node.draining && !node.lease.revoked && now_us() < node.lease.expires_us &&
         node.status.pages_limit >= kThreadPagesMin && node.threads_there < node.lease.threads_max;
}

void Home::try_finish_jump(Thread& thread, int status) {
  const pid_t tid = thread.tid;
  thread.state = ThreadState::running;
  if (!WIFSTOPPED(status)) return on_task_end(tid, status);
  if (stop_event(status) == PTRACE_EVENT_STOP && WSTOPSIG(status) == SIGTRAP) return jump_out(thread);
  stay_and_pull(thread);  // a signal or something else came first
  on_thread_stop(thread, status);
}

// The fault is still waiting: serve it as a pull after all.
void Home::stay_and_pull(Thread& thread) {
  FaultEvent fault;
  fault.page = thread.fault_page;
  fault.tid = 0;  // belongs to no thread: it cannot jump
  engine_->on_fault(fault);
}

void Home::jump_out(Thread& thread) {
  Context context;
  Node* node = lanes_->find(thread.node);
  if (!get_context(thread.tid, context)) return;
  if (node == nullptr || !may_host(*node) || static_cast<int64_t>(context.registers.orig_rax) >= 0 ||
      !context.can_leave()) {
    stay_and_pull(thread);
    resume(thread.tid);
    return;
  }
  counters_.jumps++;
  send_context(*node, thread, context);
  lanes_->send_now(*node, false);
  engine_->drop_shipped();
  thread.xstate.note(context);
  thread.parked = false;
  park_soon();
}

void Home::send_context(Node& node, Thread& thread, const Context& context) {
  engine_->ship_with_jump(node, thread.working_set.wanted(context.registers.rsp));
  thread.working_set.on_jump();
  JumpBytes buffer;
  const std::span<const uint8_t> bytes = encode_jump(thread.rule, thread.working_set, context, buffer);
  FrameHeader header;
  header.argument = thread.slot;
  header.version = thread.jump_started_ns;
  header.page = thread.fault_page;
  const iovec part{const_cast<uint8_t*>(bytes.data()), bytes.size()};
  lanes_->send(node, FrameType::jump, header, {&part, 1});
  node.threads_there++;
  thread.node = node.index;
  thread.state = ThreadState::away;
}

// Many a thread is back before its task has been parked, and finds it as it left it: in its stop.
void Home::park_soon() {
  if (parking_) return;
  parking_ = true;
  loop_.at(now_us() + kParkUs, [this] { park_all(); });
}

void Home::park_all() {
  parking_ = false;
  for (const auto& [tid, thread] : threads_)
    if (thread->state == ThreadState::away || thread->state == ThreadState::recalling) park(*thread);
}

// The task waits in pause(), called from the trampoline: a signal shows as a stop, and nothing runs.
void Home::park(Thread& thread) {
  user_regs_struct r{};
  if (std::exchange(thread.parked, true) || !get_registers(thread.tid, r)) return;
  r.rip = kParkAt;
  r.rax = SYS_pause;
  r.orig_rax = ~0ull;
  if (set_registers(thread.tid, r)) resume(thread.tid);
}

void Home::recall(Thread& thread) {
  Node* node = lanes_->find(thread.node);
  if (node == nullptr) return;
  thread.state = ThreadState::recalling;
  FrameHeader header;
  header.argument = thread.slot;
  lanes_->send(*node, FrameType::recall, header);
}

void Home::on_back(Node& node, const Frame& frame) {
  Thread* thread = thread_of_slot(frame.header.argument);
  Context context;
  if (thread == nullptr || thread->node != node.index) return;  // ended meanwhile
  if (thread->state != ThreadState::away && thread->state != ThreadState::recalling) return;
  if (!decode_jump(frame.payload, thread->rule, thread->working_set, context))
    throw Failure(format("node %s sent a malformed context", node.name.c_str()));
  if (context.registers.fs_base >= kUserSpaceEnd || context.registers.gs_base >= kUserSpaceEnd)
    throw Failure("a thread has set its %fs or %gs base beyond its memory, and cannot get it at home");
  node.threads_there -= node.threads_there > 0 ? 1 : 0;
  const bool recalled = thread->state == ThreadState::recalling;
  thread->state = ThreadState::running;  // here, as far as counts go, even if it turns out to have ended
  const auto reason = static_cast<BackReason>(frame.header.flags);
  context.registers.orig_rax = ~0ull;
  if (reason == BackReason::syscall) {
    context.registers.rax = frame.header.version;  // the call's number; the instruction is made again, here
    context.registers.rip -= 2;
  }
  const auto destination = static_cast<uint16_t>(frame.header.page);
  if (reason == BackReason::jump && destination != kHome && thread->signals.empty() && !recalled) {
    Node* next = lanes_->find(destination);
    if (next != nullptr && may_host(*next)) {
      thread->jump_started_ns = now_ns();
      thread->fault_page = frame.header.last_written_cut == 0 ? 0 : thread->fault_page;
      send_context(*next, *thread, context);
      return engine_->drop_shipped();
    }
  }
  if (reason == BackReason::page) thread->stay_faults = kStayFaults;
  thread->stepped = reason == BackReason::step;
  if (reason == BackReason::jump)
    counters_.jumps_here++;
  else
    counters_.jumps_home++;
  resume_at_home(*thread, context);
}

void Home::resume_at_home(Thread& thread, Context& context) {
  const pid_t tid = thread.tid;
  bool group_stopped = false;
  // A task that already stands in a signal stop (it was recalled for it) needs no interrupt.
  if (thread.signals.empty()) {
    int status = 0;
    if (thread.parked && !(interrupt(tid) && wait_stop_or_end(tid, status))) return;
    // One that was not parked has nothing to say, unless it is none any more.
    if (!thread.parked && waitpid(tid, &status, __WALL | WNOHANG) != tid) status = kStopped;
    group_stopped = stop_event(status) == PTRACE_EVENT_STOP && stops_group(WSTOPSIG(status));
    if (!WIFSTOPPED(status)) return on_task_end(tid, status);
    // Another thread has executed a program and taken over this task: the context belongs to the old image.
    if (stop_event(status) == PTRACE_EVENT_EXEC) return on_exec(tid);
    if (stop_event(status) == 0 && WSTOPSIG(status) != (SIGTRAP | 0x80))
      thread.signals.push_back(WSTOPSIG(status));
  }
  if (!set_context(tid, context, thread.xstate)) return;
  thread.state = ThreadState::running;
  thread.node = kHome;
  int signal = 0;
  if (!thread.signals.empty()) signal = thread.signals.front();
  for (size_t i = 1; i < thread.signals.size(); i++)
    syscall(SYS_tgkill, application_, tid, thread.signals[i]);
  thread.signals.clear();
  if (thread.stepped) syscall(SYS_tgkill, application_, tid, SIGTRAP);
  if (group_stopped)
    listen(tid);
  else
    resume(tid, signal);
  counters_.threads_peak = std::max(counters_.threads_peak, count_threads_here());
  // What it has run since is at most what it takes to come here.
  rule_.on_arrival(thread.rule, ran_us(thread.schedstat_file.get()),
                   register_mark(&context.registers, sizeof context.registers));
}

}  // namespace elastic
