// The userfaultfd of one address space: registration, placing pages, write-protection, waking. Every errno of
// every ioctl is classified once, here: again (retried), already there / not mapped (a value), gone (a
// value), bug.
//
// Synchronous write-protect only: the asynchronous mode is a property of the whole context and loses the
// writes that an eviction relies on seeing.
#pragma once

#include <linux/userfaultfd.h>

#include <cstdint>
#include <span>

#include "injector.hpp"
#include "util.hpp"

namespace elastic {

enum class Placed { ok, already, unmapped, gone };

struct FaultEvent {
  uint64_t page = 0;
  uint64_t address = 0;
  int32_t tid = 0;  // as the faulting thread sees itself in its pid namespace
  bool write = false;
  bool write_protected = false;  // the page is there, but protected
};

class Uffd {
 public:
  Uffd() = default;
  // Creates it in the injector's address space. `device` is the injector's number for an open
  // /dev/userfaultfd, or -1; `user_mode_only` for shells, which need no privilege. Throws Failure naming the
  // remedy.
  static Uffd create(Injector& injector, int device, bool user_mode_only);

  int fd() const { return fd_.get(); }
  explicit operator bool() const { return static_cast<bool>(fd_); }

  // -errno on failure; 0 on success. Ranges in page numbers.
  int watch(uint64_t page, uint64_t count, bool protectable = true);
  Placed copy(uint64_t page, const uint8_t* data, uint64_t count, uint64_t& done,
              bool write_protected = false);
  Placed zero(uint64_t page, uint64_t count, uint64_t& done);
  void write_protect(uint64_t page, uint64_t count);
  void write_unprotect(uint64_t page, uint64_t count);  // wakes too
  void wake(uint64_t page, uint64_t count);
  // Up to `events.size()` faults, without blocking.
  size_t read_faults(std::span<FaultEvent> events);

 private:
  void set_protection(uint64_t page, uint64_t count, uint64_t mode);
  Fd fd_;
};

}  // namespace elastic
