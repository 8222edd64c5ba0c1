// The pager's control socket: `run`, the agent, a restarted agent, `ps`. One message union and its codec
// (TypeScript twin: kmod/pager-messages.ts, which documents every message), and the server that the loop
// drives.
//
// Peers are local, but treated as untrusted all the same: their uid must be ours or root's, frames are
// bounded and validated, and a malformed one closes the connection. A client that does not read is dropped,
// never waited for, but `run` for the end, and that not for ever.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "loop.hpp"

namespace elastic {

enum class ControlType : uint16_t {
  hello = 1,
  lane = 2,
  lease_update = 3,
  participant_drop = 4,
  stats_request = 5,
  terminate = 6,
  lane_refused = 7,
  start = 8,
  signal = 9,
  pages_request = 10,
  node_verdict = 30,
  limit = 40,
  processors = 41,
  owned_request = 50,
  hints = 51,
  describe = 101,
  stats = 102,
  lane_up = 103,
  lane_down = 104,
  lane_wanted = 105,
  exited = 106,
  log = 107,
  room_wanted = 108,
  started = 109,
  lease_renewed = 110,
  pages = 111,
  node_silent = 130,
  owned = 150,
};

struct ControlMessage {
  ControlType type{};
  std::vector<int64_t> numbers;
  std::vector<std::string> strings;
};

enum class LogLevel { error = 0, warning = 1, info = 2, debug = 3 };

std::string encode_control(const ControlMessage& message);  // with the length in front; its shape is right
// Decodes one body (without the length); nothing if it is malformed or has another shape than its type wants.
std::optional<ControlMessage> decode_control(const uint8_t* body, size_t bytes);

// For the lock-step test: a line for each type, "TYPE NUMBERS STRINGS".
std::string control_shapes();

class Control {
 public:
  // `from_run`: it came over the run channel.
  using OnMessage = std::function<void(const ControlMessage&, bool from_run,
                                       const std::function<void(const ControlMessage&)>& reply)>;

  // Listens on `path` (0600; a stale socket is replaced). `run_fd` -1: there is no `run`.
  Control(Loop& loop, const std::string& path, int run_fd, OnMessage on_message,
          std::function<void()> on_run_gone);
  ~Control();

  void to_all(const ControlMessage& message);
  void to_run(const ControlMessage& message);
  void to_agents(const ControlMessage& message);
  void log(LogLevel level, const std::string& text);
  // Before exit: sends what is queued, in at most `timeout_ms`, and waits until `run` has read it.
  void last_words(int timeout_ms);

 private:
  struct Client;
  void accept_client();
  void add(int fd, bool run);
  void on_readable(const std::shared_ptr<Client>& client);
  void take_frames(const std::shared_ptr<Client>& client);
  void send(const std::shared_ptr<Client>& client, const std::string& frame);
  void drop(const std::shared_ptr<Client>& client);

  Loop& loop_;
  std::string path_;
  Fd listener_;
  OnMessage on_message_;
  std::function<void()> on_run_gone_;
  std::vector<std::shared_ptr<Client>> clients_;
};

}  // namespace elastic
