// A probe: one check tried in a child process, because what is tried may hang, kill, or change the process
// that tries it. The child tells its outcome through a pipe; one that says nothing in time is killed and has
// failed.
#pragma once

#include <functional>
#include <string>

#include "facts.hpp"

namespace elastic {

struct Outcome {
  bool ok = false;
  std::string detail;
  std::string remedy;
};

// Runs `body` in a child for at most `seconds`. What the child forks must end by itself (PR_SET_PDEATHSIG,
// alarm).
Outcome probe(int seconds, const std::function<Outcome()>& body);

Outcome failed(const std::string& what,
               const std::string& remedy = {});  // with strerror(errno) behind `what`
std::string read_setting(const char* path);      // first line of a file, or empty; leaves errno alone
std::string user_name();                         // of the effective user, or its number

// facts_trace.cpp
Outcome probe_ptrace();
Outcome probe_seccomp();
Outcome probe_pidfd();
// facts_memory.cpp
Outcome probe_userfaultfd();
Outcome probe_memfd();
Outcome probe_page_scan();

}  // namespace elastic
