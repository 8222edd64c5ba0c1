// TCP sockets for lanes. See lane_socket.hpp.
#include "lane_socket.hpp"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>
#include <system_error>

namespace elastic {

namespace {

// A stalled peer is waited for, and Linux counts a receive window that stays shut as silence once
// TCP_USER_TIMEOUT is set, so it is long. A silent host is found much sooner by the status frames above.
constexpr unsigned kUserTimeoutMs = 120'000;
constexpr int kKeepaliveIdleSeconds = 10;
constexpr int kKeepaliveEverySeconds = 5;
constexpr int kKeepaliveProbes = 6;
constexpr int kListenBacklog = 64;

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

AddressList numeric_address(const std::string& host, uint16_t port, bool listening) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | (listening ? AI_PASSIVE : 0);
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0 || found == nullptr)
    throw std::system_error(EINVAL, std::generic_category(), "bad lane address \"" + host + "\"");
  return AddressList(found, freeaddrinfo);
}

[[noreturn]] void fail(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

void set_option(int fd, int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof value); }

Fd new_socket(int family) {
  Fd fd(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) fail("cannot make a lane socket");
  return fd;
}

}  // namespace

void set_lane_options(int fd) {
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(kUserTimeoutMs));
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepaliveIdleSeconds);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, kKeepaliveEverySeconds);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, kKeepaliveProbes);
}

Fd start_connect(const std::string& host, uint16_t port) {
  const AddressList address = numeric_address(host, port, false);
  Fd fd = new_socket(address->ai_family);
  set_lane_options(fd.get());
  if (connect(fd.get(), address->ai_addr, address->ai_addrlen) != 0 && errno != EINPROGRESS && errno != EINTR)
    fail("cannot connect a lane to " + host + " port " + std::to_string(port));
  return fd;
}

Fd start_listening(const std::string& host, uint16_t port) {
  const AddressList address = numeric_address(host, port, true);
  Fd fd = new_socket(address->ai_family);
  set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (bind(fd.get(), address->ai_addr, address->ai_addrlen) != 0 || listen(fd.get(), kListenBacklog) != 0)
    fail("cannot listen for lanes on " + host + " port " + std::to_string(port));
  return fd;
}

uint16_t bound_port(int fd) {
  sockaddr_storage address{};
  socklen_t bytes = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &bytes) != 0) fail("getsockname");
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&address)->sin6_port
                                             : reinterpret_cast<sockaddr_in*>(&address)->sin_port);
}

std::string peer_text(int fd) {
  sockaddr_storage address{};
  socklen_t bytes = sizeof address;
  char host[NI_MAXHOST];
  char service[NI_MAXSERV];
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &bytes) != 0 ||
      getnameinfo(reinterpret_cast<sockaddr*>(&address), bytes, host, sizeof host, service, sizeof service,
                  NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return "an unknown address";
  const std::string text(host);
  return (address.ss_family == AF_INET6 ? "[" + text + "]" : text) + ":" + service;
}

}  // namespace elastic
