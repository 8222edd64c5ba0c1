// See seccomp_filter.hpp.
#include "seccomp_filter.hpp"

#include <asm/socket.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <utility>

#include "injector.hpp"

namespace elastic {

namespace {

constexpr uint32_t kX32Bit = 0x40000000;
constexpr int kFutexLockPi2 = 13;

// Calls that change mappings or tell what is mapped, make or end tasks, name words the kernel writes at a
// thread's end, or have buffers written when they have returned.
constexpr int kTraced[] = {
    SYS_mmap,
    SYS_munmap,
    SYS_brk,
    SYS_mprotect,
    SYS_mremap,
    SYS_madvise,
    SYS_exit,
    SYS_exit_group,
    SYS_fork,
    SYS_clone,
    SYS_set_tid_address,
    SYS_shmat,
    SYS_shmdt,
    SYS_mlock,
    SYS_mlock2,
    SYS_mlockall,
    SYS_munlock,
    SYS_munlockall,
    SYS_pkey_mprotect,
    SYS_remap_file_pages,
    SYS_mincore,
    SYS_msync,
    SYS_mbind,
    SYS_move_pages,
    SYS_get_mempolicy,
    462,  // mseal
    SYS_io_setup,
    SYS_io_submit,
    SYS_io_destroy,
};

// Answered ENOSYS, as on a kernel without them: programs have a way without. rseq would have the kernel write
// user memory at every preemption; clone3 hides its flags in memory (glibc falls back to clone); openat2
// hides its flags in memory.
constexpr int kMissing[] = {SYS_rseq, SYS_clone3, SYS_openat2, SYS_pkey_alloc, 453 /* map_shadow_stack */};

// Refused by the pager, which says so: io_uring and vmsplice pin pages without any call at which that would
// show; process_madvise and userfaultfd would work on mappings behind our back.
constexpr int kRefused[] = {SYS_io_uring_setup, SYS_vmsplice, SYS_process_madvise, SYS_userfaultfd};

// Futex operations whose kernel accesses cannot wait for a page.
constexpr int kFutexTraced[] = {FUTEX_WAKE_OP,    FUTEX_LOCK_PI,         FUTEX_UNLOCK_PI,
                                FUTEX_TRYLOCK_PI, FUTEX_WAIT_REQUEUE_PI, FUTEX_CMP_REQUEUE_PI,
                                kFutexLockPi2};

class Program {
 public:
  void add(uint16_t code, uint32_t k, uint8_t yes = 0, uint8_t no = 0) {
    steps_[count_++] = {code, yes, no, k};
  }
  void load(size_t offset) { add(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)); }
  void answer(uint32_t action) { add(BPF_RET | BPF_K, action); }
  // If the accumulator equals k: the next `skip_if_not` instructions run, else they are skipped.
  void unless_equal_skip(uint32_t k, uint8_t skip_if_not) {
    add(BPF_JMP | BPF_JEQ | BPF_K, k, 0, skip_if_not);
  }
  void if_equal(uint32_t k, uint32_t action) {
    unless_equal_skip(k, 1);
    answer(action);
  }
  sock_fprog finish() { return {static_cast<unsigned short>(count_), steps_}; }

