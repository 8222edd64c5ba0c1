// The pager of a participant: lends memory to one elastic process, runs its guest threads, and ends with it.
// It belongs to home's lane: when that is gone for good it frees everything and exits. See engine.hpp and
// guests.hpp.
#pragma once

#include <memory>
#include <string>

#include "control.hpp"
#include "engine.hpp"
#include "guests.hpp"
#include "holder.hpp"
#include "silence.hpp"

namespace elastic {

struct PeerOptions {
  std::string id;
  std::string socket_path;
  std::string node_name;
  std::string listen_host;
  std::string spill_dir;
  uint16_t node = 0;
  uint64_t memory_pages = 0;
  uint64_t spill_bytes_max = 0;
};

class Peer : public EngineHost, public LaneEvents {
 public:
  explicit Peer(PeerOptions options);
  ~Peer() override;
  int run();  // exit status of the pager: 0 when the process ended in order, 1 otherwise

 private:
  static constexpr uint64_t kTickUs = 100'000;
  // EngineHost
  bool leave_for(const FaultEvent& fault, uint16_t owner) override { return guests_.leave_for(fault, owner); }
  void on_local_fault(const FaultEvent& fault) override { guests_.on_local_fault(fault); }
  bool threads_may_run() const override { return guests_.running() > 0; }
  bool threads_here() const override { return guests_.running() > 0; }
  bool fill_from_backing(uint64_t, uint8_t*) override { return false; }
  void must_go_home(uint64_t page) override { guests_.must_go_home(page); }
  void want_lane(uint16_t node) override;
  void out_of_room(uint64_t page) override;
  void tell_room() override;
  // LaneEvents
  void on_up(Node& node) override;
  void on_down(Node& node, const std::string& reason) override;
  void on_frame(Node& node, const Frame& frame, bool bulk) override;
  void on_refused(const std::string& reason) override;
  void on_drained(Node& node) override;

  void on_control(const ControlMessage& message, const std::function<void(const ControlMessage&)>& reply);
  void add_lane(const ControlMessage& message);
  void update_lease(const ControlMessage& message);
  void on_home_frame(Node& home, const Frame& frame);
  void on_layout(const Frame& frame);
  bool may_host(const Node& home) const;
  void on_reset(uint32_t image);
  void start_draining();
  void tell_owned();
  void on_child_events();
  void on_faults();
  void tick();
  void go_on_draining(Node& home);
  uint64_t pages_bound() const;
  void watch_tables();
  void stop(const std::string& reason, int status);
  ControlMessage describe() const;
  std::string stats_json() const;

  PeerOptions options_;
  Loop loop_;
  Counters counters_;
  std::unique_ptr<Control> control_;
  Memory memory_;
  PageTable table_;
  RegionMap regions_;
  std::unique_ptr<Spill> spill_;
  std::unique_ptr<Lanes> lanes_;
  std::unique_ptr<Silence> silence_;
  std::unique_ptr<Engine> engine_;
  Guests guests_;
  Fd signal_fd_;
  uint64_t lease_pages_ = 0;
  uint64_t pages_allowed_ = 0;  // the lease, or what is still here of a larger one
  uint32_t lease_threads_ = 0;
  uint64_t started_us_ = 0, started_wall_ms_ = 0;
  uint64_t lease_report_us_ = 0;
  bool home_seen_ = false;
  bool draining_ = false;
  bool telling_ = false;     // a pass of owner notes is not out yet
  bool pages_lost_ = false;  // with a lane to another participant: nobody can go on
  int exit_status_ = 0;
  std::map<uint16_t, uint64_t> lane_wanted_us_;
};

}  // namespace elastic
