// See peer.hpp.
#include "peer.hpp"

#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <system_error>

#include "frame_check.hpp"
#include "privileges.hpp"
#include "signals.hpp"
#include "spill_file.hpp"

namespace elastic {

namespace {
constexpr uint64_t kFirstLaneUs = 10'000'000;  // no home within this time: nobody needs this pager
constexpr uint64_t kAskAgainUs = 1'000'000;
constexpr uint64_t kNamedByHomeUs = 500'000;  // if the other node is dead, home says so better
constexpr size_t kRegionsMax = 65530;         // vm.max_map_count as the kernel has it: home has no more
}  // namespace

Peer::Peer(PeerOptions options)
    : options_(std::move(options)),
      guests_(memory_, regions_,
              *(lanes_ = std::make_unique<Lanes>(loop_, strtoull(options_.id.c_str(), nullptr, 16),
                                                 options_.node, *this, counters_)),
              counters_, [this](const std::string& text) { control_->log(LogLevel::warning, text); }) {
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGCHLD);
  sigprocmask(SIG_BLOCK, &blocked, nullptr);
  signal_fd_.reset(signalfd(-1, &blocked, SFD_NONBLOCK | SFD_CLOEXEC));
  outlive_signals();
  started_us_ = now_us();
  started_wall_ms_ = wall_ms();
  lease_pages_ = options_.memory_pages;
  if (const std::string refusal = spill_refusal(options_.spill_dir); !refusal.empty()) throw Failure(refusal);
  try {
    spill_ = std::make_unique<Spill>(options_.spill_dir, options_.spill_bytes_max);
  } catch (const std::system_error& error) {
    throw Failure(error.what());
  }
  engine_ = std::make_unique<Engine>(loop_, memory_, table_, regions_, *lanes_, *spill_, *this,
                                     EngineConfig{options_.node, options_.memory_pages}, counters_);
  guests_.set_engine(engine_.get());
  guests_.on_shell = [this] { loop_.watch(memory_.uffd().fd(), EPOLLIN, [this](uint32_t) { on_faults(); }); };
  lanes_->listen(options_.listen_host);
  control_ = std::make_unique<Control>(
      loop_, options_.socket_path, -1,
      [this](const ControlMessage& m, bool, const auto& reply) { on_control(m, reply); }, nullptr);
  silence_ = std::make_unique<Silence>(loop_, *lanes_, *control_);
  loop_.watch(signal_fd_.get(), EPOLLIN, [this](uint32_t) { on_child_events(); });
  loop_.watch(spill_->event_fd(), EPOLLIN, [this](uint32_t) { spill_->drain(); });
  loop_.at(now_us() + kTickUs, [this] { tick(); });
}

Peer::~Peer() = default;

int Peer::run() {
  keep_privileges(kLenderKeeps);
  while (!loop_.stopped()) {
    try {
      loop_.run();
    } catch (const Failure& failure) {
      stop(failure.what(), 1);
    } catch (const std::system_error& error) {
      stop(error.what(), 1);
    }
  }
  guests_.end_shell();
  control_->last_words(500);
  return exit_status_;
}

// Says bye to everybody; home decides what that means for the run.
void Peer::stop(const std::string& reason, int status) {
  if (loop_.stopped()) return;
  exit_status_ = status;
  for (auto& [index, node] : lanes_->all()) {
    FrameHeader bye;
    // Home knows what was here, but for what was lost; others may be the only ones that know of what they
    // gave.
    bye.argument = pages_lost_ || (index != kHome && !engine_->empty()) ? 1 : 0;
    if (index != kHome) lanes_->acknowledge(*node);
    lanes_->send_text(*node, FrameType::bye, reason, bye);
  }
  lanes_->flush();
  control_->to_all({ControlType::exited, {status == 0 ? 0 : 2, status, 0}, {reason}});
  loop_.stop();
}