 private:
  sock_filter steps_[256];
  size_t count_ = 0;
};

constexpr uint32_t error(int number) { return SECCOMP_RET_ERRNO | static_cast<uint32_t>(number); }
constexpr size_t argument(int index) { return offsetof(seccomp_data, args) + static_cast<size_t>(index) * 8; }
constexpr size_t kNumber = offsetof(seccomp_data, nr);

// Injected calls come from the trampoline page and are not stopped.
void allow_injected(Program& p) {
  p.load(offsetof(seccomp_data, instruction_pointer) + 4);
  p.unless_equal_skip(static_cast<uint32_t>(kTrampoline >> 32), 4);
  p.load(offsetof(seccomp_data, instruction_pointer));
  p.add(BPF_JMP | BPF_JGE | BPF_K, static_cast<uint32_t>(kTrampoline), 0, 2);
  p.add(BPF_JMP | BPF_JGT | BPF_K, static_cast<uint32_t>(kTrampoline + kPageBytes), 1, 0);
  p.answer(SECCOMP_RET_ALLOW);
}

// All that the stack may grow to is mapped at once, so the pager must hear of its limit.
void trace_stack_limit(Program& p) {
  for (const auto& [call, index] : {std::pair{SYS_setrlimit, 0}, std::pair{SYS_prlimit64, 1}}) {
    p.unless_equal_skip(static_cast<uint32_t>(call), 4);
    p.load(argument(index));
    p.if_equal(RLIMIT_STACK, SECCOMP_RET_TRACE);
    p.answer(SECCOMP_RET_ALLOW);
  }
}

// A second tracer is refused by the kernel: what matters is that somebody asked.
void trace_tracers(Program& p) {
  constexpr int kRequests[] = {PTRACE_TRACEME, PTRACE_ATTACH, PTRACE_SEIZE};
  p.unless_equal_skip(SYS_ptrace, 1 + 2 * std::size(kRequests) + 1);
  p.load(argument(0));
  for (const int request : kRequests) p.if_equal(static_cast<uint32_t>(request), SECCOMP_RET_TRACE);
  p.answer(SECCOMP_RET_ALLOW);
}

// An open for reading may be one of /proc/self/maps; where the path is, is out of the filter's sight.
void trace_opens(Program& p) {
  constexpr int kNotMaps = O_ACCMODE | O_CREAT | O_DIRECTORY | O_PATH | O_DIRECT;
  for (const auto& [call, index] : {std::pair{SYS_open, 1}, std::pair{SYS_openat, 2}}) {
    p.unless_equal_skip(static_cast<uint32_t>(call), 4);
    p.load(argument(index));
    p.add(BPF_JMP | BPF_JSET | BPF_K, kNotMaps, 1, 0);
    p.answer(SECCOMP_RET_TRACE);
    p.load(kNumber);
  }
}

// Reads go into pinned pages from the first descriptor with O_DIRECT on: flags of `open` (argument 1),
// `openat` and `open_by_handle_at` (argument 2), fcntl(F_SETFL).
void trace_direct(Program& p) {
  for (const auto& [call, index] :
       {std::pair{SYS_open, 1}, std::pair{SYS_openat, 2}, std::pair{SYS_open_by_handle_at, 2}}) {
    p.unless_equal_skip(static_cast<uint32_t>(call), 4);
    p.load(argument(index));
    p.add(BPF_JMP | BPF_JSET | BPF_K, O_DIRECT, 0, 1);
    p.answer(SECCOMP_RET_TRACE);
    p.answer(SECCOMP_RET_ALLOW);
  }
  p.unless_equal_skip(SYS_fcntl, 6);
  p.load(argument(1));
  p.unless_equal_skip(F_SETFL, 3);
  p.load(argument(2));
  p.add(BPF_JMP | BPF_JSET | BPF_K, O_DIRECT, 0, 1);
  p.answer(SECCOMP_RET_TRACE);
  p.answer(SECCOMP_RET_ALLOW);
}

// Sends without a copy pin pages: the pager refuses them.
void trace_zero_copy(Program& p) {
  p.unless_equal_skip(SYS_setsockopt, 6);
  p.load(argument(1));
  p.unless_equal_skip(SOL_SOCKET, 3);
  p.load(argument(2));
  p.unless_equal_skip(SO_ZEROCOPY, 1);
  p.answer(SECCOMP_RET_TRACE);
  p.answer(SECCOMP_RET_ALLOW);
}

}  // namespace

bool install_application_filter() {
  Program p;
  p.load(offsetof(seccomp_data, arch));
  p.add(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
  p.answer(error(ENOSYS));  // int 0x80
  allow_injected(p);
  p.load(kNumber);
  p.add(BPF_JMP | BPF_JGE | BPF_K, kX32Bit, 0, 1);
  p.answer(error(ENOSYS));
  // Frequent calls leave early.
  for (const int call : {SYS_read, SYS_write}) p.if_equal(static_cast<uint32_t>(call), SECCOMP_RET_ALLOW);
  p.unless_equal_skip(SYS_futex, 4 + 2 * std::size(kFutexTraced) - 1);
  p.load(argument(1));
  p.add(BPF_ALU | BPF_AND | BPF_K, FUTEX_CMD_MASK);
  for (const int operation : kFutexTraced) p.if_equal(static_cast<uint32_t>(operation), SECCOMP_RET_TRACE);
  p.answer(SECCOMP_RET_ALLOW);
  for (const int call : kTraced) p.if_equal(static_cast<uint32_t>(call), SECCOMP_RET_TRACE);
  for (const int call : kRefused) p.if_equal(static_cast<uint32_t>(call), SECCOMP_RET_TRACE);
  for (const int call : kMissing) p.if_equal(static_cast<uint32_t>(call), error(ENOSYS));
  trace_stack_limit(p);
  trace_tracers(p);
  trace_opens(p);
  trace_direct(p);
  trace_zero_copy(p);
  p.answer(SECCOMP_RET_ALLOW);
  const sock_fprog program = p.finish();
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return false;
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

std::vector<sock_filter> read_filter() {
  Program p;
  allow_injected(p);
  p.load(kNumber);
  for (const int call : {SYS_read, SYS_pread64, SYS_readv, SYS_preadv, SYS_preadv2})
    p.if_equal(static_cast<uint32_t>(call), SECCOMP_RET_TRACE);
  p.answer(SECCOMP_RET_ALLOW);
  const sock_fprog program = p.finish();
  return {program.filter, program.filter + program.len};
}

}  // namespace elastic
