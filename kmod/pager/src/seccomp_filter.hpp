// The system calls of the application that the pager has to see, as a seccomp filter: calls that change
// mappings stop (SECCOMP_RET_TRACE), a few that would bypass the elastic page table are answered with the
// error a program expects where the feature is missing, all others run at full speed.
#pragma once

#include <linux/filter.h>

#include <vector>

namespace elastic {

// Installs it in the calling process, with no_new_privs. Async-signal-safe. False with errno on failure.
bool install_application_filter();
// Of a second filter, for programs that use direct I/O: reads stop as well.
std::vector<sock_filter> read_filter();

}  // namespace elastic
