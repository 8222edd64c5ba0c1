// What the wire itself costs, for `npm run bench` to divide by: `raw` (56 bytes there, 4 KiB back, plain
// TCP), `rawTls` (a lane frame there, a lane frame with 4 KiB back), `bulkTls2` (both directions of a lane at
// once; bytes per second in each), and with `--bytes N` `echoTls` (N bytes each way). Two processes over
// 127.0.0.1, the second one forked.
//
// `--cpus 1` pins both to CPU 0; `--cpus 2` pins each to one of its own (what --cpu-home and --cpu-peer
// name). Each figure is one line of JSON: {name, cpus, p50, p99, unit, samples}. Both sides wait in
// epoll_wait, as the pager does, so the wake-up is part of the figure.
#include "reference.hpp"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <system_error>
#include <vector>

#include "../src/lane.hpp"
#include "../src/util.hpp"

namespace elastic {

namespace {

constexpr size_t kRawRequestBytes = 56;
constexpr size_t kPagePayloadBytes = 4096;
constexpr size_t kBulkPages = 64;           // pages of one bulk frame, as eviction batches them
constexpr size_t kBulkQueueMax = 256u << 10;  // queued per direction, as the pager allows
constexpr uint64_t kBulkWindowNs = 20'000'000;
constexpr int kWarmUp = 200;
constexpr int kPatienceMs = 5000;

struct Options {
  std::string only;
  int cpus = 2;
  int cpu_home = 0;
  int cpu_peer = 1;
  int samples = 20'000;
  double seconds = 2.0;
  size_t bytes = 0;  // of each direction of echoTls
};

[[noreturn]] void give_up(const std::string& what) { throw std::runtime_error("bench-reference: " + what); }

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) give_up("cannot pin to CPU " + std::to_string(cpu));
}

void report(const char* name, const Options& options, std::vector<double> samples, const char* unit,
            bool more_is_better) {
  if (samples.empty()) give_up(std::string(name) + ": no samples");
  std::sort(samples.begin(), samples.end());
  if (more_is_better) std::reverse(samples.begin(), samples.end());
  const auto at = [&](size_t percent) { return samples[(samples.size() - 1) * percent / 100]; };
  std::printf("{\"name\":\"%s\",\"cpus\":%d,\"p50\":%.3f,\"p99\":%.3f,\"unit\":\"%s\",\"samples\":%zu}\n",
              name, options.cpus, at(50), at(99), unit, samples.size());
  std::fflush(stdout);
}

// Forks the peer; the child runs `peer` and never returns. The parent reaps it when the object goes.
class PeerProcess {
 public:
  PeerProcess(const Options& options, const std::function<void()>& peer) {
    pid_ = fork();
    if (pid_ < 0) give_up("fork failed");
    if (pid_ > 0) {
      pin(options.cpu_home);
      return;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    try {
      pin(options.cpus == 1 ? options.cpu_home : options.cpu_peer);
      peer();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
      _exit(1);
    }
    _exit(0);
  }
  ~PeerProcess() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  PeerProcess(const PeerProcess&) = delete;
  PeerProcess& operator=(const PeerProcess&) = delete;

 private:
  pid_t pid_;
};

// One descriptor in an epoll of its own.
class Waiter {
 public:
  explicit Waiter(int fd) : epoll_(epoll_create1(EPOLL_CLOEXEC)), fd_(fd) {
    epoll_event event{};
    event.events = events_ = EPOLLIN;
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd_, &event);
  }
  uint32_t wait(uint32_t wanted = EPOLLIN) {
    epoll_event event{};
    if (wanted != events_) {
      event.events = events_ = wanted;
      epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd_, &event);
    }
    for (;;) {
      const int ready = epoll_wait(epoll_.get(), &event, 1, kPatienceMs);
      if (ready == 1) return event.events;
      if (ready == 0) give_up("the other side is silent");
      if (errno != EINTR) give_up("epoll_wait failed");
    }
  }

 private:
  Fd epoll_;
  int fd_;
  uint32_t events_;
};

void send_all(int fd, const uint8_t* bytes, size_t count) {
  while (count > 0) {
    const ssize_t sent = ::send(fd, bytes, count, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) give_up("send failed");
    if (sent <= 0) continue;
    bytes += sent;
    count -= static_cast<size_t>(sent);
  }
}

