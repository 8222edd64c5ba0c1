// The conformance mode of the pager: the elastic page table port, as the production classes provide it
// (Memory, Uffd, PageTable, RegionMap, Injector, the tracee functions), on a real traced program, driven over
// a pipe by the suite in test/conformance. The protocol is written at the top of kmod/userfaultfd.ts.
//
// Limits: the program is our own guest with two threads; one request at a time; nothing here runs in a real
// stretch.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "memory.hpp"
#include "regions.hpp"
#include "table.hpp"
#include "tracee.hpp"

namespace elastic {

enum class Refusal : uint32_t {
  bad_range,
  unmapped,
  already_mapped,
  already_resident,
  not_resident,
  no_such_thread,
  not_in_user_mode,
  not_parked,
  bad_context,
  gone,
};
// Nothing: done.
using Refused = std::optional<Refusal>;

struct PageRange {
  uint64_t first;
  uint64_t count;
  uint64_t end() const { return first + count; }
};

enum class FaultCause : uint32_t { untouched, away, protected_page };

struct AnnouncedFault {
  uint64_t page;
  bool write;
  pid_t thread;
  bool user_mode;
  FaultCause cause;
};

// The guest: a traced program with threads that touch pages on command (conformance_guest.cpp).
class GuestProcess {
 public:
  // Launches `program conformance-guest …`; throws Failure.
  GuestProcess(Memory& memory, const std::string& program);
  ~GuestProcess();
  const std::vector<pid_t>& threads() const { return threads_; }
  bool gone() const { return gone_; }
  bool has(pid_t thread) const;
  void start(pid_t thread, uint32_t kind, uint64_t address, uint64_t argument);
  // 0 running, 1 done, 2 segmentation fault; the value that was read.
  uint32_t result(pid_t thread, uint64_t& value);
  bool in_user_mode(pid_t thread) const;
  // False if the thread ended or did not stop.
  bool park(pid_t thread, Context& context);
  void pump();  // handles the stops there are, without blocking

 private:
  struct Mailbox {
    Fd commands;
    Fd replies;
  };
  void handle_stop(pid_t tid, int status);
  pid_t pid_ = 0;
  bool gone_ = false;
  std::vector<pid_t> threads_;
  std::vector<Mailbox> mailboxes_;
};

// The operations of kmod/port.ts, one method each.
class ConformanceTable {
 public:
  explicit ConformanceTable(const std::string& guest_program);
  GuestProcess& guest() { return *guest_; }
  Refused map(PageRange range, uint64_t access);
  Refused unmap(PageRange range);
  Refused protect(PageRange range, uint64_t access);
  uint64_t state(uint64_t page) const;
  std::optional<AnnouncedFault> next_fault(uint64_t wait_ms);
  Refused place(PageRange range, std::span<const uint8_t> contents, bool zero, bool write_protected);
  Refused allow_write(PageRange range);
  Refused evict(PageRange range, std::string& contents);
  Refused scan_accessed(PageRange range, std::vector<uint64_t>& found);
  Refused scan_written(PageRange range, std::vector<uint64_t>& found);
  Refused park(pid_t thread, std::vector<uint8_t>& context);
  Refused resume_with(pid_t thread, std::span<const uint8_t> context);
  uint64_t resident() const { return table_.resident(); }
  uint64_t faults = 0, pages_placed = 0, pages_evicted = 0;

 private:
  struct Waiting {
    FaultEvent fault;
    bool announced = false;
    std::set<pid_t> threads;
  };
  Refused check(PageRange range) const;
  Refused check_mapped(PageRange range) const;
  Refused check_resident(PageRange range) const;
  void read_faults();
  std::optional<AnnouncedFault> announce();
  void wake(PageRange range);

  Memory memory_;
  PageTable table_;
  RegionMap regions_;
  std::set<uint64_t> protected_;
  std::map<uint64_t, Waiting> waiting_;
  std::set<pid_t> parked_;
  std::unique_ptr<GuestProcess> guest_;  // last: ends before the memory it runs on
};

// `elasticos-pager conformance [PAGER]`: serves requests from standard input until it closes. Exit status 0,
// or 125. PAGER is the program that runs as guest, this one unless given: a sanitizer build cannot be a
// guest, for the trampoline lies where its shadow memory has to be.
int conformance(int argc, char** argv);
// `elasticos-pager conformance-guest FD…`: the program itself; two descriptors a thread (commands, replies).
int conformance_guest(int argc, char** argv);

}  // namespace elastic
