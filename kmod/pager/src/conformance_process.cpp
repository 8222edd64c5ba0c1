// The guest of the conformance mode, seen from the pager: launch, mailboxes, stops.
#include <fcntl.h>
#include <poll.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "conformance.hpp"
#include "launch.hpp"

namespace elastic {

namespace {

constexpr int kThreads = 2;
constexpr uint64_t kStopWaitUs = 20'000'000;  // an emulated machine is slow

struct Pipe {
  Fd read_end, write_end;
};

Pipe make_pipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) fail_errno("pipe");
  return {Fd(ends[0]), Fd(ends[1])};
}

void let_inherit(const Fd& fd) {
  if (fcntl(fd.get(), F_SETFD, 0) != 0) fail_errno("fcntl");
}

}  // namespace

GuestProcess::GuestProcess(Memory& memory, const std::string& program) {
  std::vector<std::string> arguments{"elasticos-pager", "conformance-guest"};
  std::vector<Fd> guest_ends;
  for (int i = 0; i < kThreads; i++) {
    Pipe commands = make_pipe(), replies = make_pipe();
    let_inherit(commands.read_end);
    let_inherit(replies.write_end);
    arguments.push_back(std::to_string(commands.read_end.get()));
    arguments.push_back(std::to_string(replies.write_end.get()));
    guest_ends.push_back(std::move(commands.read_end));
    guest_ends.push_back(std::move(replies.write_end));
    mailboxes_.push_back({std::move(commands.write_end), std::move(replies.read_end)});
  }
  const Launched launched = launch(program, arguments, 0, raise_file_size_limit());
  if (launched.pid == 0) throw Failure(format("cannot run the guest: %s", strerror(launched.exec_error)));
  pid_ = launched.pid;
  attach_memory(pid_, memory);
  resume(pid_);
  const uint64_t until = now_us() + kStopWaitUs;
  for (Mailbox& box : mailboxes_) {
    pollfd ready{box.replies.get(), POLLIN, 0};
    while (poll(&ready, 1, 1) == 0) {
      pump();
      if (gone_ || now_us() > until) throw Failure("the guest did not start");
    }
    uint64_t reply[2];
    if (read(box.replies.get(), reply, sizeof reply) != sizeof reply)
      throw Failure("the guest ended during its start");
    threads_.push_back(static_cast<pid_t>(reply[0]));
  }
}

GuestProcess::~GuestProcess() {
  if (pid_ > 0 && !gone_) kill(pid_, SIGKILL);
}

bool GuestProcess::has(pid_t thread) const {
  return std::count(threads_.begin(), threads_.end(), thread) > 0;
}

void GuestProcess::start(pid_t thread, uint32_t kind, uint64_t address, uint64_t argument) {
  const auto index =
      static_cast<size_t>(std::find(threads_.begin(), threads_.end(), thread) - threads_.begin());
  const uint64_t command[3] = {kind, address, argument};
  if (write(mailboxes_.at(index).commands.get(), command, sizeof command) != sizeof command)
    fail_errno("the guest takes no command");
}

uint32_t GuestProcess::result(pid_t thread, uint64_t& value) {
  const auto index =
      static_cast<size_t>(std::find(threads_.begin(), threads_.end(), thread) - threads_.begin());
  const Fd& replies = mailboxes_.at(index).replies;
  pollfd ready{replies.get(), POLLIN, 0};
  if (poll(&ready, 1, 0) <= 0 || (ready.revents & POLLIN) == 0) return 0;
  uint64_t reply[2];
  if (read(replies.get(), reply, sizeof reply) != sizeof reply) return 0;
  value = reply[1];
  return static_cast<uint32_t>(reply[0]);
}

bool GuestProcess::in_user_mode(pid_t thread) const {
  const Fd file(open(format("/proc/%d/task/%d/syscall", pid_, thread).c_str(), O_RDONLY | O_CLOEXEC));
  return file && user_mode_rip(file.get()) != 0;
}

bool GuestProcess::park(pid_t thread, Context& context) {
  if (!interrupt(thread)) return false;
  int status = 0;
  if (!spin_for_stop(thread, status, kStopWaitUs)) return false;
  if (!WIFSTOPPED(status) || stop_event(status) != PTRACE_EVENT_STOP) {
    handle_stop(thread, status);
    return false;
  }
  return get_context(thread, context);
}

void GuestProcess::pump() {
  int status = 0;
  for (;;) {
    const pid_t tid = waitpid(-1, &status, __WALL | WNOHANG);
    if (tid <= 0) return;
    handle_stop(tid, status);
  }
}

void GuestProcess::handle_stop(pid_t tid, int status) {
  if (!WIFSTOPPED(status)) {
    if (tid == pid_) gone_ = true;
    return;
  }
  // Events (clone, seccomp, a new thread's first stop) go on as they are: the guest's own memory is not
  // elastic, so its calls are executed unchanged. Signals are delivered.
  resume(tid, stop_event(status) != 0 || WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status));
}

}  // namespace elastic
