// See guests.hpp; home's side of a jump is home_jumps.cpp.
#include "guests.hpp"

#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

namespace elastic {

namespace {
constexpr uint64_t kSpinUs = 40;
constexpr uint64_t kJumpNsMax = 100'000'000;  // a clock of another machine, not a duration
constexpr int kSyscallStop = SIGTRAP | 0x80;
constexpr uint64_t kVsyscallPage = 0xffffffffff600000;
constexpr int kSeccompCode = 1;  // SYS_SECCOMP of <asm-generic/siginfo.h>

constexpr int kBreakCode = 1, kTraceCode = 2;  // TRAP_BRKPT, TRAP_TRACE
constexpr uint64_t kCompatCode = 0x23, kOverflowFlag = 0x800;

// 0 if it is not there. Never of two pages at once: one of them may be elsewhere.
uint8_t code_byte(pid_t tid, uint64_t address) {
  errno = 0;
  const auto word = static_cast<uint64_t>(ptrace(PTRACE_PEEKTEXT, tid, address & ~7ull, nullptr));
  return errno == 0 ? static_cast<uint8_t>(word >> address % 8 * 8) : 0;
}

// How long the instruction was whose trap left `r` behind it; 0 if the signal came before its instruction.
uint64_t trap_bytes(pid_t tid, const siginfo_t& info, const user_regs_struct& r) {
  const bool trap = info.si_signo == SIGTRAP, fault = info.si_signo == SIGSEGV;
  if (!(trap || fault)) return 0;
  const uint8_t last = code_byte(tid, r.rip - 1);
  const auto after_int = [&] { return code_byte(tid, r.rip - 2) == 0xcd; };
  if (trap && info.si_code == SI_KERNEL) return last == 3 && after_int() ? 2 : 1;  // int $3, int3
  if (trap) return info.si_code == kBreakCode && last == 0xf1 ? 1 : 0;             // int1
  if (info.si_code != SI_KERNEL) return 0;
  if (last == 4 && after_int()) return 2;                                                 // int $4
  return last == 0xce && r.cs == kCompatCode && (r.eflags & kOverflowFlag) != 0 ? 1 : 0;  // into
}

// Most signals come before their instruction, which home then makes again. Some come after it, and the
// context is put back to before: those of trap_bytes, and a call of the vsyscall page, which the guest's
// filter refuses: the kernel has taken the return address off the stack all the same. What has been executed
// with the trap flag cannot be put back. If one that came before is taken for `int $4` or `into`, these raise
// the same signal at the same place.
BackReason put_back(pid_t tid, user_regs_struct& r) {
  siginfo_t info{};
  if (ptrace(PTRACE_GETSIGINFO, tid, nullptr, &info) != 0) return BackReason::signal;
  if (info.si_signo == SIGTRAP && info.si_code == kTraceCode) return BackReason::step;
  r.rip -= trap_bytes(tid, info, r);
  if (info.si_signo == SIGSYS && info.si_code == kSeccompCode) {
    const uint64_t offset = r.rax == SYS_time ? 0x400 : r.rax == SYS_getcpu ? 0x800 : 0;
    r.rip = kVsyscallPage + offset;
    r.rsp -= 8;
  }
  return BackReason::signal;
}
}  // namespace

Guests::Guests(Memory& memory, RegionMap& regions, Lanes& lanes, Counters& counters,
               std::function<void(const std::string&)> warn)
    : memory_(memory),
      regions_(regions),
      lanes_(lanes),
      counters_(counters),
      warn_(std::move(warn)),
      rule_(std::make_unique<JumpRule>("always-pull", 0)) {}

void Guests::set_rule(const std::string& policy, uint64_t jump_every) {
  rule_ = std::make_unique<JumpRule>(policy, jump_every);
}

void Guests::make_shell() {
  engine_->discard_copies();
  shell_ = start_shell(memory_);
  if (!shell_.weakness.empty()) warn_(shell_.weakness);
  regions_.visit(0, page_of(kUserSpaceEnd), [this](const Region& region) {
    if (const int error = memory_.map(region.start, region.end - region.start, region.prot); error != 0)
      throw Failure(
          format("the shell process cannot map %#lx: %s", address_of(region.start), strerror(-error)));
  });
  on_shell();
}

void Guests::end_shell() {
  if (shell_.pid <= 0) return;
  kill(shell_.pid, SIGKILL);  // before its faults are answered by nobody, i.e. with zeros
  memory_.detach();
  int status = 0;
  // Whichever is reported: the leader comes after all its threads, and the last of them, being the first
  // process of its namespace, ends only when the others have been waited for.
  for (;;) {
    const pid_t pid = waitpid(-1, &status, __WALL);
    if (pid < 0 && errno == EINTR) continue;
    if (pid < 0 || (pid == shell_.pid && !WIFSTOPPED(status))) break;
  }
  guests_.clear();
  running_ = 0;
  used_us_ = 0;
  shell_ = {};
}

Guest* Guests::by_own_tid(pid_t tid) {
  for (const auto& [key, guest] : guests_)
    if (guest->own_tid == tid) return guest.get();
  return nullptr;
}

Guest* Guests::by_slot(uint32_t slot) {
  for (const auto& [key, guest] : guests_)
    if (guest->slot == slot) return guest.get();
  return nullptr;
}

// The task that ran this thread before, a free one, a new one while there are fewer than `tasks_max`, or one
// whose thread is elsewhere now.
Guest* Guests::take_guest(uint32_t slot, size_t tasks_max) {
  if (Guest* same = by_slot(slot)) return same;
  Guest* guest = nullptr;
  for (const auto& [tid, other] : guests_)
    if (!other->running && (other->slot == 0 || guests_.size() >= tasks_max)) guest = other.get();
  if (guest == nullptr) {
    auto fresh = std::make_unique<Guest>();
    fresh->tid = start_guest_thread(memory_.injector(), fresh->own_tid);
    if (fresh->tid == 0) return nullptr;
    fresh->syscall_file = open_task_file(shell_.pid, fresh->tid, "syscall");
    fresh->schedstat_file = open_task_file(shell_.pid, fresh->tid, "schedstat");
    guest = fresh.get();
    guests_[fresh->tid] = std::move(fresh);
  }
  guest->slot = slot;
  return guest;
}

void Guests::set_running(Guest& guest, bool running) {
  if (guest.running == running) return;
  guest.running = running;
  running_ += running ? 1 : -1;
  counters_.threads_peak = std::max<uint64_t>(counters_.threads_peak, running_);
}

void Guests::let_run(Guest& guest) {
  guest.halted = halted_;
  if (!halted_) resume_sysemu(guest.tid);
}

void Guests::share_processors(uint64_t now_us) {
  uint64_t used = 0;
  for (const auto& [tid, guest] : guests_) used += ran_us(guest->schedstat_file.get());
  const bool spent = share_.spent(now_us, used - std::min(used, used_us_));
  used_us_ = used;
  if (spent == halted_) return;
  halted_ = spent;
  for (const auto& [tid, guest] : guests_) {
    if (spent && guest->running && !guest->leaving) interrupt(tid);  // its stop finds it halted
    if (!spent && guest->halted) let_run(*guest);
  }
}

void Guests::refuse(Node& home, const Frame& frame, const std::string& reason) {
  counters_.frames_refused++;
  warn_("jump refused: " + reason);
  FrameHeader header;
  header.argument = frame.header.argument;
  header.flags = static_cast<uint16_t>(BackReason::refused);
  const iovec part{const_cast<uint8_t*>(frame.payload.data()), frame.payload.size()};
  lanes_.send(home, FrameType::back, header, {&part, 1});
}

void Guests::on_jump(Node& home, const Frame& frame, uint32_t threads_max) {
  const uint32_t slot = frame.header.argument;
  if (slot == 0) return;
  if (running_ >= threads_max) return refuse(home, frame, "as many threads as the lease allows run here");
  ThreadRule rule{};
  WorkingSet working_set;
  Context context;
  if (!decode_jump(frame.payload, rule, working_set, context))
    return refuse(home, frame, "malformed context");
  Guest* guest = nullptr;
  try {
    if (!has_shell()) make_shell();
    guest = take_guest(slot, threads_max);
  } catch (const Failure& failure) {
    if (running_ > 0) throw;  // others compute there: the shell cannot be given up
    end_shell();
    return refuse(home, frame, failure.what());
  }
  if (guest == nullptr || guest->running) return refuse(home, frame, "no task for this thread");
  guest->rule = rule;
  guest->working_set = working_set;
  guest->leaving = false;
  guest->fault_page = 0;
  const uint64_t mark = register_mark(&context.registers, sizeof context.registers);
  context.registers.orig_rax = ~0ull;
  if (!set_context(guest->tid, context, guest->xstate))
    return refuse(home, frame, "the shell process is gone");
  set_running(*guest, true);
  let_run(*guest);
  counters_.jumps_here++;
  const uint64_t took = now_ns() - frame.header.version;
  if (took < kJumpNsMax) counters_.jump_ns.add(took);
  // What it has run since is at most what it takes to come here.
  rule_->on_arrival(guest->rule, ran_us(guest->schedstat_file.get()), mark);
}

void Guests::note_fault(const FaultEvent& fault) {
  Guest* guest = by_own_tid(fault.tid);
  if (guest == nullptr) return;
  guest->fault_page = fault.page;
  guest->working_set.on_fault(fault.page);
}

void Guests::on_local_fault(const FaultEvent& fault) {
  if (Guest* guest = by_own_tid(fault.tid)) rule_->on_local(guest->rule);
}

bool Guests::leave_for(const FaultEvent& fault, uint16_t owner) {
  if (!rule_->may_jump()) return false;
  Guest* guest = by_own_tid(fault.tid);
  if (guest == nullptr || !guest->running || guest->leaving) return false;
  const uint64_t rip = user_mode_rip(guest->syscall_file.get());
  if (rip == 0) return false;
  const Decision decision = rule_->on_remote_fault(guest->rule, static_cast<uint8_t>(owner),
                                                   ran_us(guest->schedstat_file.get()), rip);
  if (!decision.jump) return false;
  counters_.jumps++;
  send_off(*guest, BackReason::jump, owner);
  return true;
}

void Guests::must_go_home(uint64_t page) {
  for (const auto& [tid, guest] : guests_)
    if (guest->running && !guest->leaving && guest->fault_page == page)
      send_off(*guest, BackReason::page, kHome);
}

void Guests::all_go_home() {
  for (const auto& [tid, guest] : guests_)
    if (guest->running && !guest->leaving) send_off(*guest, BackReason::recalled, kHome);
}

void Guests::on_recall(uint32_t slot) {
  Guest* guest = by_slot(slot);
  if (guest != nullptr && guest->running && !guest->leaving) send_off(*guest, BackReason::recalled, kHome);
}

void Guests::on_thread_end(uint32_t slot) {
  Guest* guest = by_slot(slot);
  if (guest == nullptr) return;
  guest->slot = 0;
  if (!guest->running) return;
  if (guest->halted) {
    guest->halted = false;
    return set_running(*guest, false);
  }
  interrupt(guest->tid);
  guest->leaving = true;  // its stop finds no thread to send
}

// Stops the guest; its stop (here at once, as a rule) sends its context home.
void Guests::send_off(Guest& guest, BackReason why, uint16_t to) {
  guest.leaving = true;
  guest.why = why;
  guest.to = to;
  if (guest.halted) return go(guest, why, to);
  if (!interrupt(guest.tid)) return;
  int status = 0;
  if (spin_for_stop(guest.tid, status, kSpinUs)) on_stop(guest.tid, status);
}

void Guests::on_stop(pid_t tid, int status) {
  const auto it = guests_.find(tid);
  if (it == guests_.end()) return;
  Guest& guest = *it->second;
  if (!WIFSTOPPED(status)) {
    set_running(guest, false);
    const bool lost = guest.slot != 0;
    guests_.erase(it);
    if (lost) throw Failure("the shell process ended");
    return;
  }
  if (!guest.running) return;  // the late stop of an interrupt: it stays stopped
  if (guest.slot == 0) {
    set_running(guest, false);
    guest.leaving = false;
    return;
  }
  if (stop_event(status) == PTRACE_EVENT_STOP) {
    if (guest.leaving) return go(guest, guest.why, guest.to);
    return let_run(guest);
  }
  if (stop_event(status) == 0 && WSTOPSIG(status) == kSyscallStop)
    return go(guest, BackReason::syscall, kHome);
  go(guest, BackReason::signal, kHome);
}

void Guests::go(Guest& guest, BackReason why, uint16_t to) {
  Node* home = lanes_.find(kHome);
  Context context;
  if (home == nullptr || !get_context(guest.tid, context)) return;
  set_running(guest, false);
  guest.leaving = guest.halted = false;
  if (why == BackReason::signal) why = put_back(guest.tid, context.registers);
  FrameHeader header;
  header.argument = guest.slot;
  header.flags = static_cast<uint16_t>(why);
  header.page = to;
  if (why == BackReason::syscall) header.version = context.registers.orig_rax;
  // Through home goes the context alone; its pages take the direct lane, if there is one.
  Node* next = why == BackReason::jump && to != kHome ? lanes_.find(to) : home;
  if (next != nullptr && next->up && next->synced && !next->left && next->status.pages_limit > 0)
    engine_->ship_with_jump(*next, guest.working_set.wanted(context.registers.rsp));
  guest.working_set.on_jump();
  JumpBytes buffer;
  const std::span<const uint8_t> bytes = encode_jump(guest.rule, guest.working_set, context, buffer);
  const iovec part{const_cast<uint8_t*>(bytes.data()), bytes.size()};
  lanes_.send(*home, FrameType::back, header, {&part, 1});
  if (next != nullptr && next != home) lanes_.send_now(*next, false);
  lanes_.send_now(*home, false);
  engine_->drop_shipped();
  guest.xstate.note(context);
}

}  // namespace elastic
