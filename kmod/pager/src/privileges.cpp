// See privileges.hpp.
#include "privileges.hpp"

#include <sys/prctl.h>
#include <sys/syscall.h>

#include "util.hpp"

namespace elastic {

void keep_privileges(uint64_t kept) {
  // What of these is refused, to a thread that may not change it, gives no privilege either.
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  for (int capability = 0; capability <= CAP_LAST_CAP; capability++)
    if ((kept & privilege(capability)) == 0) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct halves[_LINUX_CAPABILITY_U32S_3] = {};
  if (syscall(SYS_capget, &header, halves) != 0) fail_errno("capget");
  for (__user_cap_data_struct& half : halves) {
    half.permitted &= static_cast<uint32_t>(kept);
    half.effective = half.permitted;
    half.inheritable = 0;
    kept >>= 32;
  }
  if (syscall(SYS_capset, &header, halves) != 0) fail_errno("capset");
}

}  // namespace elastic
