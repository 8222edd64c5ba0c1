// See control.hpp.
#include "control.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>

namespace elastic {

namespace {

constexpr size_t kBodyBytesMax = 1 << 20;
constexpr size_t kQueueBytesMax = 4 << 20;  // a client that far behind is dropped
constexpr size_t kClientsMax = 64;
constexpr uint64_t kRunReadsUs = 5'000'000;

// How many fields a message has.
struct Shape {
  size_t numbers;
  size_t strings;
  bool operator==(const Shape&) const = default;
};

std::optional<Shape> shape_of(ControlType type) {
  switch (type) {
    case ControlType::hello: return Shape{1, 0};
    case ControlType::lane: return Shape{6, 4};
    case ControlType::lease_update: return Shape{4, 1};
    case ControlType::participant_drop: return Shape{1, 0};
    case ControlType::stats_request: return Shape{0, 0};
    case ControlType::terminate: return Shape{0, 1};
    case ControlType::lane_refused: return Shape{1, 1};
    case ControlType::start: return Shape{0, 0};
    case ControlType::signal: return Shape{1, 0};
    case ControlType::pages_request: return Shape{0, 0};
    case ControlType::node_verdict: return Shape{3, 1};
    case ControlType::limit: return Shape{1, 0};
    case ControlType::processors: return Shape{1, 0};
    case ControlType::owned_request: return Shape{0, 0};
    case ControlType::hints: return Shape{1, 1};
    case ControlType::describe: return Shape{9, 3};
    case ControlType::stats: return Shape{0, 1};
    case ControlType::lane_up: return Shape{1, 1};
    case ControlType::lane_down: return Shape{1, 2};
    case ControlType::lane_wanted: return Shape{1, 2};
    case ControlType::exited: return Shape{3, 1};
    case ControlType::log: return Shape{1, 1};
    case ControlType::room_wanted: return Shape{1, 0};
    case ControlType::started: return Shape{1, 0};
    case ControlType::lease_renewed: return Shape{2, 0};
    case ControlType::pages: return Shape{0, 1};
    case ControlType::node_silent: return Shape{3, 0};
    case ControlType::owned: return Shape{0, 1};
  }
  return std::nullopt;
}

bool is_command(ControlType type) { return type < ControlType::describe; }

template <typename T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename T>
T get(const uint8_t* from) {
  T value;
  memcpy(&value, from, sizeof value);
  return value;
}

}  // namespace

struct Control::Client {
  Fd fd;
  bool run = false;
  int role = -1;  // from HELLO: 0 run, 1 agent, 2 observer
  bool gone = false;
  std::string in;
  std::string out;
};

std::string encode_control(const ControlMessage& message) {
  if (shape_of(message.type) != Shape{message.numbers.size(), message.strings.size()})
    throw std::logic_error(format("bug: control message %d with %zu numbers and %zu strings",
                                  static_cast<int>(message.type), message.numbers.size(),
                                  message.strings.size()));
  std::string body;
  put(body, static_cast<uint16_t>(message.type));
  put(body, static_cast<uint16_t>(message.numbers.size()));
  put(body, static_cast<uint16_t>(message.strings.size()));
  put(body, uint16_t{0});
  for (const int64_t number : message.numbers) put(body, number);
  for (const std::string& text : message.strings) {
    put(body, static_cast<uint32_t>(text.size()));
    body += text;
  }
  std::string frame;
  put(frame, static_cast<uint32_t>(body.size()));
  return frame + body;
}

std::optional<ControlMessage> decode_control(const uint8_t* body, size_t bytes) {
  if (bytes < 8) return std::nullopt;
  ControlMessage message;
  message.type = static_cast<ControlType>(get<uint16_t>(body));
  const size_t numbers = get<uint16_t>(body + 2), strings = get<uint16_t>(body + 4);
  if (!is_command(message.type) || shape_of(message.type) != Shape{numbers, strings}) return std::nullopt;
  size_t at = 8;
  if (bytes < at + numbers * 8) return std::nullopt;
  for (size_t i = 0; i < numbers; i++, at += 8) message.numbers.push_back(get<int64_t>(body + at));
  for (size_t i = 0; i < strings; i++) {
    if (bytes < at + 4) return std::nullopt;
    const size_t length = get<uint32_t>(body + at);
    at += 4;
    if (bytes - at < length) return std::nullopt;
    message.strings.emplace_back(reinterpret_cast<const char*>(body + at), length);
    at += length;
  }
  if (at != bytes) return std::nullopt;
  return message;
}

std::string control_shapes() {
  std::string text;
  for (int type = 0; type <= UINT8_MAX; type++)
    if (const auto shape = shape_of(static_cast<ControlType>(type)))
      text += format("%d %zu %zu\n", type, shape->numbers, shape->strings);
  return text;
}

Control::Control(Loop& loop, const std::string& path, int run_fd, OnMessage on_message,
                 std::function<void()> on_run_gone)
    : loop_(loop), path_(path), on_message_(std::move(on_message)), on_run_gone_(std::move(on_run_gone)) {
  if (run_fd >= 0) add(run_fd, true);
  if (path_.empty()) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path_.size() >= sizeof address.sun_path)
    throw Failure(
        "the control socket's path is longer than 107 bytes: choose a shorter --data or XDG_RUNTIME_DIR");
  memcpy(address.sun_path, path_.c_str(), path_.size());
  listener_.reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  unlink(path_.c_str());
  const mode_t mask = umask(0177);
  const int bound = bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
  umask(mask);
  if (bound != 0 || listen(listener_.get(), 16) != 0) fail_errno("cannot listen on %s", path_.c_str());
  loop_.watch(listener_.get(), EPOLLIN, [this](uint32_t) { accept_client(); });
}

