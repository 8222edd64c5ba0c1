// The home pager: tracer of the application, keeper of its kernel state, and the authority over where its
// threads are, what is mapped, and who may join. The engine does the paging; this class does everything else.
//
// Files: home.cpp (life and control), home_stops.cpp (what the application's tasks report), home_calls.cpp
// and home_mmap.cpp (calls that change mappings), home_advice.cpp (advice), home_exit.cpp (ends of threads),
// home_direct.cpp and home_aio.cpp (direct I/O), home_limits.cpp (resource limits), home_maps.cpp
// (/proc/self/maps), home_refused.cpp (what cannot work), home_convert.cpp (a new image's memory),
// home_fork.cpp (forks), home_children.cpp and home_child_calls.cpp (children that have not had all their
// memory), home_jumps.cpp (threads that leave and come back), home_nodes.cpp (participants), home_stats.cpp.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "call_pages.hpp"
#include "direct_io.hpp"
#include "engine.hpp"
#include "facts.hpp"
#include "holder.hpp"
#include "jump.hpp"
#include "page_summary.hpp"
#include "policy.hpp"
#include "proc_maps.hpp"
#include "signals.hpp"
#include "silence.hpp"
#include "snapshot.hpp"
#include "tracee.hpp"

namespace elastic {

// Native pages for the kernel to read: a prctl_mm_map, then the program's arguments and environment.
constexpr uint64_t kArgumentsAt = kTrampoline + (1 << 16);

struct HomeOptions {
  std::string id;
  std::string socket_path;
  std::string node_name = "home";
  std::string policy = "always-pull";
  std::string spill_dir;
  uint64_t memory_pages = 0;
  uint64_t spill_bytes_max = 0;
  uint64_t jump_every = 0;
  int run_fd = -1;
  std::string program_path;
  std::vector<std::string> arguments;
  SignalSet ignored = 0;  // as this process was started
  rlimit file_sizes{};    // the same
};

// How the run ended, as EXITED reports it.
struct Ending {
  int kind = 0;  // 0 exit, 1 signal, 2 elasticos failed, 3 cannot execute, 4 not found
  int code = 0;
  std::string message;
};

enum class ThreadState {
  running,
  held,       // stopped by us: an operation of its own waits for other nodes
  to_jump,    // interrupt sent; its stop makes it leave
  away,       // its guest runs on `node`; the task here is stopped or, soon, parked
  recalling,  // away, and asked to come home
};

struct Thread {
  pid_t tid = 0;
  uint32_t slot = 0;  // its number on the lanes
  ThreadState state = ThreadState::running;
  bool in_group = true;  // a thread of the application, not a vfork child that borrows its memory
  uint16_t node = 0;     // where it is (away, recalling) or wants to go (to_jump)
  uint64_t fault_page = 0;
  uint64_t jump_started_ns = 0;
  uint32_t stay_faults = 0;  // it came back because a page could not leave here: so many faults are pulled
  ThreadRule rule{};
  Fd syscall_file, schedstat_file;  // of /proc/PID/task/TID
  WorkingSet working_set;
  KnownXstate xstate;            // of its task, while it is away
  bool parked = false;           // away, its task waits in pause()
  user_regs_struct call{};       // registers at the entry of the call being handled
  bool wants_exit_stop = false;  // resumed to the end of a native call
  uint64_t clear_tid_address = 0;
  std::vector<uint64_t> pinned;  // until the call ends
  std::vector<uint64_t> kept;    // until the thread ends
  PinnedPages::Id pins = 0;      // of a direct read or an io_submit
  std::optional<SplitRead> split;
  std::optional<AioSubmission> submission;
  std::map<uint64_t, AioContext>::node_type ending_aio;  // of an io_destroy
  std::vector<int> signals;                              // arrived while away
  int64_t call_result = 0;
  bool forking = false, stepped = false;  // stepped, by the trap flag, while away: the next SIGTRAP is its
  bool changing = false;                  // memory, by a call that has begun: forks wait for its end
  uint64_t child_tid_address = 0;         // of a fork in progress: where the child's tid goes, 0 nowhere
};

class Home : public EngineHost, public LaneEvents {
 public:
  explicit Home(HomeOptions options);
  ~Home() override;
  // Runs to the end; the exit status for the pager process itself is 0 (the ending has been reported).
  Ending run();

