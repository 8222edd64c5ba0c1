// See launch.hpp.
#include "launch.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <span>

#include "seccomp_filter.hpp"
#include "tracee.hpp"

namespace elastic {

namespace {

constexpr long kSyscallInt3 = 0xcc050f;                  // `syscall; int3`, little-endian
constexpr uint64_t kInjectorStack = kTrampoline + 4000;  // never used: the injector only makes calls

// What the kernel reads and writes while descriptors are handed over. The page is there only before the
// program's first instruction: nobody else can write it.
constexpr uint64_t kExchangeAt = kTrampoline + kPageBytes;
struct Exchange {
  msghdr message;
  iovec part;
  int sockets[2];
  uint64_t byte;
  alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))];
};
static_assert(sizeof(Exchange) % sizeof(long) == 0);

void poke(pid_t pid, const Exchange& exchange) {
  for (size_t at = 0; at < sizeof exchange; at += sizeof(long)) {
    long word = 0;
    memcpy(&word, reinterpret_cast<const char*>(&exchange) + at, sizeof word);
    if (ptrace(PTRACE_POKEDATA, pid, kExchangeAt + at, word) != 0) fail_errno("handing descriptors over");
  }
}

void peek(pid_t pid, Exchange& exchange) {
  for (size_t at = 0; at < sizeof exchange; at += sizeof(long)) {
    errno = 0;
    const long word = ptrace(PTRACE_PEEKDATA, pid, kExchangeAt + at, nullptr);
    if (errno != 0) fail_errno("handing descriptors over");
    memcpy(reinterpret_cast<char*>(&exchange) + at, &word, sizeof word);
  }
}

void send_descriptors(int socket, std::span<const int> fds) {
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) char space[CMSG_SPACE(2 * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = space;
  message.msg_controllen = CMSG_SPACE(fds.size_bytes());
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(fds.size_bytes());
  memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  if (sendmsg(socket, &message, MSG_NOSIGNAL) < 0) fail_errno("handing descriptors over");
}

int64_t succeed(int64_t result) {
  if (result >= 0 || result < -4095) return result;
  errno = static_cast<int>(-result);
  fail_errno("handing descriptors to the application's process");
}

// Gives the injector `fds`, one or two, in its own descriptor table; their numbers there. Through a socket
// and not by a path: a program that has given up rights, or has another root, could not open any.
std::vector<int> hand_over(Injector& injector, pid_t pid, std::span<const int> fds) {
  succeed(injector.call(SYS_mmap, kExchangeAt, kPageBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, ~0ull, 0));
  Exchange exchange{};
  succeed(injector.call(SYS_socketpair, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0,
                        kExchangeAt + offsetof(Exchange, sockets)));
  peek(pid, exchange);
  const Fd ours = take_descriptor(injector.tid(), exchange.sockets[0]);
  send_descriptors(ours.get(), fds);
  exchange.part = {reinterpret_cast<void*>(kExchangeAt + offsetof(Exchange, byte)), 1};
  exchange.message.msg_iov = reinterpret_cast<iovec*>(kExchangeAt + offsetof(Exchange, part));
  exchange.message.msg_iovlen = 1;
  exchange.message.msg_control = reinterpret_cast<void*>(kExchangeAt + offsetof(Exchange, control));
  exchange.message.msg_controllen = sizeof exchange.control;
  poke(pid, exchange);
  succeed(injector.call(SYS_recvmsg, static_cast<uint64_t>(exchange.sockets[1]), kExchangeAt,
                        MSG_CMSG_CLOEXEC | MSG_DONTWAIT));
  peek(pid, exchange);
  const auto* header = reinterpret_cast<const cmsghdr*>(exchange.control);
  if (exchange.message.msg_controllen < CMSG_LEN(fds.size_bytes()) ||
      header->cmsg_len != CMSG_LEN(fds.size_bytes()))
    throw Failure("the application's process has no room for the pager's descriptors: raise `ulimit -n`");
  std::vector<int> numbers(fds.size());
  memcpy(numbers.data(), CMSG_DATA(header), fds.size_bytes());
  for (const int socket : exchange.sockets) injector.call(SYS_close, static_cast<uint64_t>(socket));
  injector.call(SYS_munmap, kExchangeAt, kPageBytes);
  return numbers;
}

[[noreturn]] void run_child(const std::string& path, const std::vector<char*>& argv, SignalSet ignored,
                            const rlimit& file_sizes, int report) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  restore_signals(ignored);
  setrlimit(RLIMIT_FSIZE, &file_sizes);
  personality(static_cast<unsigned long>(personality(0xffffffff)) | ADDR_NO_RANDOMIZE);
  raise(SIGSTOP);  // the tracer seizes us here
  int error = 0;
  if (!install_application_filter()) {
    error = -errno;
  } else {
    execv(path.c_str(), argv.data());
    error = errno;
    if (error == ENOEXEC) {  // a script without #!: as execvp does
      std::vector<char*> shell{const_cast<char*>("sh"), const_cast<char*>(path.c_str())};
      for (size_t i = 1; i < argv.size(); i++) shell.push_back(argv[i]);
      execv("/bin/sh", shell.data());
    }
  }
  if (write(report, &error, sizeof error) < 0) _exit(125);
  _exit(126);
}