Control::~Control() {
  for (const auto& client : clients_)
    if (!client->gone) loop_.forget(client->fd.get());
  if (listener_) {
    loop_.forget(listener_.get());
    unlink(path_.c_str());
  }
}

void Control::accept_client() {
  const int fd = accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  ucred peer{};
  socklen_t length = sizeof peer;
  const bool known = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0;
  if (!known || (peer.uid != geteuid() && peer.uid != 0) || clients_.size() >= kClientsMax) {
    close(fd);
    return;
  }
  add(fd, false);
}

void Control::add(int fd, bool run) {
  auto client = std::make_shared<Client>();
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  client->fd.reset(fd);
  client->run = run;
  if (run) client->role = 0;
  clients_.push_back(client);
  loop_.watch(fd, EPOLLIN, [this, client](uint32_t events) {
    if (events & EPOLLOUT) send(client, "");
    if (!client->gone && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) on_readable(client);
  });
}

void Control::on_readable(const std::shared_ptr<Client>& client) {
  char buffer[16384];
  const ssize_t got = recv(client->fd.get(), buffer, sizeof buffer, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return drop(client);
  client->in.append(buffer, static_cast<size_t>(got));
  take_frames(client);
}

void Control::take_frames(const std::shared_ptr<Client>& client) {
  size_t at = 0;
  while (!client->gone && client->in.size() - at >= 4) {
    const auto* data = reinterpret_cast<const uint8_t*>(client->in.data()) + at;
    const size_t bytes = get<uint32_t>(data);
    if (bytes > kBodyBytesMax) return drop(client);
    if (client->in.size() - at - 4 < bytes) break;
    const auto message = decode_control(data + 4, bytes);
    if (!message) return drop(client);
    at += 4 + bytes;
    if (message->type == ControlType::hello)
      client->role = client->run ? 0 : static_cast<int>(message->numbers[0]);
    on_message_(*message, client->run,
                [this, client](const ControlMessage& m) { send(client, encode_control(m)); });
  }
  client->in.erase(0, at);
}

void Control::send(const std::shared_ptr<Client>& client, const std::string& frame) {
  if (client->gone) return;
  client->out += frame;
  const ssize_t sent = ::send(client->fd.get(), client->out.data(), client->out.size(), MSG_NOSIGNAL);
  if (sent > 0) client->out.erase(0, static_cast<size_t>(sent));
  if ((sent < 0 && errno != EAGAIN && errno != EINTR) || client->out.size() > kQueueBytesMax)
    return drop(client);
  loop_.change(client->fd.get(), client->out.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT);
}

void Control::drop(const std::shared_ptr<Client>& client) {
  if (client->gone) return;
  client->gone = true;
  loop_.forget(client->fd.get());
  client->fd.reset();
  const bool run = client->run;
  clients_.erase(std::find(clients_.begin(), clients_.end(), client));
  if (run && on_run_gone_) on_run_gone_();
}

void Control::to_all(const ControlMessage& message) {
  const std::string frame = encode_control(message);
  for (const auto& client : std::vector(clients_)) send(client, frame);
}

void Control::to_run(const ControlMessage& message) {
  for (const auto& client : std::vector(clients_))
    if (client->run) send(client, encode_control(message));
}

void Control::to_agents(const ControlMessage& message) {
  for (const auto& client : std::vector(clients_))
    if (client->role == 1) send(client, encode_control(message));
}

void Control::log(LogLevel level, const std::string& text) {
  to_all({ControlType::log, {static_cast<int64_t>(level)}, {text}});
}

// `run` closes its end when it has read ours. Until then it may write, a signal that has reached it as well
// as the program: were this end closed, that would fail, and take with it what `run` has not read.
void Control::last_words(int timeout_ms) {
  const uint64_t until = now_us() + static_cast<uint64_t>(timeout_ms) * 1000;
  for (const auto& client : std::vector(clients_)) {
    while (!client->gone && !client->out.empty() && now_us() < until) {
      pollfd waiting{client->fd.get(), POLLOUT, 0};
      if (poll(&waiting, 1, 50) > 0) send(client, "");
    }
    if (client->gone || !client->run || shutdown(client->fd.get(), SHUT_WR) != 0) continue;
    char unread[4096];
    pollfd waiting{client->fd.get(), POLLIN, 0};
    const uint64_t read_until = now_us() + kRunReadsUs;
    while (now_us() < read_until)
      if (poll(&waiting, 1, 50) > 0 && recv(client->fd.get(), unread, sizeof unread, 0) <= 0) break;
  }
}

}  // namespace elastic
