// See proc_text.hpp.
#include "proc_text.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace elastic {

ProcLines::ProcLines(Fd file) : file_(file ? fdopen(file.get(), "r") : nullptr) {
  if (file_ != nullptr) file.release();
}

ProcLines::ProcLines(const std::string& path) : ProcLines(Fd(open(path.c_str(), O_RDONLY | O_CLOEXEC))) {}

ProcLines::~ProcLines() {
  if (file_ != nullptr) fclose(file_);
}

const char* ProcLines::next() {
  if (file_ == nullptr || fgets(line_, sizeof line_, file_) == nullptr) return nullptr;
  char* end = strchr(line_, '\n');
  if (end != nullptr) {
    *end = 0;
    return line_;
  }
  for (int skipped = 0; skipped != EOF && skipped != '\n';) skipped = fgetc(file_);
  return line_;
}

// The name, which is the second field, may have parentheses and spaces.
ProcStat parse_stat(const char* text) {
  ProcStat stat;
  const char* at = strrchr(text, ')');
  if (at == nullptr || at[1] != ' ') return stat;
  stat.state = at[2];
  at = strchr(at + 2, ' ');
  for (size_t number = 4; at != nullptr && number < stat.field.size(); number++) {
    stat.field[number] = strtoull(at + 1, nullptr, 10);
    at = strchr(at + 1, ' ');
  }
  return stat;
}

ProcStat stat_of(pid_t pid) {
  const Fd file(open(format("/proc/%d/stat", pid).c_str(), O_RDONLY | O_CLOEXEC));
  char text[2048];
  const ssize_t length = file ? read(file.get(), text, sizeof text - 1) : 0;
  text[std::max<ssize_t>(length, 0)] = 0;
  return parse_stat(text);
}

}  // namespace elastic
