// Life of a home pager: start, control messages, the regular tick, the end. See home.hpp.
#include "home.hpp"
#include "launch.hpp"
#include "privileges.hpp"
#include "spill_file.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>
#include <system_error>

namespace elastic {

namespace {
constexpr uint64_t kTickUs = 100'000;
constexpr uint64_t kLastWordsUs = 300'000;  // for the participants' last counters

uint64_t process_number(const std::string& id) { return strtoull(id.c_str(), nullptr, 16); }

std::unique_ptr<Spill> make_spill(const std::string& directory, uint64_t bytes_max) {
  if (const std::string refusal = spill_refusal(directory); !refusal.empty()) throw Failure(refusal);
  try {
    return std::make_unique<Spill>(directory, bytes_max);
  } catch (const std::system_error& error) {
    throw Failure(error.what());
  }
}
}  // namespace

Home::Home(HomeOptions options) : options_(std::move(options)), rule_(options_.policy, options_.jump_every) {
  sigset_t blocked;
  sigemptyset(&blocked);
  for (const int signal : kHandedOn) sigaddset(&blocked, signal);
  sigprocmask(SIG_BLOCK, &blocked, nullptr);
  group_signals_.reset(signalfd(-1, &blocked, SFD_NONBLOCK | SFD_CLOEXEC));
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGCHLD);
  sigprocmask(SIG_BLOCK, &blocked, nullptr);
  signal_fd_.reset(signalfd(-1, &blocked, SFD_NONBLOCK | SFD_CLOEXEC));
  if (options_.run_fd >= 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
  started_wall_ms_ = wall_ms();
  control_ = std::make_unique<Control>(
      loop_, options_.socket_path, options_.run_fd,
      [this](const ControlMessage& m, bool run, const auto& reply) { on_control(m, run, reply); },
      [this] {
        end({2, 125, "run ended"});
      });
  spill_ = make_spill(options_.spill_dir, options_.spill_bytes_max);
  lanes_ = std::make_unique<Lanes>(loop_, process_number(options_.id), kHome, *this, counters_);
  silence_ = std::make_unique<Silence>(loop_, *lanes_, *control_);
  engine_ = std::make_unique<Engine>(loop_, memory_, table_, regions_, *lanes_, *spill_, *this,
                                     EngineConfig{kHome, options_.memory_pages}, counters_);
  pins_ = std::make_unique<PinnedPages>(loop_, *engine_, options_.memory_pages / PinnedPages::kPart,
                                        [this](std::vector<uint64_t>& pages) { release(pages); });
  loop_.after_each_round([this] {
    drain_nodes();
    retry_held_calls();
    tidy_snapshots();
  });
  loop_.watch(signal_fd_.get(), EPOLLIN, [this](uint32_t) { on_child_events(); });
  loop_.watch(spill_->event_fd(), EPOLLIN, [this](uint32_t) { spill_->drain(); });
  loop_.at(now_us() + kTickUs, [this] { tick(); });
}

Home::~Home() = default;

Ending Home::run() {
  if (options_.run_fd < 0) start_application();
  while (!loop_.stopped()) {
    try {
      loop_.run();
    } catch (const Failure& failure) {
      fail(failure.what(), failure.exit_status());
    } catch (const std::system_error& error) {
      fail(error.what(), 125);
    }
  }
  finish();
  if (!foreign_.empty()) stay_with_children();
  return ending_value_;
}

ControlMessage Home::describe() const {
  return {ControlType::describe,
          {0, getpid(), application_, kHome, 0, static_cast<int64_t>(engine_->limit()),
           static_cast<int64_t>(lanes_->epoch), static_cast<int64_t>(geteuid()),
           static_cast<int64_t>(started_wall_ms_)},
          {options_.id, options_.program_path, options_.node_name}};
}

void Home::on_control(const ControlMessage& message, bool from_run,
                      const std::function<void(const ControlMessage&)>& reply) {
  switch (message.type) {
    case ControlType::hello:
      reply(describe());
      for (const auto& [index, node] : lanes_->all())
        if (node->up) reply({ControlType::lane_up, {index}, {node->name}});
      return;
    case ControlType::stats_request: return reply({ControlType::stats, {}, {stats_json()}});
    case ControlType::pages_request: return request_summary(reply);
    case ControlType::owned_request:
      if (threads_stay()) return reply({ControlType::owned, {}, {""}});  // nobody else ever misses a page
      return engine_->look_for_owned([reply](const auto& ranges) {
        reply({ControlType::owned, {}, {pack_owned(ranges)}});
      });
    case ControlType::lane: return add_lane(message);
    case ControlType::lease_update: return update_lease(message);
    case ControlType::limit: return move_limit(static_cast<uint64_t>(message.numbers[0]));
    case ControlType::node_verdict: return silence_->on_verdict(message);
    case ControlType::participant_drop: return drop_participant(static_cast<uint16_t>(message.numbers[0]));
    case ControlType::terminate: return end({2, 125, "stopped: " + message.strings[0]});
    case ControlType::start:
      if (from_run && !started_) start_application();
      return;
    case ControlType::signal:
      if (from_run && application_ > 0 && message.numbers[0] > 0 && message.numbers[0] < 65)
        hand_on(static_cast<int>(message.numbers[0]));
      return;
    default: return;
  }
}

// What `run` has received. If the whole group was signalled the program has had it: then so has this process.
void Home::hand_on(int signal) {
  signalfd_siginfo info;
  while (read(group_signals_.get(), &info, sizeof info) == sizeof info)
    group_had_ |= SignalSet{1} << (info.ssi_signo - 1);
  const SignalSet bit = SignalSet{1} << (signal - 1);
  const bool had = (group_had_ & bit) != 0;
  group_had_ &= ~bit;
  if (!had || getpgid(application_) != getpgrp()) kill(application_, signal);
}

void Home::start_application() {
  started_ = true;
  start_us_ = now_us();
  const Launched launched =
      launch(options_.program_path, options_.arguments, options_.ignored, options_.file_sizes);
  if (launched.exec_error != 0) {
    const int error = launched.exec_error;
    return end({error == ENOENT ? 4 : 3, error == ENOENT ? 127 : 126,
                format("cannot execute %s: %s", options_.program_path.c_str(), strerror(error))});
  }
  application_ = launched.pid;
  keep_privileges(kTracerKeeps);  // not before: the application has all that it would have alone
  raise_descriptor_limit();       // not the application's: each child takes one here
  add_thread(application_, true);
  prepare_image();
  control_->to_all({ControlType::started, {application_}, {}});
  resume(application_);
}

// The application's leader is stopped at its exec event: makes the new image elastic.
void Home::prepare_image() {
  attach_memory(application_, memory_);
  holder_.keep(memory_.uffd().fd(), application_);
  memory_view_.reset(open_process_memory(application_).release());
  convert_image();
  check_inherited();
  for (auto& [index, node] : lanes_->all()) send_layout(*node);
  watch_image();
}

void Home::watch_image() {
  loop_.watch(memory_.uffd().fd(), EPOLLIN, [this](uint32_t) { on_faults(); });
}

void Home::on_faults() {
  FaultEvent events[32];
  const size_t count = memory_.uffd().read_faults(events);
  for (size_t i = 0; i < count; i++) {
    if (Thread* thread = find_thread(events[i].tid)) {
      thread->fault_page = events[i].page;
      thread->working_set.on_fault(events[i].page);
    }
    if (memory_.is_vacant(events[i].page)) memory_.unmap_vacant();
    engine_->on_fault(events[i]);
  }
}

void Home::on_local_fault(const FaultEvent& fault) {
  if (Thread* thread = find_thread(fault.tid)) rule_.on_local(thread->rule);
}

bool Home::fill_from_backing(uint64_t page, uint8_t* out) {
  const Region* region = regions_.find(page);
  return region != nullptr && region->read_backing(page, out);
}

void Home::out_of_room(uint64_t page) {
  throw Failure(
      format("no room for page %#lx: memory limit, lenders and spill space are all used up; give more with "
             "--memory, more agents, or space in the data directory",
             page));
}

void Home::tick() {
  loop_.at(now_us() + kTickUs, [this] { tick(); });
  tell_room();
  for (auto& [index, node] : lanes_->all()) lanes_->acknowledge(*node);
  silence_->look();
  engine_->look_for_overdue();
  end_orphans();
  reap_all();
  if (started_ && !ending_) engine_->bring_home();
  const uint64_t now = now_us();
  if (started_ && !ending_ && now >= next_room_report_us_ && table_.resident() * 10 > engine_->limit() * 8) {
    next_room_report_us_ = now + 1'000'000;
    control_->to_agents({ControlType::room_wanted, {static_cast<int64_t>(engine_->limit())}, {}});
  }
  static_assert(kTickUs == 100'000);
  if (now / 300'000 != (now - kTickUs) / 300'000) control_->to_run({ControlType::stats, {}, {stats_json()}});
  if (ending_ && now >= finish_at_us_) loop_.stop();
}

// After the application's own end, only children can suffer from it.
void Home::fail(const char* message, int exit_status) {
  if (!parting_) return end({2, exit_status, message});
  control_->log(LogLevel::warning,
                format("children were ended that had not had all their memory: %s", message));
  snapshots_.kill_all();
  end(*parting_);
}

// First ending wins. The application dies now; participants get a moment for their last counters.
void Home::end(Ending ending) {
  if (ending_) return;
  ending_ = true;
  end_us_ = now_us();
  ending_value_ = std::move(ending);
  if (application_ > 0) kill(application_, SIGKILL);
  if (memory_.attached()) loop_.forget(memory_.uffd().fd());
  bool anybody = false;
  for (auto& [index, node] : lanes_->all())
    anybody = lanes_->send_text(*node, FrameType::bye, "ended") || anybody;
  lanes_->flush();
  lanes_->resumes = false;
  finish_at_us_ = now_us() + (anybody ? kLastWordsUs : 0);
  if (!anybody) loop_.stop();
}

void Home::finish() {
  if (memory_.injector()) kill(memory_.injector().tid(), SIGKILL);
  if (application_ > 0) kill(application_, SIGKILL);
  finish_aio(memory_.injector().tid());
  for (const auto& [tid, thread] : threads_)
    if (!thread->in_group) kill(tid, SIGKILL);  // borrows the application's memory, which ends now
  // Children that the program left behind live on after its own end, as without us, but not after ours.
  if (ending_value_.kind > 1) foreign_.clear();
  if (!foreign_.empty()) prctl(PR_SET_PDEATHSIG, 0);
  holder_.release();
  control_->to_all({ControlType::stats, {}, {stats_json()}});
  control_->to_all({ControlType::exited,
                    {ending_value_.kind, ending_value_.code, static_cast<int64_t>(foreign_.size())},
                    {ending_value_.message}});
  control_->last_words(1000);
}

// What is left needs its tracer, because the filter it inherited asks one; it holds no elastic memory.
void Home::stay_with_children() {
  threads_.clear();
  control_.reset();
  engine_.reset();
  lanes_.reset();
  spill_.reset();
  memory_.reset();
  table_.clear();
  const Fd nothing(open("/dev/null", O_RDWR | O_CLOEXEC));
  for (const int standard : {0, 1, 2}) dup2(nothing.get(), standard);
  if (chdir("/") != 0) return;
  while (!foreign_.empty()) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, __WALL);
    if (pid < 0 && errno != EINTR) return;
    if (pid <= 0) continue;
    if (WIFSTOPPED(status)) {
      on_stop(pid, status);
    } else {
      foreign_.erase(pid);
      early_.erase(pid);
    }
  }
}

}  // namespace elastic
