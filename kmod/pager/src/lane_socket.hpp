// TCP sockets for lanes: numeric addresses only (the agent resolves names; the pager never waits for a
// resolver), non-blocking, closed on exec.
#pragma once

#include <cstdint>
#include <string>

#include "util.hpp"

namespace elastic {

// Starts a connect; completion shows as EPOLLOUT. Throws std::system_error.
Fd start_connect(const std::string& host, uint16_t port);
// Binds and listens; port 0 lets the kernel choose. Throws std::system_error.
Fd start_listening(const std::string& host, uint16_t port);
uint16_t bound_port(int fd);
// The options every lane connection carries; best effort, a lane works without them.
void set_lane_options(int fd);
// "address:port" of the other side, for messages.
std::string peer_text(int fd);

}  // namespace elastic
