// A wire between two pagers that can be cut: a TCP relay on the test's own loop. Each connection that comes
// in gets one to the target; after a given number of bytes in one direction it is cut, at both ends or at
// one.
#pragma once

#include <arpa/inet.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <functional>
#include <map>
#include <memory>

#include "../src/lane_socket.hpp"
#include "../src/loop.hpp"
#include "lane_test_kit.hpp"

namespace elastic::test {

constexpr uint64_t kNoCut = ~0ull;

class Relay {
 public:
  enum class Cut { both, dialler_only, listener_only, reset };
  // What passes before the cut: from the dialler, and to it.
  struct Plan {
    std::array<uint64_t, 2> bytes{kNoCut, kNoCut};
    Cut cut = Cut::both;
    bool held = false;  // from the beginning
  };
  std::function<Plan()> plan_of_next = [] { return Plan{}; };

  Relay(Loop& loop, uint16_t target)
      : loop_(loop), target_(target), listening_(start_listening("127.0.0.1", 0)) {
    loop_.watch(listening_.get(), EPOLLIN, [this](uint32_t) { accept_one(); });
  }
  ~Relay() {
    loop_.forget(listening_.get());
    while (!wires_.empty()) end(wires_.begin()->first, Cut::both);
  }
  uint16_t port() const { return bound_port(listening_.get()); }
  void set_plan(size_t wire, Plan plan) { wires_.at(wire).plan = plan; }
  // Nothing passes, and nobody learns of it.
  void hold(size_t wire) {
    for (const Fd& each : wires_.at(wire).ends) loop_.forget(each.get());
  }
  void release(size_t id) {
    for (const int from : {0, 1})
      loop_.watch(wires_.at(id).ends[from].get(), EPOLLIN, [this, id, from](uint32_t) { carry(id, from); });
  }
  size_t accepted() const { return next_; }
  int cuts() const { return cuts_; }
  std::vector<uint8_t>& heard(size_t wire) { return wires_.at(wire).heard; }  // from its dialler
  // Writes into the stream to the listener what the dialler did not say.
  void inject(size_t wire, const std::vector<uint8_t>& bytes) {
    CHECK(::send(wires_.at(wire).ends[1].get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) > 0);
  }

 private:
  struct Wire {
    std::array<Fd, 2> ends;  // the dialler's, the listener's
    Plan plan;
    std::vector<uint8_t> heard;
  };

  void accept_one() {
    Fd dialler(accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!dialler) return;
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(target_);
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    Fd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (connect(listener.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) return;
    const size_t id = next_++;
    Wire& wire = wires_[id];
    wire.ends = {std::move(dialler), std::move(listener)};
    wire.plan = plan_of_next();
    if (!wire.plan.held) release(id);
  }

  void carry(size_t id, int from) {
    const auto it = wires_.find(id);
    if (it == wires_.end()) return;
    Wire& wire = it->second;
    uint8_t bytes[16 << 10];
    const ssize_t got = recv(wire.ends[from].get(), bytes, sizeof bytes, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) return end(id, Cut::both);
    uint64_t& left = wire.plan.bytes[from];
    const auto pass = std::min<uint64_t>(static_cast<uint64_t>(got), left);
    if (left != kNoCut) left -= pass;
    if (from == 0) wire.heard.insert(wire.heard.end(), bytes, bytes + pass);
    const Fd& to = wire.ends[1 - from];
    if (to && pass > 0 && ::send(to.get(), bytes, pass, MSG_NOSIGNAL) < 0) return end(id, Cut::both);
    if (left > 0) return;
    cuts_++;
    end(id, wire.plan.cut);
  }

  // An end that stays open is silent from now on, and learns nothing.
  void end(size_t id, Cut cut) {
    Wire& wire = wires_.at(id);
    for (const int each : {0, 1}) {
      if (!wire.ends[each]) continue;
      loop_.forget(wire.ends[each].get());
      if (cut == (each == 0 ? Cut::listener_only : Cut::dialler_only)) {
        silent_.push_back(std::move(wire.ends[each]));
        continue;
      }
      const linger at_once{1, 0};
      if (cut == Cut::reset)
        setsockopt(wire.ends[each].get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
    wires_.erase(id);
  }

  Loop& loop_;
  uint16_t target_;
  Fd listening_;
  std::map<size_t, Wire> wires_;
  std::vector<Fd> silent_;
  size_t next_ = 0;
  int cuts_ = 0;
};

}  // namespace elastic::test
