// See uffd.hpp.
#include "uffd.hpp"

#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <fcntl.h>

#include "tracee.hpp"

namespace elastic {

namespace {

constexpr uint64_t kNeededFeatures = UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_EXACT_ADDRESS |
                                     UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
                                     UFFD_FEATURE_MISSING_SHMEM;
constexpr int kUserModeOnly = 1;
constexpr int kRetriesMax = 1'000'000;  // EAGAIN means the mapping is changing under us; it ends

constexpr const char* kRemedy =
    "no permission for userfaultfd: run `sudo setfacl -m u:$USER:rw /dev/userfaultfd`, or "
    "`sudo sysctl vm.unprivileged_userfaultfd=1`";

}  // namespace

Uffd Uffd::create(Injector& injector, int device, bool user_mode_only) {
  const uint64_t flags = O_CLOEXEC | O_NONBLOCK | (user_mode_only ? kUserModeOnly : 0);
  int64_t number = injector.call(SYS_userfaultfd, flags);
  if (number == -EPERM && device >= 0)
    number = injector.call(SYS_ioctl, static_cast<uint64_t>(device), USERFAULTFD_IOC_NEW, flags);
  if (number == -EPERM || number == -EACCES) throw Failure(kRemedy);
  if (number < 0)
    throw Failure(format("cannot create a userfaultfd: %s", strerror(static_cast<int>(-number))));
  Uffd uffd;
  uffd.fd_ = take_descriptor(injector.tid(), static_cast<int>(number));
  injector.call(SYS_close, static_cast<uint64_t>(number));
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = kNeededFeatures;
  if (ioctl(uffd.fd(), UFFDIO_API, &api) != 0)
    throw Failure(
        "this kernel's userfaultfd lacks write-protection of shared memory: Linux 6.1 or newer is needed");
  return uffd;
}

int Uffd::watch(uint64_t page, uint64_t count) {
  uffdio_register request{};
  request.range = {address_of(page), count << kPageShift};
  request.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP;
  return ioctl(fd(), UFFDIO_REGISTER, &request) == 0 ? 0 : -errno;
}

Placed Uffd::copy(uint64_t page, const uint8_t* data, uint64_t count, uint64_t& done, bool write_protected) {
  done = 0;
  for (int retry = 0; done < count; retry++) {
    uffdio_copy request{};
    request.dst = address_of(page + done);
    request.src = reinterpret_cast<uint64_t>(data) + (done << kPageShift);
    request.len = (count - done) << kPageShift;
    request.mode = write_protected ? UFFDIO_COPY_MODE_WP : 0;
    if (ioctl(fd(), UFFDIO_COPY, &request) == 0) {
      done = count;
      break;
    }
    const int error = errno;
    if (request.copy > 0) done += static_cast<uint64_t>(request.copy) >> kPageShift;
    if (request.copy > 0 || (error == EAGAIN && retry < kRetriesMax)) continue;
    if (error == EEXIST) return Placed::already;
    if (error == ENOENT) return Placed::unmapped;
    if (error == ESRCH) return Placed::gone;
    errno = error;
    fail_errno("UFFDIO_COPY of page %#lx", page + done);
  }
  return Placed::ok;
}

Placed Uffd::zero(uint64_t page, uint64_t count, uint64_t& done) {
  done = 0;
  for (int retry = 0; done < count; retry++) {
    uffdio_zeropage request{};
    request.range = {address_of(page + done), (count - done) << kPageShift};
    if (ioctl(fd(), UFFDIO_ZEROPAGE, &request) == 0) {
      done = count;
      break;
    }
    const int error = errno;
    if (request.zeropage > 0) done += static_cast<uint64_t>(request.zeropage) >> kPageShift;
    if (request.zeropage > 0 || (error == EAGAIN && retry < kRetriesMax)) continue;
    if (error == EEXIST) return Placed::already;
    if (error == ENOENT) return Placed::unmapped;
    if (error == ESRCH) return Placed::gone;
    errno = error;
    fail_errno("UFFDIO_ZEROPAGE of page %#lx", page + done);
  }
  return Placed::ok;
}

void Uffd::set_protection(uint64_t page, uint64_t count, uint64_t mode) {
  uffdio_writeprotect request{};
  request.range = {address_of(page), count << kPageShift};
  request.mode = mode;
  for (int retry = 0; retry < kRetriesMax; retry++) {
    if (ioctl(fd(), UFFDIO_WRITEPROTECT, &request) == 0) return;
    if (errno == ENOENT || errno == ESRCH) break;
    if (errno != EAGAIN) fail_errno("UFFDIO_WRITEPROTECT of page %#lx", page);
  }
  // Several mappings, some of them gone: page by page what is still there.
  if (count > 1)
    for (uint64_t i = 0; i < count; i++) set_protection(page + i, 1, mode);
}

void Uffd::write_protect(uint64_t page, uint64_t count) {
  set_protection(page, count, UFFDIO_WRITEPROTECT_MODE_WP);
}

void Uffd::write_unprotect(uint64_t page, uint64_t count) { set_protection(page, count, 0); }

void Uffd::wake(uint64_t page, uint64_t count) {
  uffdio_range range{address_of(page), count << kPageShift};
  if (ioctl(fd(), UFFDIO_WAKE, &range) != 0 && errno != ENOENT && errno != ESRCH && errno != EINVAL)
    fail_errno("UFFDIO_WAKE of page %#lx", page);
}

size_t Uffd::read_faults(std::span<FaultEvent> events) {
  uffd_msg messages[32];
  const size_t wanted = std::min(events.size(), std::size(messages));
  const ssize_t got = read(fd(), messages, wanted * sizeof(uffd_msg));
  if (got < 0) {
    if (errno == EAGAIN || errno == EINTR) return 0;
    fail_errno("read of userfaultfd");
  }
  size_t count = 0;
  for (size_t i = 0; i < static_cast<size_t>(got) / sizeof(uffd_msg); i++) {
    const uffd_msg& message = messages[i];
    if (message.event != UFFD_EVENT_PAGEFAULT) continue;
    FaultEvent& event = events[count++];
    event.address = message.arg.pagefault.address;
    event.page = page_of(event.address);
    event.tid = static_cast<int32_t>(message.arg.pagefault.feat.ptid);
    event.write = (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0;
    event.write_protected = (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) != 0;
  }
  return count;
}

}  // namespace elastic
