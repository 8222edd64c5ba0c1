// What a pager that root started keeps of root's privileges once it is set up. An ordinary user's has none.
#pragma once

#include <linux/capability.h>

#include <cstdint>

namespace elastic {

constexpr uint64_t privilege(int capability) { return 1ull << capability; }

// To read and write the memory, descriptors and limits of processes that have changed their user, or are not
// dumpable, and to signal them.
constexpr uint64_t kTracerKeeps = privilege(CAP_SYS_PTRACE) | privilege(CAP_DAC_OVERRIDE) |
                                  privilege(CAP_KILL) | privilege(CAP_SYS_RESOURCE);
// The same for shell processes, and to make them: namespaces, and nobody's identity.
constexpr uint64_t kLenderKeeps = privilege(CAP_SYS_PTRACE) | privilege(CAP_DAC_OVERRIDE) |
                                  privilege(CAP_KILL) | privilege(CAP_SYS_ADMIN) | privilege(CAP_SETUID) |
                                  privilege(CAP_SETGID);

// The calling thread gives up what is not in `kept`, for itself and all that it starts later, for good.
void keep_privileges(uint64_t kept);

}  // namespace elastic