// Receives exactly `count` bytes; false at the end of the stream.
bool receive_all(int fd, Waiter& waiter, uint8_t* bytes, size_t count) {
  while (count > 0) {
    waiter.wait();
    const ssize_t got = recv(fd, bytes, count, MSG_DONTWAIT);
    if (got == 0) return false;
    if (got < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (got <= 0) continue;
    bytes += got;
    count -= static_cast<size_t>(got);
  }
  return true;
}

Fd loopback_socket(bool listening, sockaddr_in& address) {
  Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  socklen_t bytes = sizeof address;
  if (listening) {
    address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), bytes) != 0 || listen(fd.get(), 1) != 0 ||
        getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &bytes) != 0)
      give_up("cannot listen on 127.0.0.1");
  } else if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), bytes) != 0) {
    give_up("cannot connect to 127.0.0.1");
  }
  const int on = 1;
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

void serve_raw(int listener) {
  Fd fd(accept(listener, nullptr, nullptr));
  const int on = 1;
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  Waiter waiter(fd.get());
  std::array<uint8_t, kRawRequestBytes> request;
  std::array<uint8_t, kPagePayloadBytes> page{};
  while (receive_all(fd.get(), waiter, request.data(), request.size()))
    send_all(fd.get(), page.data(), page.size());
}

void measure_raw(const Options& options) {
  sockaddr_in address;
  const Fd listener = loopback_socket(true, address);
  PeerProcess peer(options, [&] { serve_raw(listener.get()); });
  const Fd fd = loopback_socket(false, address);
  Waiter waiter(fd.get());
  std::array<uint8_t, kRawRequestBytes> request{};
  std::array<uint8_t, kPagePayloadBytes> page;
  std::vector<double> samples;
  samples.reserve(static_cast<size_t>(options.samples));
  for (int i = 0; i < kWarmUp + options.samples; ++i) {
    const uint64_t from_ns = now_ns();
    send_all(fd.get(), request.data(), request.size());
    if (!receive_all(fd.get(), waiter, page.data(), page.size())) give_up("raw: the other side closed");
    if (i >= kWarmUp) samples.push_back(static_cast<double>(now_ns() - from_ns) / 1000);
  }
  report("raw", options, std::move(samples), "us", false);
}

// ---- over a lane ----

constexpr LaneKey kBenchKey = {1, 2, 3};

std::unique_ptr<Lane> accept_lane(LaneListener& listener) {
  Waiter waiter(listener.fd());
  for (;;) {
    waiter.wait();
    if (auto lane = listener.accept()) return lane;
  }
}

void must_be_ok(const Lane& lane) {
  if (lane.status() != LaneIo::ok) give_up(lane.last_error());
}

void serve_echo(LaneListener& listener) {
  auto lane = accept_lane(listener);
  Waiter waiter(lane->fd());
  std::vector<uint8_t> answer(kMaxPayloadBytes);
  FrameHeader reply;
  reply.type = static_cast<uint16_t>(FrameType::echo_reply);
  Frame frame;
  while (lane->on_event(waiter.wait(lane->wanted_events())) == LaneIo::ok) {
    while (lane->next_frame(frame)) {
      const iovec part{answer.data(), std::min<size_t>(frame.header.argument, answer.size())};
      lane->send(reply, {&part, 1});
    }
    lane->flush();
  }
}

// A frame with `there` bytes, answered by one with `back` bytes.
void measure_echo(const char* name, const Options& options, size_t there, size_t back) {
  LaneListener listener("127.0.0.1", [](const std::string&) { return kBenchKey; });
  PeerProcess peer(options, [&] { serve_echo(listener); });
  auto lane = Lane::dial("127.0.0.1", listener.port(), "1", kBenchKey);
  Waiter waiter(lane->fd());
  while (!lane->established()) {
    lane->on_event(waiter.wait(lane->wanted_events()));
    must_be_ok(*lane);
  }
  FrameHeader request;
  request.type = static_cast<uint16_t>(FrameType::echo);
  request.argument = static_cast<uint32_t>(back);
  std::vector<uint8_t> payload(there);
  const iovec part{payload.data(), payload.size()};
  Frame frame;
  std::vector<double> samples;
  samples.reserve(static_cast<size_t>(options.samples));
  for (int i = 0; i < kWarmUp + options.samples; ++i) {
    const uint64_t from_ns = now_ns();
    lane->send(request, {&part, 1});
    lane->flush();
    do {
      lane->on_event(waiter.wait());
      must_be_ok(*lane);
    } while (!lane->next_frame(frame));
    if (frame.payload.size() != back) give_up("wrong answer to an echo");
    if (i >= kWarmUp) samples.push_back(static_cast<double>(now_ns() - from_ns) / 1000);
  }
  report(name, options, std::move(samples), "us", false);
}