ControlMessage Peer::describe() const {
  return {ControlType::describe,
          {1, getpid(), guests_.shell_pid(), options_.node, lanes_->port(),
           static_cast<int64_t>(lease_pages_), static_cast<int64_t>(lanes_->epoch),
           static_cast<int64_t>(geteuid()), static_cast<int64_t>(started_wall_ms_)},
          {options_.id, "", options_.node_name}};
}

std::string Peer::stats_json() const {
  return format(
      "{\"elasticProcessId\":\"%s\",\"residentPages\":%lu,\"pagesSpilled\":%lu,\"pulls\":%lu,\"pagesPulled\":"
      "%lu,"
      "\"jumps\":%lu,\"jumpsHome\":%lu,\"peakPages\":%lu,\"threadsPeak\":%lu,\"framesRefused\":%lu,"
      "\"running\":true}",
      options_.id.c_str(), table_.resident(), spill_->slots_used(), counters_.pulls, counters_.pages_pulled,
      counters_.jumps, counters_.jumps_home, counters_.peak_resident, counters_.threads_peak,
      counters_.frames_refused);
}

void Peer::on_control(const ControlMessage& message,
                      const std::function<void(const ControlMessage&)>& reply) {
  switch (message.type) {
    case ControlType::hello:
      reply(describe());
      for (const auto& [index, node] : lanes_->all())
        if (node->up) reply({ControlType::lane_up, {index}, {node->name}});
      return;
    case ControlType::stats_request: return reply({ControlType::stats, {}, {stats_json()}});
    case ControlType::owned_request:
      if (!guests_.may_jump()) return reply({ControlType::owned, {}, {""}});  // nobody but home misses a page
      return engine_->look_for_owned([reply](const auto& ranges) {
        reply({ControlType::owned, {}, {pack_owned(ranges)}});
      });
    case ControlType::hints:
      if (auto ranges = unpack_owned(message.strings[0]))
        engine_->set_hints(static_cast<uint64_t>(message.numbers[0]), std::move(*ranges));
      return;
    case ControlType::lane: return add_lane(message);
    case ControlType::lease_update: return update_lease(message);
    case ControlType::terminate: return stop("stopped: " + message.strings[0], 1);
    case ControlType::node_verdict: return silence_->on_verdict(message);
    case ControlType::participant_drop: return start_draining();
    case ControlType::processors: return guests_.set_processors(static_cast<uint64_t>(message.numbers[0]));
    default: return;
  }
}

void Peer::add_lane(const ControlMessage& message) {
  Node node;
  node.index = static_cast<uint16_t>(message.numbers[0]);
  node.name = message.strings[0];
  try {
    if (message.numbers[0] < 0 || message.numbers[0] >= kNodesMax) throw Failure("bad node index");
    if (message.strings[2].size() != node.key.size()) throw Failure("a lane key has 32 bytes");
    if (message.numbers[5] < 0 || message.numbers[5] > 65535) throw Failure("bad lane port");
    node.host = message.strings[1];
    node.peer_id = message.strings[3];
    node.port = static_cast<uint16_t>(message.numbers[5]);
    memcpy(node.key.data(), message.strings[2].data(), node.key.size());
    node.lease.id = static_cast<uint64_t>(message.numbers[1]);
    node.lease.pages_max = static_cast<uint64_t>(message.numbers[2]);
    node.lease.threads_max = static_cast<uint32_t>(message.numbers[3]);
    node.lease.ttl_us = static_cast<uint64_t>(message.numbers[4]) * 1000;
    node.lease.expires_us = now_us() + node.lease.ttl_us;
    if (node.index == kHome) {
      lease_pages_ = std::min(options_.memory_pages, node.lease.pages_max);
      pages_allowed_ = lease_pages_;
      lease_threads_ = node.lease.threads_max;
      engine_->set_limit(lease_pages_);
    }
    if (const Node* lost = lanes_->find(node.index); lost != nullptr && lost->has_gap())
      lanes_->cut(node.index, "it has agreed on another lane");
    lanes_->add(std::move(node));
  } catch (const Failure& failure) {
    control_->to_all({ControlType::lane_down, {message.numbers[0]}, {message.strings[0], failure.what()}});
  }
}

