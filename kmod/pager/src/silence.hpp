// Whom this pager has not heard for a while. Both connections of a lane carry a frame every 100 ms, so
// silence shows natively, whatever an agent's event loop does; the agents are told of it and find out what it
// means.
//
// Their verdict is "dead", and the node is given up at once; "stalls": its agent sees its pager live, and it
// is waited for, anew with each such verdict; or "runs": its agent is reached, and its pager answers there.
// Then the hosts reach one another, and the lane's connections are made anew (lanes_resume.cpp). Without
// agents, or without a verdict, a node is given up after kSilentUs. Time in which this pager itself did not
// run counts for nobody's silence.
#pragma once

#include <cstdint>

#include "control.hpp"
#include "lanes.hpp"

namespace elastic {

class Silence {
 public:
  static constexpr uint64_t kLookUs = 100'000;

  Silence(Loop& loop, Lanes& lanes, Control& control) : loop_(loop), lanes_(lanes), control_(control) {}
  void look();  // to be called every kLookUs; may end lanes
  void on_verdict(const ControlMessage& message);

 private:
  void forgive_own_stall(uint64_t now);
  void tell(Node& node, uint64_t silent_us);

  Loop& loop_;
  Lanes& lanes_;
  Control& control_;
  uint64_t looked_us_ = 0;
};

}  // namespace elastic