// Sends as fast as the lane takes it and counts what comes; `on_bytes` sees the payload bytes of each turn
// and says whether to go on.
void pump_bulk(Lane& lane, const std::function<bool(uint64_t bytes)>& on_bytes) {
  Waiter waiter(lane.fd());
  std::vector<PageMeta> metas(kBulkPages);
  for (size_t i = 0; i < kBulkPages; ++i) {
    metas[i].page = i + 1;
    metas[i].flags = kPageData;
  }
  std::vector<uint8_t> data(kBulkPages * kPagePayloadBytes, 0x11);
  const iovec parts[] = {{metas.data(), metas.size() * sizeof(PageMeta)}, {data.data(), data.size()}};
  FrameHeader header;
  header.type = static_cast<uint16_t>(FrameType::push);
  header.count = kBulkPages;
  Frame frame;
  for (bool go_on = true; go_on;) {
    lane.on_event(waiter.wait(lane.wanted_events()));
    must_be_ok(lane);
    uint64_t bytes = 0;
    while (lane.next_frame(frame)) bytes += frame.payload.size();
    if (lane.established())
      while (lane.queued_bytes() < kBulkQueueMax) lane.send(header, parts);
    lane.flush();
    go_on = on_bytes(bytes);
  }
}

void measure_bulk_tls(const Options& options) {
  LaneListener listener("127.0.0.1", [](const std::string&) { return kBenchKey; });
  PeerProcess peer(options, [&] {
    auto lane = accept_lane(listener);
    pump_bulk(*lane, [](uint64_t) { return true; });
  });
  auto lane = Lane::dial("127.0.0.1", listener.port(), "1", kBenchKey);
  const uint64_t start_ns = now_ns();
  const auto length_ns = static_cast<uint64_t>(options.seconds * 1e9);
  uint64_t window_from_ns = 0;
  uint64_t window_bytes = 0;
  std::vector<double> samples;  // bytes per second of each window, of the arriving direction
  pump_bulk(*lane, [&](uint64_t bytes) {
    const uint64_t now = now_ns();
    window_bytes += bytes;
    if (window_from_ns == 0 || now - start_ns < length_ns / 10) {
      window_from_ns = now;
      window_bytes = 0;
    } else if (now - window_from_ns >= kBulkWindowNs) {
      samples.push_back(static_cast<double>(window_bytes) * 1e9 / static_cast<double>(now - window_from_ns));
      window_from_ns = now;
      window_bytes = 0;
    }
    return now - start_ns < length_ns;
  });
  report("bulkTls2", options, std::move(samples), "B/s", true);
}

Options options_of(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (i + 1 == argc) give_up("no value after " + name);
    const char* value = argv[++i];
    if (name == "--only") {
      options.only = value;
    } else if (name == "--cpus") {
      options.cpus = std::atoi(value);
    } else if (name == "--cpu-home") {
      options.cpu_home = std::atoi(value);
    } else if (name == "--cpu-peer") {
      options.cpu_peer = std::atoi(value);
    } else if (name == "--samples") {
      options.samples = std::atoi(value);
    } else if (name == "--bytes") {
      options.bytes = static_cast<size_t>(std::atol(value));
    } else if (name == "--seconds") {
      options.seconds = std::atof(value);
    } else {
      give_up("unknown option " + name);
    }
  }
  if (options.bytes > kMaxPayloadBytes) give_up("--bytes is larger than a frame");
  if (options.cpus < 1 || options.cpus > 2 || options.samples < 1 || options.seconds <= 0)
    give_up("--cpus is 1 or 2, --samples and --seconds are positive");
  return options;
}

}  // namespace

int bench_reference(int argc, char** argv) {
  try {
    const Options options = options_of(argc, argv);
    const auto wanted = [&](const char* name) { return options.only.empty() || options.only == name; };
    if (wanted("raw")) measure_raw(options);
    if (wanted("rawTls")) measure_echo("rawTls", options, 0, kPagePayloadBytes);
    if (options.bytes > 0 && wanted("echoTls"))
      measure_echo("echoTls", options, options.bytes, options.bytes);
    if (wanted("bulkTls2")) measure_bulk_tls(options);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

}  // namespace elastic
