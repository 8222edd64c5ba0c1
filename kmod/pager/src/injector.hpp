// Makes a stopped task of the traced address space execute single system calls on the pager's behalf, from
// the trampoline page (`syscall; int3`). Arguments are registers only: nothing a call does reads memory that
// the application can write.
//
// Why a task of its own (clone(CLONE_VM|CLONE_PARENT) at home, the shell's main thread elsewhere):
// application threads are never interrupted for memory work, and descriptors the calls need are not visible
// to them.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <cstdint>

#include "util.hpp"

namespace elastic {

// 1 MB: above every usual vm.mmap_min_addr and below where programs are linked. What lies higher up, up to
// the mmap area, is taken by the shadow memory of sanitizers.
constexpr uint64_t kTrampoline = 0x100000;
constexpr uint64_t kTrampolineCallBytes = 3;  // `syscall; int3`
constexpr uint64_t kTrampolineBytes = 8192;   // code page, then (shell only) a page of constants

class Injector {
 public:
  Injector() = default;
  Injector(pid_t tid, const user_regs_struct& base) : tid_(tid), base_(base) {}
  // A stopped task that is not ours: its registers are as before after each call, its signals stay pending.
  static Injector borrow(pid_t tid);
  pid_t tid() const { return tid_; }
  explicit operator bool() const { return tid_ > 0; }

  // Result of the call, or -errno. -ESRCH if the task is gone. Takes 6-20 µs.
  int64_t call(long number, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0, uint64_t d = 0, uint64_t e = 0,
               uint64_t f = 0);
  // A clone call; on success the new task's tid as the tracer sees it in `child`, its own view as the result.
  int64_t clone(uint64_t flags, uint64_t stack, pid_t& child);

 private:
  int64_t run(const user_regs_struct& registers, pid_t* child);
  pid_t tid_ = 0;
  user_regs_struct base_{};
  bool borrowed_ = false;
};

// Executes one call in any stopped task by way of its own registers, which are restored afterwards. Signals
// are blocked meanwhile, and stay pending; a task that such a call makes begins with them blocked. Used
// before an injector exists, on new guest threads, and in the child of a fork. `ip`: address of a `syscall;
// int3`.
int64_t call_in(pid_t tid, uint64_t ip, long number, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0,
                uint64_t d = 0, uint64_t e = 0, uint64_t f = 0, pid_t* child = nullptr);

// /proc/PID/NAME of a stopped task that has a trampoline. A process that is not dumpable is closed to a
// tracer without privilege, but makes system calls for it: `injector`, or the task itself without one, makes
// it dumpable for as long as the open takes. errno as open's: ENOENT or ESRCH if the task is gone.
Fd open_of_task(pid_t pid, const char* name, int flags, Injector* injector = nullptr);

}  // namespace elastic