 private:
  // EngineHost
  bool leave_for(const FaultEvent& fault, uint16_t owner) override;
  void on_local_fault(const FaultEvent& fault) override;
  bool threads_here() const override;
  bool threads_may_run() const override { return true; }
  bool threads_stay() const override { return !rule_.may_jump(); }
  bool fill_from_backing(uint64_t page, uint8_t* out) override;
  void must_go_home(uint64_t) override {}
  void want_lane(uint16_t) override {}
  void out_of_room(uint64_t page) override;
  void tell_room() override;
  void before_change(uint64_t page) override;
  // LaneEvents
  void on_up(Node& node) override;
  void on_down(Node& node, const std::string& reason) override;
  void on_frame(Node& node, const Frame& frame, bool bulk) override;
  void on_refused(const std::string& reason) override;
  void on_drained(Node& node) override;

  // home.cpp
  void on_control(const ControlMessage& message, bool from_run,
                  const std::function<void(const ControlMessage&)>& reply);
  void hand_on(int signal);
  void start_application();
  void prepare_image();
  void watch_image();
  void on_faults();
  void tick();
  void end(Ending ending);
  void fail(const char* message, int exit_status);
  void finish();
  void stay_with_children();
  ControlMessage describe() const;
  // home_nodes.cpp
  void add_lane(const ControlMessage& message);
  void update_lease(const ControlMessage& message);
  void drop_participant(uint16_t index);
  void drain_nodes();
  void send_layout(Node& node);
  void send_region(Node& node, const Region& region);
  void lost(Node& node, const std::string& reason);
  void on_bye(Node& node, const Frame& frame);
  void remember(const Node& node);
  void serve_file_pages(Node& node, const FrameHeader& header);
  // home_stops.cpp
  void on_child_events();
  void take_stops();
  void on_stop(pid_t pid, int status);
  void on_task_end(pid_t pid, int status);
  void on_thread_stop(Thread& thread, int status);
  void on_unknown_stop(pid_t pid);
  void end_orphans();
  void on_new_task(Thread& parent);
  void on_exec(pid_t pid);
  void on_signal(Thread& thread, int signal);
  Thread& add_thread(pid_t tid, bool in_group);
  uint64_t count_threads_here() const;
  Thread* find_thread(pid_t tid);
  Thread* thread_of_slot(uint32_t slot);
  void forget_thread(pid_t tid);
  // home_calls.cpp
  void on_call(Thread& thread);
  void on_call_end(Thread& thread);
  bool waits_for_fork(Thread& thread);
  bool waits_for_children(Thread& thread);
  bool is_reserved(uint64_t address, uint64_t bytes) const;
  int reserved_error(const user_regs_struct& r) const;
  void answer(Thread& thread, int64_t result);  // completes an emulated call, after acks if threads are away
  void on_layout_ack(uint32_t ticket, uint16_t node);
  void complete(Thread& thread);
  void run_native(Thread& thread, bool exit_stop);
  void call_brk(Thread& thread, uint64_t wanted);
  void call_futex(Thread& thread);
  void call_mprotect(Thread& thread);
  int protect_range(uint64_t first, uint64_t end, int prot);
  void tell_protect(uint64_t first, uint64_t end, int prot);
  void tell_range(FrameType type, FrameHeader header, uint64_t first, uint64_t end);
  void resync_native();
  // home_advice.cpp
  void call_madvise(Thread& thread);
  int all_mapped(uint64_t first, uint64_t end, int prot) const;
  int lock_memory(const user_regs_struct& r);
  // home_exit.cpp
  struct RobustWalk {
    uint64_t head = 0, at = 0;  // at: the entry to be looked at next
    uint32_t seen = 0;
  };
  void call_exit(Thread& thread);
  void prepare_ends(pid_t caller, std::vector<pid_t> ends, RobustWalk walk);
  bool keep_for_end(pid_t caller, const std::vector<pid_t>& ends, const RobustWalk& walk, uint64_t address,
                    uint64_t bytes);
  bool read_word(uint64_t address, uint64_t& word);
  void warn_of_core();
  void release(std::vector<uint64_t>& pinned);
  // home_direct.cpp
  bool is_direct(pid_t tid, int fd);
  bool has_own_filters(pid_t tid) const;
  bool stop_reads(pid_t tid);
  void check_inherited();
  void call_opens_direct(Thread& thread);
  std::vector<uint64_t> pages_read_into(const std::vector<iovec>& buffers) const;
  void with_memory(Thread& thread, const std::vector<iovec>& ranges,
                   std::function<void(Thread&, std::vector<uint8_t>)> then);
  void call_read(Thread& thread);
  void read_pinned(Thread& thread, const std::vector<iovec>& buffers);
  void run_with_pins(Thread& thread, std::vector<uint64_t> pages);
  void retry_call(Thread& thread);
  void too_much_to_pin(Thread& thread);
  bool shorten_read(Thread& thread, uint64_t bytes);
  void end_read(Thread& thread, user_regs_struct& r);
  // home_aio.cpp
  AioContext* aio_context(uint64_t address);
  void reap(uint64_t address, AioContext& context);
  void request_ended(AioContext& context, uint64_t request);
  void reap_all();
  void reap_while_waiting();
  void call_io_destroy(Thread& thread);
  void end_io_destroy(Thread& thread, bool destroyed);
  void finish_aio(pid_t injector);
  void call_io_submit(Thread& thread);
  void give_back(uint64_t address, uint64_t count);
  void look_at_requests(Thread& thread);
  void take_requests(Thread& thread, const std::vector<iocb>& requests, size_t index);
  void take_vector(Thread& thread, const std::vector<iocb>& requests, size_t index);
  bool take_buffers(Thread& thread, const std::vector<iovec>& buffers);
  void submit(Thread& thread, size_t count);
  void note_requests(const AioSubmission& submission, PinnedPages::Id pins);
  void end_io_submit(Thread& thread, user_regs_struct& r);
  // home_limits.cpp
  void place_stack(const Region& stack);
  void fit_stack();
  void move_limit(uint64_t pages);
  bool over_limits(uint64_t pages, int prot, uint64_t replaces) const;
  bool beyond_backing(uint64_t pages) const;
  // home_maps.cpp
  void call_open(Thread& thread);
  bool fetch_path(Thread& thread, uint64_t page);
  void after_open(Thread& thread, user_regs_struct registers);
  void fill_maps(pid_t tid, int number);
  std::string maps_text();
  Mapping shown_mapping(const Region& region);
  // home_refused.cpp
  void refuse_call(Thread& thread);
  void note_ptrace(pid_t caller, const user_regs_struct& r);
  void on_foreign_call(pid_t pid);
  void on_foreign_exec(pid_t pid);
  // home_mmap.cpp
  void call_mmap(Thread& thread);
  int64_t map_elastic(uint64_t address, uint64_t bytes, int prot, int flags,
                      std::shared_ptr<BackingFile> backing, uint64_t backing_page);
  uint64_t choose_address(uint64_t pages, int flags);
  uint64_t huge_page_bytes(const Thread& thread);
  void native_mmap(Thread& thread, uint64_t bytes);
  void after_native_mmap(Thread& thread, int64_t result);
  void call_munmap(Thread& thread);
  int64_t unmap_range(uint64_t first, uint64_t end);
  bool native_call_in_progress() const;
  void replaced(uint64_t first, uint64_t end);
  void call_mremap(Thread& thread);
  void after_native_mremap(const Thread& thread, int64_t result);
  void inherit_advice(const Region& from, uint64_t first, uint64_t end);
  void move_mapping(Thread& thread, uint64_t from, uint64_t old_pages, uint64_t to, uint64_t new_pages,
                    uint64_t next);
  void tell_unmapped(uint64_t first, uint64_t end);
  void tell_mapped(uint64_t first, uint64_t end);
  Fd take_descriptor(pid_t tid, int fd);
  // home_convert.cpp
  void convert_image();
  void convert_range(const Region& part, int prot);  // private file pages that become writable
  void copy_all(uint64_t first, uint64_t end);
  void copy_in(const Region& region, bool present_only);
  void move_arguments(uint64_t stack_first, uint64_t stack_end);
  // home_fork.cpp
  void call_clone(Thread& thread);
  bool fork_in_progress() const;
  void retry_held_calls();
  void call_fork(Thread& thread);
  void give_child_tid(const Thread& thread, pid_t child, const Fd& memory);
  void give_child_heap(pid_t child, const Fd& memory);
  bool await_first_stop(pid_t child);
  void on_fork_event(Thread& thread, pid_t child);
  void end_child(pid_t child, const std::string& why);
  void make_child(const Thread& thread, pid_t child);
  void watch_snapshot(Snapshot& snapshot, pid_t child);
  void share(const Region& region, Snapshot& snapshot);
  void finish_fork(Thread& thread);
  // home_children.cpp
  bool is_here(uint64_t page) const;
  void deliver(uint32_t id, uint64_t page);
  void unshare(uint64_t page);
  void give_up(uint32_t id, uint64_t page);
  void deliver_range(uint32_t id, uint64_t first, uint64_t end, std::function<void()> then);
  static void fill(Snapshot& snapshot, uint64_t page);
  static void fill_backed(Snapshot& snapshot, uint64_t first, uint64_t end);
  void on_child_faults(uint32_t id);
  void on_child_fault(Snapshot& snapshot, uint64_t page);
  void drop_snapshot(std::unique_ptr<Snapshot> snapshot);
  void tidy_snapshots();
  void hand_over_memory(bool files, std::function<void()> then);
  // home_child_calls.cpp
  bool on_child_stop(pid_t pid, int status);
  void on_child_call(pid_t pid, SnapshotTask& task);
  void child_goes_on(pid_t pid, bool exit_stop);
  void child_fails(pid_t pid, SnapshotTask& task, int error);
  void child_needs(pid_t pid, std::vector<uint64_t> pages, bool exit_stop);
  void child_needs_range(pid_t pid, CallRange range, bool exit_stop);
  void child_exits(pid_t pid, bool group);
  void on_child_advice(pid_t pid, const SnapshotTask& task);
  void on_child_call_end(pid_t pid, SnapshotTask& task);
  void on_child_clone(pid_t pid, SnapshotTask& task);
  bool on_child_birth(pid_t pid, const SnapshotTask& task);
  void make_grandchild(const Snapshot& parent, pid_t child);
  // home_jumps.cpp
  void try_finish_jump(Thread& thread, int status);
  void jump_out(Thread& thread);
  void send_context(Node& node, Thread& thread, const Context& context);
  void park_soon();
  void park_all();
  void park(Thread& thread);
  void on_back(Node& node, const Frame& frame);
  void resume_at_home(Thread& thread, Context& context);
  void recall(Thread& thread);
  bool may_host(const Node& node) const;
  void stay_and_pull(Thread& thread);
  // home_stats.cpp
  std::string stats_json() const;
  void request_summary(std::function<void(const ControlMessage&)> reply);
  void continue_summary();

