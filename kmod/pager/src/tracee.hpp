// One traced task (thread) and what ptrace can do with it: stop, read and write its execution context, go on.
// Every errno is classified: ESRCH means the task is gone (a value, not an error); the rest is a Failure.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <array>
#include <csignal>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "util.hpp"

namespace elastic {

constexpr size_t kXstateBytesMax = 32 * 1024;

// An execution context: general registers, and the extended state in the standard XSAVE layout. No signal
// mask: calls are made at home alone, so that of the task there is always the right one.
struct Context {
  user_regs_struct registers{};
  uint32_t xstate_full_bytes = 0;  // as the kernel takes it
  uint32_t xstate_bytes = 0;  // of them lie in `xstate`, up to the last that is not zero; a multiple of 64
  alignas(64) std::array<uint8_t, kXstateBytesMax> xstate;  // left as it is: 32 KB a jump would cost

  // As it travels: what is in lines of 64 bytes that are all zeros is left out, most of it as a rule. Returns
  // how many of the first kContextBytesMax bytes of `out` are used.
  size_t encode(uint8_t* out) const;
  // False if malformed (sizes out of bounds).
  bool decode(std::span<const uint8_t> bytes);
  // Whether a task of another machine can have it: 64-bit code with the segments that every program has, and
  // no tiles of AMX, for which a process needs a permission of its own.
  bool can_leave() const;
};

// Registers, size, and a bit for each line.
constexpr size_t kContextHeadBytes = sizeof(user_regs_struct) + 8 + kXstateBytesMax / 64 / 8;
constexpr size_t kContextBytesMax = kContextHeadBytes + kXstateBytesMax;

// The extended state of a task that has run no instruction since: writing it takes two to three times as
// long as writing the general registers, and most of it seldom changes.
class KnownXstate {
 public:
  void note(const Context& context) {
    full_bytes_ = context.xstate_full_bytes;
    bytes_.assign(context.xstate.data(), context.xstate.data() + context.xstate_bytes);
  }
  void forget() { bytes_.clear(); }
  bool is(const Context& context) const;
  bool differs_only_in_legacy_area(const Context& context) const;

 private:
  bool has_size_of(const Context& context) const {
    return !bytes_.empty() && bytes_.size() == context.xstate_bytes &&
           full_bytes_ == context.xstate_full_bytes;
  }
  uint32_t full_bytes_ = 0;
  std::vector<uint8_t> bytes_;
};

// All return false when the task is gone.
bool get_registers(pid_t tid, user_regs_struct& registers);
bool set_registers(pid_t tid, const user_regs_struct& registers);
bool get_context(pid_t tid, Context& context);
bool set_context(pid_t tid, Context& context);
// Writes what differs from `there`, which is unknown from then on: the task is going to run.
bool set_context(pid_t tid, Context& context, KnownXstate& there);
bool get_signal_mask(pid_t tid, uint64_t& mask);
bool set_signal_mask(pid_t tid, uint64_t mask);
bool interrupt(pid_t tid);
bool resume(pid_t tid, int signal = 0);  // PTRACE_CONT
bool resume_sysemu(pid_t tid);           // PTRACE_SYSEMU: stops at the next system call, which never runs
bool resume_to_syscall(pid_t tid);       // PTRACE_SYSCALL
bool listen(pid_t tid);                  // stay in a group stop
// Of the task that an event has made, as the tracer sees it; nothing if `tid` died before it could be asked.
std::optional<pid_t> new_task(pid_t tid);

// A duplicate of `from`'s descriptor `number`; throws Failure.
Fd take_descriptor(pid_t from, int number);

// False once the end of `tid` has been reported, although its parent may still have it as a zombie.
bool is_traced(pid_t tid);

// Waits at most `spin_us` for a stop of `tid`, without sleeping. True with `status` if there was one.
bool spin_for_stop(pid_t tid, int& status, uint64_t spin_us);

// Waits for the next stop or the end of `tid`, which an interrupt is about to bring. False if neither will be
// reported: the task is gone, or it leads a group that is ending and comes after all its other threads, whom
// nobody else waits for while we do.
bool wait_stop_or_end(pid_t tid, int& status);

// /proc/PID/task/TID/NAME, for reading; none if the task is gone.
Fd open_task_file(pid_t pid, pid_t tid, const char* name);

// Where a blocked task stands, from /proc/PID/task/TID/syscall (`fd`): its instruction pointer if it is in
// user mode, 0 if it is inside a system call, gone, or still running.
uint64_t user_mode_rip(int fd);

// Processor time it has used, from /proc/PID/task/TID/schedstat (`fd`): exact while it waits, else up to a
// tick old. 0 if it is gone.
uint64_t ran_us(int fd);

// /proc/PID/mem, for reading and writing its memory; throws Failure.
Fd open_process_memory(pid_t pid);

constexpr int kTraceOptions = 0x00000001     // TRACESYSGOOD
                              | 0x0000000e   // TRACEFORK, TRACEVFORK, TRACECLONE
                              | 0x00000010   // TRACEEXEC
                              | 0x00000080   // TRACESECCOMP
                              | 0x00100000;  // EXITKILL

inline int stop_event(int status) { return status >> 16; }
inline bool stops_group(int signal) {
  return signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
}

}  // namespace elastic
