// See tracee.hpp.
#include "tracee.hpp"

#include <elf.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "proc_text.hpp"
#include "util.hpp"

namespace elastic {

namespace {

constexpr size_t kXstateBytesMax = 32 * 1024;
constexpr size_t kLegacyXstateBytes = 576;  // FXSAVE area and XSAVE header: never trimmed
constexpr auto kGetSigmask = static_cast<__ptrace_request>(0x420a);
constexpr auto kSetSigmask = static_cast<__ptrace_request>(0x420b);

bool alive(long result, const char* what) {
  if (result >= 0) return true;
  if (errno == ESRCH) return false;
  fail_errno("ptrace %s", what);
}

}  // namespace

std::vector<uint8_t> Context::encode() const {
  const uint32_t sizes[2] = {xstate_full_bytes, static_cast<uint32_t>(xstate.size())};
  std::vector<uint8_t> out(sizeof registers + sizeof signal_mask + sizeof sizes + xstate.size());
  uint8_t* to = out.data();
  memcpy(to, &registers, sizeof registers);
  memcpy(to += sizeof registers, &signal_mask, sizeof signal_mask);
  memcpy(to += sizeof signal_mask, sizes, sizeof sizes);
  memcpy(to + sizeof sizes, xstate.data(), xstate.size());
  return out;
}

bool Context::decode(std::span<const uint8_t> bytes) {
  uint32_t sizes[2];
  const size_t fixed = sizeof registers + sizeof signal_mask + sizeof sizes;
  if (bytes.size() < fixed) return false;
  const uint8_t* from = bytes.data();
  memcpy(&registers, from, sizeof registers);
  memcpy(&signal_mask, from += sizeof registers, sizeof signal_mask);
  memcpy(sizes, from += sizeof signal_mask, sizeof sizes);
  if (sizes[0] > kXstateBytesMax || sizes[1] > sizes[0] || sizes[1] < kLegacyXstateBytes) return false;
  if (bytes.size() != fixed + sizes[1]) return false;
  xstate_full_bytes = sizes[0];
  xstate.assign(from + sizeof sizes, from + sizeof sizes + sizes[1]);
  return true;
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
  if (!get_registers(tid, context.registers)) return false;
  context.xstate.resize(kXstateBytesMax);
  iovec area{context.xstate.data(), context.xstate.size()};
  if (!alive(ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &area), "GETREGSET")) return false;
  context.xstate_full_bytes = static_cast<uint32_t>(area.iov_len);
  size_t used = area.iov_len & ~size_t{7};
  uint64_t word = 0;
  while (used > kLegacyXstateBytes) {
    memcpy(&word, context.xstate.data() + used - 8, 8);
    if (word != 0) break;
    used -= 8;
  }
  context.xstate.resize(used);
  return get_signal_mask(tid, context.signal_mask);
}

bool set_context(pid_t tid, const Context& context) {
  if (!set_registers(tid, context.registers)) return false;
  std::vector<uint8_t> full(context.xstate_full_bytes);
  memcpy(full.data(), context.xstate.data(), context.xstate.size());
  iovec area{full.data(), full.size()};
  return alive(ptrace(PTRACE_SETREGSET, tid, NT_X86_XSTATE, &area), "SETREGSET");
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
