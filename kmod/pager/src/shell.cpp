// See shell.hpp.
#include "shell.hpp"

#include <asm/prctl.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <vector>

#include "proc_text.hpp"
#include "tracee.hpp"

namespace elastic {

namespace {

constexpr uid_t kNobody = 65534;
// Users that nothing else is: above those of containers, below those that systemd keeps for foreign trees
// (https://systemd.io/UIDS-GIDS). The pager's pid makes it one that no other shell process is, either.
constexpr uid_t kGuestUsers = 2'001'000'000;
constexpr int kNamespaces = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;
constexpr uint64_t kThreadFlags =
    CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;

Fd open_stub() {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  if (length <= 0) fail_errno("readlink /proc/self/exe");
  std::string stub(path, static_cast<size_t>(length));
  stub = stub.substr(0, stub.rfind('/')) + "/shell-stub";
  Fd file(open(stub.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) fail_errno("cannot open %s: run `npm run build`", stub.c_str());
  return file;
}

bool become(uid_t user) { return setresgid(user, user, user) == 0 && setresuid(user, user, user) == 0; }

// `user`: whom it is to be if root makes it. A container may have no such user; nobody is second best,
// because services may run as nobody, too.
[[noreturn]] void become_shell(int stub, int memory_file, int go, uid_t user) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  char byte = 0;
  if (read(go, &byte, 1) != 1) _exit(1);  // the tracer is there
  if (geteuid() == 0) {
    if (setgroups(0, nullptr) != 0 || !(become(user) || become(kNobody))) _exit(2);
  }
  personality(ADDR_NO_RANDOMIZE);
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  // Nothing but the memory file stays open; the stub is executed through its descriptor, closed by exec.
  for (int fd = 0; fd < 4096; fd++)
    if (fd != memory_file && fd != stub) close(fd);
  fcntl(memory_file, F_SETFD, 0);
  char* const nothing[] = {nullptr};
  syscall(SYS_execveat, stub, "", nothing, nothing, AT_EMPTY_PATH);
  _exit(3);
}

pid_t spawn(int flags, int stub, int memory_file, int go) {
  const uid_t user = kGuestUsers + static_cast<uid_t>(getpid());
  const auto pid = static_cast<pid_t>(syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0));
  if (pid == 0) become_shell(stub, memory_file, go, user);
  return pid;
}

// Unmaps all but the trampoline and constants pages.
void unmap_rest(Injector& injector) {
  ProcLines lines(format("/proc/%d/maps", injector.tid()));
  if (!lines) throw Failure("cannot read the shell's mappings");
  std::vector<std::pair<uint64_t, uint64_t>> rest;
  while (const char* line = lines.next()) {
    uint64_t start = 0, end = 0;
    if (sscanf(line, "%lx-%lx", &start, &end) != 2 || end > kUserSpaceEnd) continue;
    if (start < kTrampoline) rest.emplace_back(start, std::min(end, kTrampoline));
    if (end > kTrampoline + kTrampolineBytes)
      rest.emplace_back(std::max(start, kTrampoline + kTrampolineBytes), end);
  }
  for (const auto& [start, end] : rest)
    if (injector.call(SYS_munmap, start, end - start) != 0)
      throw Failure("cannot clear the shell's address space");
}

void wait_for_exec(pid_t pid) {
  int status = 0;
  for (;;) {
    if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status))
      throw Failure(format("the shell process ended during its start (status %#x)", status));
    if (stop_event(status) == PTRACE_EVENT_EXEC) break;
    resume(pid);
  }
  resume_to_syscall(pid);
  if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status))
    throw Failure("the shell process ended during its start");
}

}  // namespace

static void prepare_shell(ShellProcess& shell, Memory& memory, const Fd& go_write);

ShellProcess start_shell(Memory& memory) {
  const Fd stub = open_stub();
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) fail_errno("pipe");
  const Fd go_read(ends[0]), go_write(ends[1]);
  ShellProcess shell;
  const int user = geteuid() == 0 ? 0 : CLONE_NEWUSER;
  shell.pid = spawn(kNamespaces | user, stub.get(), memory.file(), go_read.get());
  if (shell.pid < 0) {
    shell.weakness =
        format("no namespaces for the shell process (%s): guests are kept from system calls all the same",
               strerror(errno));
    shell.pid = spawn(0, stub.get(), memory.file(), go_read.get());
  }
  if (shell.pid < 0) fail_errno("cannot start a shell process");
  try {
    prepare_shell(shell, memory, go_write);
  } catch (const Failure&) {
    kill(shell.pid, SIGKILL);
    int status = 0;
    while (waitpid(shell.pid, &status, __WALL) == shell.pid && WIFSTOPPED(status)) {
    }
    throw;
  }
  return shell;
}

static void prepare_shell(ShellProcess& shell, Memory& memory, const Fd& go_write) {
  if (ptrace(PTRACE_SEIZE, shell.pid, nullptr, static_cast<long>(kTraceOptions)) != 0)
    fail_errno("ptrace is not permitted");
  if (write(go_write.get(), "g", 1) != 1) fail_errno("starting the shell process");
  wait_for_exec(shell.pid);
  user_regs_struct base{};
  if (!get_registers(shell.pid, base)) throw Failure("the shell process ended during its start");
  Injector injector(shell.pid, base);
  // Clocks and CPU identity differ between machines: the instructions that read them raise a signal, which
  // sends the thread home (CPUID only where the processor can fault on it). Threads made later inherit both.
  injector.call(SYS_prctl, PR_SET_TSC, PR_TSC_SIGSEGV);
  injector.call(SYS_arch_prctl, 0x1012 /* ARCH_SET_CPUID */, 0);
  unmap_rest(injector);
  // Root's pager can look at it all the same; other processes of the same user must not.
  if (geteuid() == 0) injector.call(SYS_prctl, PR_SET_DUMPABLE, 0);
  Uffd uffd = Uffd::create(injector, -1, true);
  memory.attach(injector, std::move(uffd), memory.file());
}

pid_t start_guest_thread(Injector& injector, pid_t& own_tid) {
  pid_t tid = 0;
  own_tid = static_cast<pid_t>(injector.clone(kThreadFlags, kTrampoline + 4000, tid));
  if (own_tid <= 0 || tid == 0) return 0;
  int status = 0;
  if (waitpid(tid, &status, __WALL) != tid || !WIFSTOPPED(status)) return 0;
  const uint64_t filter = kTrampoline + kPageBytes;
  if (call_in(tid, kTrampoline, SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, filter) != 0)
    throw Failure("cannot put the guest filter on a shell thread");
  return tid;
}

}  // namespace elastic
