// A small process that keeps a duplicate of each userfaultfd until the process it serves has exited.
//
// Why: a pager that dies by SIGKILL releases its userfaultfd before PTRACE_O_EXITKILL reaches the
// application, and in between pages that are away read as zeros (seen in 3 of 200 kills; never while another
// process held a duplicate). The holder does nothing else; it exits when its socket is closed and all it
// serves are gone.
#pragma once

#include <sys/types.h>

#include "util.hpp"

namespace elastic {

class Holder {
 public:
  Holder();  // forks: call it first, before there is much memory or any thread
  ~Holder() = default;
  // Keeps `uffd` until `process` has exited, or until drop() of what this returns.
  uint64_t keep(int uffd, pid_t process);
  void drop(uint64_t number);
  void release();  // orderly end: the holder goes as soon as its processes are gone
  pid_t pid() const { return pid_; }

 private:
  Fd socket_;
  uint64_t kept_ = 0;
  pid_t pid_ = 0;
};

}  // namespace elastic
