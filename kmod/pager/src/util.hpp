// Small things every part of the pager needs: owned descriptors, the clock, and the one way to give up.
// `Failure` is the pager's only exception for the environment: it carries the one line the user reads.
#pragma once

#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace elastic {

constexpr uint64_t kPageBytes = 4096;
constexpr int kPageShift = 12;
constexpr uint64_t kUserSpaceEnd = (1ull << 47) - kPageBytes;  // the last page is nobody's (TASK_SIZE_MAX)

// A descriptor that closes itself.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~Fd() { reset(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

// The run cannot go on; `what()` is one line for the user, `exit_status` what `run` exits with.
class Failure : public std::runtime_error {
 public:
  explicit Failure(const std::string& message, int exit_status = 125)
      : std::runtime_error(message), exit_status_(exit_status) {}
  int exit_status() const { return exit_status_; }

 private:
  int exit_status_;
};

// printf-style string; at most 1023 characters.
[[gnu::format(printf, 1, 2)]] std::string format(const char* pattern, ...);
// Failure with ": strerror(errno)" appended.
[[noreturn, gnu::format(printf, 1, 2)]] void fail_errno(const char* pattern, ...);

uint64_t now_us();                // CLOCK_MONOTONIC, microseconds
void stop_clock(uint64_t at_us);  // for lock-step tests: now_us() is this from now on
uint64_t now_ns();
uint64_t wall_ms();              // CLOCK_REALTIME, milliseconds since 1970
void raise_descriptor_limit();   // of this process, as far as it may
rlimit raise_file_size_limit();  // the same; what it was
std::string json_quote(const std::string& text);

constexpr uint64_t page_of(uint64_t address) { return address >> kPageShift; }
constexpr uint64_t address_of(uint64_t page) { return page << kPageShift; }
constexpr uint64_t round_up_page(uint64_t bytes) { return (bytes + kPageBytes - 1) & ~(kPageBytes - 1); }

}  // namespace elastic