  HomeOptions options_;
  Loop loop_;
  Counters counters_;
  std::unique_ptr<Control> control_;
  Holder holder_;
  Memory memory_;
  PageTable table_;
  RegionMap regions_;
  std::unique_ptr<Spill> spill_;
  std::unique_ptr<Lanes> lanes_;
  std::unique_ptr<Silence> silence_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<PinnedPages> pins_;
  std::map<uint64_t, AioContext> aio_;  // by the address of the ring
  bool reaps_soon_ = false;
  bool reads_stop_ = false;  // by the second filter
  JumpRule rule_;
  bool parking_ = false;  // the timer is set
  Fd signal_fd_;          // SIGCHLD
  Fd group_signals_;      // kHandedOn
  SignalSet group_had_ = 0;
  pid_t application_ = 0;
  bool started_ = false;
  bool draining_nodes_ = false;
  bool ending_ = false;
  Ending ending_value_;
  uint64_t start_us_ = 0, end_us_ = 0, started_wall_ms_ = 0, finish_at_us_ = 0;
  std::unordered_map<pid_t, std::unique_ptr<Thread>> threads_;
  std::map<uint32_t, pid_t> slots_;
  uint32_t next_slot_ = 1;
  const bool may_gain_ = !cannot_gain();  // rights, by executing a setuid program
  std::set<long> told_refused_;           // calls of which the user has been told that they cannot work
  std::set<pid_t> foreign_;               // other processes of the application's tree: they run natively
  std::map<pid_t, int> early_;  // stopped before their creator's event, or before they are copied; ticks
  uint64_t brk_start_ = 0, brk_now_ = 0;
  uint64_t reserved_end_ = kTrampoline + kTrampolineBytes;  // address
  uint64_t stack_first_ = 0, stack_end_ = 0;                // pages
  uint64_t stack_made_first_ = 0;                           // as exec made it
  static constexpr uint64_t kStackGapPages = 256;           // between the stack and the mappings below it
  bool locks_new_ = false;                                  // mlockall: what is mapped from now on
  uint64_t mmap_top_ = 0;                                   // page: new mappings lie below
  uint32_t next_ticket_ = 1;
  struct Awaited {
    pid_t tid;
    uint64_t nodes;  // a bit for each
  };
  std::map<uint32_t, Awaited> tickets_;  // layout acknowledgements awaited
  Fd memory_view_;                       // /proc/PID/mem
  std::vector<Contribution> departed_;   // of participants that are gone, the last one at the end
  Counters departed_counters_;
  uint64_t next_room_report_us_ = 0;
  PageSummary summary_;
  std::vector<std::function<void(const ControlMessage&)>> summary_waiters_;  // while it is made
  Snapshots snapshots_;
  bool sharing_ = false;           // pages may be marked as shared
  std::vector<pid_t> held_calls_;  // forks, and calls that wait for their end
  std::optional<Ending> parting_;  // how the application ended, whose children get its memory now
  uint64_t children_ = 0;          // processes the application forked: not elastic
};

}  // namespace elastic
