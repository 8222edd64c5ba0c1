// Starting the application under trace, and making an address space elastic-ready: trampoline page, injector
// task, userfaultfd. Used at the start and again after every exec.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "injector.hpp"
#include "memory.hpp"
#include "signals.hpp"

namespace elastic {

struct Launched {
  pid_t pid = 0;
  int exec_error = 0;  // errno of execve, 0 if the program runs
};

// Forks, installs the filter, executes `path` and stops at the exec event (PTRACE_EVENT_EXEC). The child
// inherits this process's standard descriptors and environment, ignores the signals in `ignored` and has
// `file_sizes` as its limit; ASLR is off so that addresses are the same on every node.
Launched launch(const std::string& path, const std::vector<std::string>& arguments, SignalSet ignored,
                const rlimit& file_sizes);

// `pid` is at its exec event. Steps to the end of execve, plants the trampoline, makes the injector and the
// userfaultfd and attaches `memory`. The injector is handed the memfd; the application never has a
// descriptor of ours, after an exec as little as at the start.
void attach_memory(pid_t pid, Memory& memory);

// A userfaultfd of a child that stands before its first instruction, and has a trampoline from its parent.
Uffd child_userfaultfd(pid_t child);

}  // namespace elastic
