// See tracee.hpp.
#include "tracee.hpp"

#include <cpuid.h>
#include <elf.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "proc_text.hpp"
#include "util.hpp"

namespace elastic {

namespace {

// Intel SDM volume 1, 13.4: the legacy area, then the header, whose first word says which components are in
// use (those that are not are zeros, or what they are at a start).
constexpr size_t kLegacyBytes = 512;
constexpr size_t kExtendedAt = 576;
constexpr uint64_t kLegacyComponents = 3;
constexpr uint64_t kTileComponents = 3u << 17;
constexpr unsigned kStateLeaf = 0xd, kTilesSubleaf = 17;
constexpr size_t kLineBytes = 64;
constexpr auto kGetSigmask = static_cast<__ptrace_request>(0x420a);
constexpr auto kSetSigmask = static_cast<__ptrace_request>(0x420b);

bool alive(long result, const char* what) {
  if (result >= 0) return true;
  if (errno == ESRCH) return false;
  fail_errno("ptrace %s", what);
}

struct ContextHead {
  user_regs_struct registers;
  uint64_t xstate_full_bytes;
  uint64_t lines[kXstateBytesMax / kLineBytes / 64];
};
static_assert(sizeof(ContextHead) == kContextHeadBytes);

bool is_zero_line(const uint8_t* line) {
  uint64_t words[kLineBytes / 8], all = 0;
  memcpy(words, line, sizeof words);
  for (const uint64_t word : words) all |= word;
  return all == 0;
}

uint64_t components_in_use(const uint8_t* xstate) {
  uint64_t bits;
  memcpy(&bits, xstate + kLegacyBytes, sizeof bits);
  return bits;
}

// Where the tiles of AMX begin, which are 8 of the 11 KB of a processor that has them and come last.
size_t bytes_before_tiles() {
  unsigned bytes = 0, at = 0, c = 0, d = 0;
  const bool known = __get_cpuid_count(kStateLeaf, kTilesSubleaf, &bytes, &at, &c, &d) != 0;
  return known && bytes > 0 && at >= kExtendedAt && at % kLineBytes == 0 ? at : kXstateBytesMax;
}

// The first `bytes` of it, or as many as there are.
bool get_xstate(pid_t tid, uint8_t* out, size_t& bytes) {
  iovec area{out, bytes};
  if (!alive(ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &area), "GETREGSET")) return false;
  bytes = area.iov_len;
  return true;
}

bool set_xstate(pid_t tid, Context& context) {
  uint8_t* all = context.xstate.data();
  if (context.xstate_bytes < context.xstate_full_bytes)
    memset(all + context.xstate_bytes, 0, context.xstate_full_bytes - context.xstate_bytes);
  iovec area{all, context.xstate_full_bytes};
  return alive(ptrace(PTRACE_SETREGSET, tid, NT_X86_XSTATE, &area), "SETREGSET");
}

}  // namespace

size_t Context::encode(uint8_t* out) const {
  ContextHead head{registers, xstate_full_bytes, {}};
  uint8_t* to = out + sizeof head;
  for (size_t line = 0; line * kLineBytes < xstate_bytes; line++) {
    const uint8_t* from = xstate.data() + line * kLineBytes;
    if (is_zero_line(from)) continue;
    head.lines[line / 64] |= uint64_t{1} << line % 64;
    memcpy(to, from, kLineBytes);
    to += kLineBytes;
  }
  memcpy(out, &head, sizeof head);
  return static_cast<size_t>(to - out);
}

