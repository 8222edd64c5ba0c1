// What the wire itself costs, for `npm run bench` to divide by: `raw` (56 bytes there, 4 KiB back, plain
// TCP), `rawTls` (a lane frame there, a lane frame with 4 KiB back), `bulkTls2` (both directions of a lane at
// once; bytes per second in each), `bulkTlsCpu` (one direction; processor time of both sides for a page), and
// with `--bytes N` `echoTls` (N bytes each way). Two processes over 127.0.0.1, the second one forked.
//
// `--cpus 1` pins both to CPU 0; `--cpus 2` pins each to one of its own (what --cpu-home and --cpu-peer
// name). Each figure is one line of JSON: {name, cpus, p50, p99, unit, samples}. Both sides wait in
// epoll_wait, as the pager does, so the wake-up is part of the figure.
#include "reference.hpp"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "reference_kit.hpp"

namespace elastic {

namespace {

constexpr size_t kRawRequestBytes = 56;
constexpr int kWarmUp = 200;

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
    if (wanted("bulkTlsCpu")) measure_bulk_cpu(options);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

}  // namespace elastic
