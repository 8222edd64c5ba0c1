// See holder.hpp.
#include "holder.hpp"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <csignal>
#include <vector>

#include "privileges.hpp"

namespace elastic {

namespace {

constexpr size_t kKeptMax = 1024;  // one for each exec of a run; the oldest are gone by then

struct Kept {
  Fd uffd;
  Fd process;
};

bool receive(int socket, std::vector<Kept>& kept) {
  int fds[2] = {-1, -1};
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) char space[CMSG_SPACE(sizeof fds)] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = space;
  message.msg_controllen = sizeof space;
  const ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (got < 0 && errno == EINTR) return true;
  if (got <= 0) return false;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof fds))
    return true;
  memcpy(fds, CMSG_DATA(header), sizeof fds);
  kept.push_back({Fd(fds[0]), Fd(fds[1])});
  if (kept.size() > kKeptMax) kept.erase(kept.begin());
  return true;
}

[[noreturn]] void hold(int socket) {
  // A group of its own: the terminal's signals are the application's affair.
  setsid();
  prctl(PR_SET_NAME, "elasticos-hold");
  keep_privileges(0);
  const long limit = sysconf(_SC_OPEN_MAX);
  for (int fd = 0; fd < (limit > 0 && limit < 4096 ? limit : 4096); fd++)
    if (fd != socket) close(fd);
  std::vector<Kept> kept;
  bool open = true;
  while (open || !kept.empty()) {
    std::vector<pollfd> waiting;
    for (const Kept& k : kept) waiting.push_back({k.process.get(), POLLIN, 0});
    if (open) waiting.push_back({socket, POLLIN, 0});
    if (poll(waiting.data(), waiting.size(), -1) < 0) continue;
    for (size_t i = kept.size(); i-- > 0;)
      if (waiting[i].revents != 0) kept.erase(kept.begin() + static_cast<ptrdiff_t>(i));
    if (open && waiting.back().revents != 0) open = receive(socket, kept);
  }
  _exit(0);
}

}  // namespace

Holder::Holder() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) fail_errno("socketpair");
  socket_.reset(ends[0]);
  const Fd theirs(ends[1]);
  pid_ = fork();
  if (pid_ < 0) fail_errno("fork");
  if (pid_ == 0) hold(theirs.get());
}

void Holder::keep(int uffd, pid_t process) {
  const Fd handle(static_cast<int>(syscall(SYS_pidfd_open, process, 0)));
  if (!handle) fail_errno("pidfd_open");
  const int fds[2] = {uffd, handle.get()};
  char byte = 1;
  iovec part{&byte, 1};
  alignas(cmsghdr) char space[CMSG_SPACE(sizeof fds)] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = space;
  message.msg_controllen = sizeof space;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fds);
  memcpy(CMSG_DATA(header), fds, sizeof fds);
  if (sendmsg(socket_.get(), &message, MSG_NOSIGNAL) < 0) fail_errno("the holder process is gone");
}

void Holder::release() { socket_.reset(); }

}  // namespace elastic