bool Context::decode(std::span<const uint8_t> bytes) {
  ContextHead head;
  if (bytes.size() < sizeof head) return false;
  memcpy(&head, bytes.data(), sizeof head);
  if (head.xstate_full_bytes > kXstateBytesMax || head.xstate_full_bytes < kExtendedAt) return false;
  size_t lines = 0, end = 0;
  for (size_t i = 0; i < std::size(head.lines); i++) {
    if (head.lines[i] == 0) continue;
    lines += static_cast<size_t>(std::popcount(head.lines[i]));
    end = (64 * i + static_cast<size_t>(std::bit_width(head.lines[i]))) * kLineBytes;
  }
  if (bytes.size() != sizeof head + lines * kLineBytes || end >= head.xstate_full_bytes + kLineBytes)
    return false;
  registers = head.registers;
  xstate_full_bytes = static_cast<uint32_t>(head.xstate_full_bytes);
  xstate_bytes = static_cast<uint32_t>(end);
  memset(xstate.data(), 0, std::max(end, kExtendedAt));
  const uint8_t* from = bytes.data() + sizeof head;
  for (size_t line = 0; line * kLineBytes < end; line++) {
    if ((head.lines[line / 64] >> line % 64 & 1) == 0) continue;
    if (is_zero_line(from)) return false;
    memcpy(xstate.data() + line * kLineBytes, from, kLineBytes);
    from += kLineBytes;
  }
  return true;
}

bool Context::can_leave() const {
  constexpr uint64_t kUserCode = 0x33, kUserData = 0x2b;
  const auto flat = [](uint64_t selector) { return selector == 0 || selector == kUserData; };
  const user_regs_struct& r = registers;
  return r.cs == kUserCode && r.ss == kUserData && flat(r.ds) && flat(r.es) && r.fs == 0 && r.gs == 0 &&
         r.fs_base < kUserSpaceEnd && r.gs_base < kUserSpaceEnd &&
         (xstate_bytes <= kLegacyBytes || (components_in_use(xstate.data()) & kTileComponents) == 0);
}

bool KnownXstate::is(const Context& context) const {
  return has_size_of(context) && memcmp(bytes_.data(), context.xstate.data(), bytes_.size()) == 0;
}

bool KnownXstate::differs_only_in_legacy_area(const Context& context) const {
  if (!has_size_of(context) || bytes_.size() < kExtendedAt) return false;
  const uint64_t changed = components_in_use(bytes_.data()) ^ components_in_use(context.xstate.data());
  constexpr size_t kRestAt = kLegacyBytes + sizeof changed;
  return (changed & ~kLegacyComponents) == 0 &&
         memcmp(bytes_.data() + kRestAt, context.xstate.data() + kRestAt, bytes_.size() - kRestAt) == 0;
}

bool get_registers(pid_t tid, user_regs_struct& registers) {
  return alive(ptrace(PTRACE_GETREGS, tid, nullptr, &registers), "GETREGS");
}

bool set_registers(pid_t tid, const user_regs_struct& registers) {
  return alive(ptrace(PTRACE_SETREGS, tid, nullptr, const_cast<user_regs_struct*>(&registers)), "SETREGS");
}

bool get_signal_mask(pid_t tid, uint64_t& mask) {
  return alive(ptrace(kGetSigmask, tid, sizeof mask, &mask), "GETSIGMASK");
}

bool set_signal_mask(pid_t tid, uint64_t mask) {
  return alive(ptrace(kSetSigmask, tid, sizeof mask, &mask), "SETSIGMASK");
}

bool get_context(pid_t tid, Context& context) {
  static const size_t kCommonBytes = bytes_before_tiles();
  static uint32_t full_bytes = 0;  // not known before the first
  if (!get_registers(tid, context.registers)) return false;
  uint8_t* xstate = context.xstate.data();
  size_t bytes = full_bytes == 0 ? kXstateBytesMax : kCommonBytes;
  if (!get_xstate(tid, xstate, bytes)) return false;
  if (full_bytes == 0) full_bytes = static_cast<uint32_t>(bytes);
  if (bytes < full_bytes && (components_in_use(xstate) & kTileComponents) != 0) {
    bytes = full_bytes;
    if (!get_xstate(tid, xstate, bytes)) return false;
  }
  memset(xstate + bytes, 0, -bytes % kLineBytes);
  bytes += -bytes % kLineBytes;
  while (bytes > 0 && is_zero_line(xstate + bytes - kLineBytes)) bytes -= kLineBytes;
  context.xstate_full_bytes = full_bytes;
  context.xstate_bytes = static_cast<uint32_t>(bytes);
  return true;
}

bool set_context(pid_t tid, Context& context) {
  return set_registers(tid, context.registers) && set_xstate(tid, context);
}

