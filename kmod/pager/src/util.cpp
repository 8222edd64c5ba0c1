// See util.hpp.
#include "util.hpp"

#include <sys/resource.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <ctime>

namespace elastic {

namespace {

uint64_t stopped_at_us = 0;

std::string vformat(const char* pattern, va_list arguments) {
  char text[1024];
  vsnprintf(text, sizeof text, pattern, arguments);
  return text;
}

uint64_t clock_ns(clockid_t id) {
  timespec now{};
  clock_gettime(id, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace

std::string format(const char* pattern, ...) {
  va_list arguments;
  va_start(arguments, pattern);
  std::string text = vformat(pattern, arguments);
  va_end(arguments);
  return text;
}

void fail_errno(const char* pattern, ...) {
  const int error = errno;
  va_list arguments;
  va_start(arguments, pattern);
  std::string text = vformat(pattern, arguments);
  va_end(arguments);
  throw Failure(text + ": " + strerror(error));
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

rlimit raise_file_size_limit() {
  rlimit before{};
  if (getrlimit(RLIMIT_FSIZE, &before) != 0) fail_errno("the limit of file sizes");
  for (const rlim_t wanted : {RLIM_INFINITY, before.rlim_max}) {
    const rlimit raised{wanted, wanted};
    if (setrlimit(RLIMIT_FSIZE, &raised) == 0) break;  // beyond the hard limit only with CAP_SYS_RESOURCE
  }
  return before;
}

uint64_t now_ns() { return clock_ns(CLOCK_MONOTONIC); }
uint64_t now_us() { return stopped_at_us != 0 ? stopped_at_us : clock_ns(CLOCK_MONOTONIC) / 1000; }
void stop_clock(uint64_t at_us) { stopped_at_us = at_us; }
uint64_t wall_ms() { return clock_ns(CLOCK_REALTIME) / 1'000'000; }

std::string json_quote(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += format("\\u%04x", c);
    } else {
      out += c;
    }
  }
  return out + '"';
}

}  // namespace elastic