void Peer::want_lane(uint16_t index) {
  uint64_t& asked = lane_wanted_us_[index];
  const uint64_t now = now_us();
  if (asked != 0 && now - asked < kAskAgainUs) return;
  asked = now;
  control_->to_agents({ControlType::lane_wanted, {index}, {"", ""}});
}

// Home has the page as soon as a thread there wants it; a lease may shrink to nothing while threads are here.
void Peer::out_of_room(uint64_t page) { guests_.must_go_home(page); }

void Peer::on_up(Node& node) {
  node.synced = node.index == kHome;  // others by their first frame: one of us may not have heard of an exec
  if (node.index == kHome) home_seen_ = true;
  tell_room();  // one more may push here: the others' shares are smaller
  control_->to_all({ControlType::lane_up, {node.index}, {node.name}});
}

void Peer::on_down(Node& node, const std::string& reason) {
  control_->to_all({ControlType::lane_down, {node.index}, {node.name, reason}});
  const uint64_t asked = engine_->on_node_down(node);
  if (node.index == kHome) {
    if (home_seen_) stop(node.left ? "the process ended" : "home was lost: " + reason, node.left ? 0 : 1);
    return;
  }
  // Who left in order has answered all it ever will, but reads no more; else an answer may have been on the
  // lane.
  if (!node.moves_lost && (asked == 0 || node.left)) return;
  const std::string text =
      format("the lane to node %s was lost (%s) with pages on their way", node.name.c_str(), reason.c_str());
  loop_.at(now_us() + kNamedByHomeUs, [this, text] {
    pages_lost_ = true;
    throw Failure(text);
  });
}

void Peer::on_refused(const std::string& reason) { control_->log(LogLevel::warning, "refused: " + reason); }

void Peer::on_drained(Node&) { engine_->on_drained(); }

void Peer::on_frame(Node& node, const Frame& frame, bool bulk) {
  if (frame.header.image == lanes_->image) node.synced = true;
  const auto type = static_cast<FrameType>(frame.header.type);
  if (type == FrameType::status) return lanes_->take_status(node, frame);
  if (type == FrameType::push && engine_->resident() > pages_bound())
    throw Failure(format("%s pushed pages far beyond the lease", node.name.c_str()));
  if (type == FrameType::drop && frame.header.argument != 0 && node.index != kHome) return;
  if (node.index == kHome) return on_home_frame(node, frame);
  if (type == FrameType::bye) {
    node.left = true;
    node.left_with_pages = frame.header.argument != 0;
  }
  if (type == FrameType::ack && bulk) lanes_->take_acknowledgement(node, frame);
  if (type == FrameType::get || type == FrameType::pages || type == FrameType::push)
    engine_->on_frame(node, frame);
}

void Peer::on_home_frame(Node& home, const Frame& frame) {
  switch (static_cast<FrameType>(frame.header.type)) {
    case FrameType::map:
    case FrameType::protect: return on_layout(frame);
    case FrameType::drop:
      if (frame.header.argument == 1) return on_layout(frame);
      engine_->on_frame(home, frame);
      return;
    case FrameType::layout_ack: {
      FrameHeader header;
      header.argument = frame.header.argument;
      lanes_->send(home, FrameType::layout_ack, header);
      return;
    }
    case FrameType::setup:
      return guests_.set_rule(
          std::string(reinterpret_cast<const char*>(frame.payload.data()), frame.payload.size()),
          frame.header.argument);
    case FrameType::jump: return guests_.on_jump(home, frame, may_host(home) ? lease_threads_ : 0);
    case FrameType::give_back:
      if (!draining_) start_draining();
      return;
    case FrameType::recall: return guests_.on_recall(frame.header.argument);
    case FrameType::thread_end: return guests_.on_thread_end(frame.header.argument);
    case FrameType::reset: return on_reset(frame.header.argument);
    case FrameType::bye: {
      home.left = true;
      const std::vector<uint8_t> bytes = encode_counters(counters_);
      const iovec part{const_cast<uint8_t*>(bytes.data()), bytes.size()};
      lanes_->send(home, FrameType::stats, {}, {&part, 1});
      return stop("the process ended", 0);
    }
    case FrameType::ack: return;  // the lane has read it
    default: engine_->on_frame(home, frame);
  }
}