void wait_for_stop(pid_t pid, int& status, const char* what) {
  if (waitpid(pid, &status, __WALL) != pid) fail_errno("waiting for %s", what);
}

}  // namespace

Launched launch(const std::string& path, const std::vector<std::string>& arguments, SignalSet ignored,
                const rlimit& file_sizes) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) fail_errno("pipe");
  Fd read_end(ends[0]), write_end(ends[1]);
  const pid_t pid = fork();
  if (pid < 0) fail_errno("fork");
  if (pid == 0) run_child(path, argv, ignored, file_sizes, write_end.get());
  write_end.reset();
  int status = 0;
  if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status))
    throw Failure("the application's process ended before its start");
  if (ptrace(PTRACE_SEIZE, pid, nullptr, static_cast<long>(kTraceOptions)) != 0) {
    const int error = errno;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    throw Failure(
        format("ptrace is not permitted (%s): run `sudo sysctl kernel.yama.ptrace_scope=1`, or allow ptrace "
               "in this container",
               strerror(error)));
  }
  kill(pid, SIGCONT);
  Launched launched{pid, 0};
  for (;;) {
    wait_for_stop(pid, status, "the application's start");
    if (!WIFSTOPPED(status)) {
      if (read(read_end.get(), &launched.exec_error, sizeof launched.exec_error) <= 0)
        throw Failure("the application's process ended before its start");
      if (launched.exec_error < 0)
        throw Failure(format("cannot install the seccomp filter: %s", strerror(-launched.exec_error)));
      launched.pid = 0;
      return launched;
    }
    if (stop_event(status) == PTRACE_EVENT_EXEC) return launched;
    resume(pid);
  }
}

void attach_memory(pid_t pid, Memory& memory) {
  int status = 0;
  // The exec event is inside execve, whose return clobbers rax: step over it.
  if (!resume_to_syscall(pid)) throw Failure("the application ended during its start");
  wait_for_stop(pid, status, "the end of execve");
  if (!WIFSTOPPED(status) || WSTOPSIG(status) != (SIGTRAP | 0x80))
    throw Failure("the application ended during its start");
  user_regs_struct entry{};
  get_registers(pid, entry);
  // The first call is made from the program's entry point, which is put right again at once.
  const long original = ptrace(PTRACE_PEEKTEXT, pid, entry.rip, nullptr);
  ptrace(PTRACE_POKETEXT, pid, entry.rip, (original & ~0xffffffl) | kSyscallInt3);
  const int64_t at = call_in(pid, entry.rip, SYS_mmap, kTrampoline, kPageBytes, PROT_READ | PROT_EXEC,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, ~0ull, 0);
  ptrace(PTRACE_POKETEXT, pid, entry.rip, original);
  if (static_cast<uint64_t>(at) != kTrampoline)
    throw Failure(format(
        "cannot map the trampoline page at %#lx, which the program or vm.mmap_min_addr takes", kTrampoline));
  ptrace(PTRACE_POKETEXT, pid, kTrampoline, kSyscallInt3);
  pid_t injector = 0;
  const int64_t made =
      call_in(pid, kTrampoline, SYS_clone, CLONE_VM | CLONE_PARENT, kInjectorStack, 0, 0, 0, 0, &injector);
  if (made < 0 || injector == 0)
    throw Failure(format("cannot make the injector: %s", strerror(static_cast<int>(-made))));
  wait_for_stop(injector, status, "the injector");
  user_regs_struct base{};
  if (!WIFSTOPPED(status) || !get_registers(injector, base))
    throw Failure("the injector ended during its start");
  entry.orig_rax = ~0ull;
  set_registers(pid, entry);
  Injector task(injector, base);
  // What the program closes is to be closed: whoever reads the other end of a pipe waits for that.
  task.call(SYS_close_range, 0, ~0u, 0);
  const Fd device(open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  std::vector<int> handed{memory.file()};
  if (device) handed.push_back(device.get());
  handed = hand_over(task, pid, handed);
  Uffd uffd = Uffd::create(task, device ? handed[1] : -1, false);
  if (device) task.call(SYS_close, static_cast<uint64_t>(handed[1]));
  memory.attach(task, std::move(uffd), handed[0]);
}

Uffd child_userfaultfd(pid_t child) {
  Injector task = Injector::borrow(child);
  // A tracer without privilege cannot take descriptors of a process that is not dumpable.
  const bool closed = task.call(SYS_prctl, PR_GET_DUMPABLE) != 1;
  if (closed) task.call(SYS_prctl, PR_SET_DUMPABLE, 1);
  const Fd device(open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  int number = -1;
  if (device) {
    const int handed[] = {device.get()};
    number = hand_over(task, child, handed).front();
  }
  Uffd uffd = Uffd::create(task, number, false);
  if (device) task.call(SYS_close, static_cast<uint64_t>(number));
  if (closed) task.call(SYS_prctl, PR_SET_DUMPABLE, 0);
  return uffd;
}

}  // namespace elastic
