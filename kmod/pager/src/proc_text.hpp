// Texts of /proc. What is in them by name (a file that is mapped, a process) is the program's choice: any
// bytes, and long ones.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>

#include "util.hpp"

namespace elastic {

// The lines of an open file. Of a line that is too long the beginning.
class ProcLines {
 public:
  explicit ProcLines(Fd file);
  explicit ProcLines(const std::string& path);
  ~ProcLines();
  ProcLines(const ProcLines&) = delete;
  ProcLines& operator=(const ProcLines&) = delete;
  explicit operator bool() const { return file_ != nullptr; }
  const char* next();  // without its end; null after the last

 private:
  FILE* file_;
  char line_[4352];  // a path and what stands before it
};

// Of /proc/PID/stat: the numbers by their place in proc_pid_stat(5), and the third field, a letter.
struct ProcStat {
  char state = 0;  // 0: there is none
  std::array<uint64_t, 53> field{};
};

ProcStat parse_stat(const char* text);
ProcStat stat_of(pid_t pid);

}  // namespace elastic
