// The shell process: the twin of the application on a participant. Same layout, no kernel state: a static
// program of two pages in namespaces of its own, from which the pager unmaps everything else. See
// stub/shell_stub.S.
#pragma once

#include <sys/types.h>

#include <string>

#include "memory.hpp"

namespace elastic {

struct ShellProcess {
  pid_t pid = 0;         // as the pager sees it; its first thread is the injector and never runs guest code
  std::string weakness;  // what of the sandbox this machine does not offer, for the log; empty if all
};

// Starts it and attaches `memory` (no ranges mapped yet). Throws Failure.
ShellProcess start_shell(Memory& memory);

// One more thread of the shell, stopped, under a filter that allows it no system call at all. `own_tid`: what
// it is called in its pid namespace, as fault events name it. 0 if the shell is gone.
pid_t start_guest_thread(Injector& injector, pid_t& own_tid);

}  // namespace elastic