// map, protect, and the end of a mapping, as home did them.
void Peer::on_layout(const Frame& frame) {
  if (regions_.size() >= kRegionsMax) throw Failure("home told of more mappings than a process can have");
  const FrameHeader& header = frame.header;
  const uint64_t first = header.page, end = header.page + header.count;
  if (static_cast<FrameType>(header.type) == FrameType::protect) {
    if (guests_.has_shell()) memory_.protect(first, header.count, static_cast<int>(header.argument));
    regions_.update(first, end, [&](Region& region) { region.prot = static_cast<int>(header.argument); });
    return;
  }
  if (static_cast<FrameType>(header.type) == FrameType::drop) {
    engine_->release_replicas(first, end);
    regions_.erase(first, end);
    if (guests_.has_shell()) memory_.unmap(first, header.count);
    return;
  }
  RegionPayload payload;
  memcpy(&payload, frame.payload.data(), sizeof payload);
  Region region;
  region.start = payload.start_page;
  region.end = payload.start_page + payload.page_count;
  region.prot = static_cast<int>(payload.prot);
  region.kind = payload.kind == kRegionReplica ? RegionKind::replica : RegionKind::elastic;
  engine_->release_replicas(region.start, region.end);
  regions_.insert(region);
  if (guests_.has_shell() && memory_.map_closed(region.start, region.end - region.start, region.prot) != 0)
    throw Failure("the shell process cannot map what home mapped");
}

void Peer::on_reset(uint32_t image) {
  if (memory_.attached()) loop_.forget(memory_.uffd().fd());
  guests_.end_shell();
  engine_->reset();
  regions_.clear();
  memory_.reset();
  lanes_->image = image;
  for (auto& [index, node] : lanes_->all())
    if (index != kHome) node->synced = false;
  tell_room();
}

void Peer::on_child_events() {
  signalfd_siginfo info[16];
  while (read(signal_fd_.get(), info, sizeof info) > 0) {
  }
  for (;;) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, __WALL | WNOHANG);
    if (pid <= 0) return;
    if (pid == guests_.shell_pid() && !WIFSTOPPED(status)) throw Failure("the shell process ended");
    guests_.on_stop(pid, status);
  }
}

void Peer::on_faults() {
  FaultEvent events[32];
  const size_t count = memory_.uffd().read_faults(events);
  for (size_t i = 0; i < count; i++) {
    guests_.note_fault(events[i]);
    engine_->on_fault(events[i]);
  }
}

void Peer::tick() {
  loop_.at(now_us() + kTickUs, [this] { tick(); });
  const uint64_t now = now_us();
  tell_room();
  for (auto& [index, node] : lanes_->all()) lanes_->acknowledge(*node);
  pages_allowed_ = std::max(lease_pages_, std::min(pages_allowed_, engine_->resident()));
  silence_->look();
  if (loop_.stopped()) return;
  engine_->look_for_overdue();
  guests_.share_processors(now);
  watch_tables();
  Node* home = lanes_->find(kHome);
  if (!home_seen_ && now - started_us_ > kFirstLaneUs) return stop("home never came", 1);
  if (home == nullptr || !home->up) return;
  const std::vector<uint8_t> bytes = encode_counters(counters_);
  const iovec part{const_cast<uint8_t*>(bytes.data()), bytes.size()};
  lanes_->send(*home, FrameType::stats, {}, {&part, 1});
  if (now - lease_report_us_ > 1'000'000) {
    lease_report_us_ = now;
    control_->to_agents(
        {ControlType::lease_renewed,
         {static_cast<int64_t>(home->lease.id), static_cast<int64_t>(home->lease.ttl_us / 1000)},
         {}});
  }
  if (draining_) go_on_draining(*home);
}

}  // namespace elastic