bool set_context(pid_t tid, Context& context, KnownXstate& there) {
  const bool same = there.is(context), only_legacy = there.differs_only_in_legacy_area(context);
  there.forget();
  if (!set_registers(tid, context.registers)) return false;
  if (same) return true;
  if (!only_legacy) return set_xstate(tid, context);
  return alive(ptrace(PTRACE_SETFPREGS, tid, nullptr, context.xstate.data()), "SETFPREGS");
}

bool interrupt(pid_t tid) { return alive(ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr), "INTERRUPT"); }

bool resume(pid_t tid, int signal) {
  return alive(ptrace(PTRACE_CONT, tid, nullptr, static_cast<long>(signal)), "CONT");
}

bool resume_sysemu(pid_t tid) { return alive(ptrace(PTRACE_SYSEMU, tid, nullptr, nullptr), "SYSEMU"); }

bool resume_to_syscall(pid_t tid) { return alive(ptrace(PTRACE_SYSCALL, tid, nullptr, nullptr), "SYSCALL"); }

bool listen(pid_t tid) { return alive(ptrace(PTRACE_LISTEN, tid, nullptr, nullptr), "LISTEN"); }

std::optional<pid_t> new_task(pid_t tid) {
  unsigned long message = 0;
  if (!alive(ptrace(PTRACE_GETEVENTMSG, tid, nullptr, &message), "GETEVENTMSG") || message == 0)
    return std::nullopt;
  return static_cast<pid_t>(message);
}

Fd take_descriptor(pid_t from, int number) {
  const Fd process(static_cast<int>(syscall(SYS_pidfd_open, from, 0)));
  if (!process) fail_errno("pidfd_open");
  Fd taken(static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), number, 0)));
  if (!taken) fail_errno("pidfd_getfd");
  return taken;
}

bool is_traced(pid_t tid) {
  siginfo_t info{};
  return waitid(P_PID, static_cast<id_t>(tid), &info, WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL) == 0;
}

bool spin_for_stop(pid_t tid, int& status, uint64_t spin_us) {
  const uint64_t until = now_us() + spin_us;
  do {
    const pid_t got = waitpid(tid, &status, __WALL | WNOHANG);
    if (got == tid) return true;
    if (got < 0 && errno != EINTR) return false;
  } while (now_us() < until);
  return false;
}

bool wait_stop_or_end(pid_t tid, int& status) {
  constexpr int kQuickTries = 2000;
  for (int tries = 0;; tries++) {
    const pid_t got = waitpid(tid, &status, __WALL | WNOHANG);
    if (got == tid) return true;
    if (got < 0 && errno != EINTR) return false;
    if (tries < kQuickTries) continue;
    usleep(200);
    const char state = stat_of(tid).state;
    if (state == 0 || state == 'Z' || state == 'X') return false;
  }
}

Fd open_process_memory(pid_t pid) {
  Fd memory(open(format("/proc/%d/mem", pid).c_str(), O_RDWR | O_CLOEXEC));
  if (!memory) fail_errno("cannot open the memory of process %d", pid);
  return memory;
}

Fd open_task_file(pid_t pid, pid_t tid, const char* name) {
  return Fd(open(format("/proc/%d/task/%d/%s", pid, tid, name).c_str(), O_RDONLY | O_CLOEXEC));
}

uint64_t user_mode_rip(int fd) {
  char text[96];
  for (int attempt = 0; attempt < 50; attempt++) {
    const ssize_t length = pread(fd, text, sizeof text - 1, 0);
    if (length < 2) return 0;
    text[length] = 0;
    if (text[0] == 'r') {  // "running": still on its way to sleep
      sched_yield();
      continue;
    }
    uint64_t stack = 0, rip = 0;
    if (text[0] != '-' || sscanf(text, "-1 %lx %lx", &stack, &rip) != 2) return 0;
    return rip;
  }
  return 0;
}

uint64_t ran_us(int fd) {
  char text[96];
  const ssize_t length = pread(fd, text, sizeof text - 1, 0);
  if (length <= 0) return 0;
  text[length] = 0;
  return strtoull(text, nullptr, 10) / 1000;
}

}  // namespace elastic
