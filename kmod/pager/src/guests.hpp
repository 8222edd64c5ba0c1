// Guest threads of one participant: application threads while they run in its shell process. They compute and
// fault; every system call, signal and instruction that only home can execute sends them home.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>

#include "engine.hpp"
#include "jump.hpp"
#include "processor_share.hpp"
#include "shell.hpp"

namespace elastic {

struct Guest {
  pid_t tid = 0;
  pid_t own_tid = 0;  // in the shell's pid namespace
  uint32_t slot = 0;  // 0: free for the next thread that comes
  bool running = false;
  bool leaving = false;  // interrupted on purpose; its stop sends it off
  bool halted = false;   // running, but in a stop: the processor time of all is used up
  BackReason why = BackReason::jump;
  uint16_t to = kHome;
  uint64_t fault_page = 0;
  uint64_t rip = 0;
  ThreadRule rule{};
  Fd syscall_file, schedstat_file;  // of /proc/PID/task/TID
  WorkingSet working_set;
  KnownXstate xstate;  // of its task, while it does not run
};

class Guests {
 public:
  Guests(Memory& memory, RegionMap& regions, Lanes& lanes, Counters& counters,
         std::function<void(const std::string&)> warn);
  ~Guests() { end_shell(); }
  void set_engine(Engine* engine) { engine_ = engine; }
  void set_rule(const std::string& policy, uint64_t jump_every);
  bool has_shell() const { return shell_.pid > 0; }
  pid_t shell_pid() const { return shell_.pid; }
  // Called when a shell came into being, so that its userfaultfd is watched.
  std::function<void()> on_shell;

  void on_jump(Node& home, const Frame& frame, uint32_t threads_max);
  void on_recall(uint32_t slot);
  void on_thread_end(uint32_t slot);
  void on_stop(pid_t tid, int status);
  void note_fault(const FaultEvent& fault);
  bool leave_for(const FaultEvent& fault, uint16_t owner);
  void on_local_fault(const FaultEvent& fault);
  void must_go_home(uint64_t page);
  void all_go_home();
  uint32_t running() const { return running_; }
  bool may_jump() const { return rule_ != nullptr && rule_->may_jump(); }
  void set_processors(uint64_t thousandths) { share_.set(thousandths); }
  void share_processors(uint64_t now_us);  // to be called ten times a second
  void end_shell();                        // a new image, or the end

 private:
  void make_shell();
  Guest* by_own_tid(pid_t tid);
  Guest* by_slot(uint32_t slot);
  Guest* take_guest(uint32_t slot, size_t tasks_max);
  void send_off(Guest& guest, BackReason why, uint16_t to);
  void go(Guest& guest, BackReason why, uint16_t to);
  void refuse(Node& home, const Frame& frame, const std::string& reason);
  void set_running(Guest& guest, bool running);
  void let_run(Guest& guest);

  Memory& memory_;
  RegionMap& regions_;
  Lanes& lanes_;
  Counters& counters_;
  std::function<void(const std::string&)> warn_;
  Engine* engine_ = nullptr;
  std::unique_ptr<JumpRule> rule_;
  ShellProcess shell_;
  std::map<pid_t, std::unique_ptr<Guest>> guests_;
  uint32_t running_ = 0;
  ProcessorShare share_;
  uint64_t used_us_ = 0;  // processor time of all tasks of the shell when it was last looked at
  bool halted_ = false;
};

}  // namespace elastic
