// Probes of what the pager does with memory: a sparse memfd as large as the address space, userfaultfd on a
// shared mapping of it with faults from inside the kernel, and scans of the page tables.
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>

#include "facts_probe.hpp"
#include "util.hpp"

namespace elastic {

namespace {

constexpr uint64_t kNeeded = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM |
                             UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_EXACT_ADDRESS |
                             UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
constexpr int kFaultMsMax = 1000;

struct FeatureName {
  uint64_t bit;
  const char* name;
};
constexpr FeatureName kNeededNames[] = {{UFFD_FEATURE_PAGEFAULT_FLAG_WP, "PAGEFAULT_FLAG_WP"},
                                        {UFFD_FEATURE_MISSING_SHMEM, "MISSING_SHMEM"},
                                        {UFFD_FEATURE_THREAD_ID, "THREAD_ID"},
                                        {UFFD_FEATURE_EXACT_ADDRESS, "EXACT_ADDRESS"},
                                        {UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "WP_HUGETLBFS_SHMEM"}};

// The system call, else the device: as the pager does it.
Fd open_userfaultfd(int& call_error, int& device_error) {
  call_error = device_error = 0;
  Fd fd(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
  if (fd) return fd;
  call_error = errno;
  const Fd device(open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  if (device) fd = Fd(ioctl(device.get(), USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK));
  if (!fd) device_error = errno;
  return fd;
}

bool installed(const char* program) {
  std::optional<ProgramProblem> problem;
  find_program(program, problem);
  return !problem;
}

Outcome refused(int call_error, int device_error) {
  const std::string setting = read_setting("/proc/sys/vm/unprivileged_userfaultfd");
  if (call_error == ENOSYS) {
    return {false, "this kernel has no userfaultfd",
            "use a kernel with CONFIG_USERFAULTFD; in a container: "
            "--security-opt seccomp=unconfined"};
  }
  const std::string detail =
      user_name() + " may not serve faults of system calls: vm.unprivileged_userfaultfd = " +
      (setting.empty() ? "?" : setting) + ", /dev/userfaultfd: " + std::strerror(device_error);
  if (setting == "1" || geteuid() == 0) {
    return {false, detail + ", userfaultfd: " + std::strerror(call_error),
            "in a container: --cap-add SYS_PTRACE --security-opt seccomp=unconfined"};
  }
  const std::string sysctl = "sudo sysctl vm.unprivileged_userfaultfd=1";
  if (device_error == ENOENT) return {false, detail, sysctl};
  const std::string acl = "sudo setfacl -m u:" + user_name() + ":rw /dev/userfaultfd";
  const std::string lasting =
      "  # until the next boot; for good: a udev rule KERNEL==\"userfaultfd\", "
      "GROUP=\"a group of yours\", MODE=\"0660\"";
  if (!installed("setfacl") && !installed("/usr/bin/setfacl"))
    return {false, detail, sysctl + "  # or: " + acl};
  return {false, detail, acl + lasting + "; or: " + sysctl};
}

// One fault that the kernel meets on behalf of `reader`, served here; then one write fault on the protected
// page.
Outcome serve_two_faults(const Fd& uffd, uint8_t* page) {
  const auto next = [&uffd](uffd_msg& message) {
    pollfd waited{uffd.get(), POLLIN, 0};
    return poll(&waited, 1, kFaultMsMax) == 1 &&
           read(uffd.get(), &message, sizeof message) == sizeof message &&
           message.event == UFFD_EVENT_PAGEFAULT;
  };
  alignas(4096) static uint8_t content[kPageBytes];
  content[0] = 42;
  uffd_msg message{};
  if (!next(message)) return {false, "a fault inside a system call is not reported", ""};
  uffdio_copy copy{};
  copy.dst = reinterpret_cast<uint64_t>(page);
  copy.src = reinterpret_cast<uint64_t>(content);
  copy.len = kPageBytes;
  copy.mode = UFFDIO_COPY_MODE_WP;
  if (ioctl(uffd.get(), UFFDIO_COPY, &copy) != 0) return failed("UFFDIO_COPY");
  if (!next(message)) return {false, "a write to a protected page is not reported", ""};
  const bool is_protect_fault = (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) != 0;
  uffdio_writeprotect lift{};
  lift.range = {reinterpret_cast<uint64_t>(page), kPageBytes};
  if (ioctl(uffd.get(), UFFDIO_WRITEPROTECT, &lift) != 0) return failed("UFFDIO_WRITEPROTECT");
  if (!is_protect_fault) return {false, "a write to a protected page is reported as another fault", ""};
  return {true, "", ""};
}

Outcome try_faults(const Fd& uffd) {
  const Fd memory(memfd_create("elasticos-probe", MFD_CLOEXEC));
  if (!memory || ftruncate(memory.get(), kPageBytes) != 0) return failed("memfd");
  void* mapped = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (mapped == MAP_FAILED) return failed("mmap");
  uint8_t* page = static_cast<uint8_t*>(mapped);
  uffdio_register request{};
  request.range = {reinterpret_cast<uint64_t>(page), kPageBytes};
  request.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP;
  if (ioctl(uffd.get(), UFFDIO_REGISTER, &request) != 0) return failed("UFFDIO_REGISTER");
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return failed("pipe");
  const Fd in(ends[0]);
  const Fd out(ends[1]);
  std::atomic<bool> right = false;
  std::thread reader([&] {
    uint8_t byte = 0;
    right = write(out.get(), page, 1) == 1 && read(in.get(), &byte, 1) == 1 && byte == 42;
    *static_cast<volatile uint8_t*>(page) = 43;
  });
  const Outcome outcome = serve_two_faults(uffd, page);
  if (!outcome.ok) {
    // The reader may hang in its fault for good: it ends with this process.
    reader.detach();
    return outcome;
  }
  reader.join();
  if (!right || page[0] != 43) return {false, "a served fault shows wrong bytes", ""};
  return outcome;
}

}  // namespace

Outcome probe_userfaultfd() {
  int call_error = 0;
  int device_error = 0;
  const Fd query = open_userfaultfd(call_error, device_error);
  if (!query) return refused(call_error, device_error);
  uffdio_api api{};
  api.api = UFFD_API;
  if (ioctl(query.get(), UFFDIO_API, &api) != 0) return failed("UFFDIO_API");
  const uint64_t present = api.features;
  std::string missing;
  for (const FeatureName& feature : kNeededNames) {
    if ((present & feature.bit) == 0) missing += std::string(missing.empty() ? "" : ", ") + feature.name;
  }
  if (!missing.empty())
    return {false, "this kernel's userfaultfd lacks " + missing, "use a kernel of 6.1 or newer"};
  const bool by_device = call_error != 0;
  const Fd uffd = open_userfaultfd(call_error, device_error);
  if (!uffd) return refused(call_error, device_error);
  api = {};
  api.api = UFFD_API;
  api.features = kNeeded;
  if (ioctl(uffd.get(), UFFDIO_API, &api) != 0) return failed("UFFDIO_API with the features needed");
  Outcome outcome = try_faults(uffd);
  if (!outcome.ok) return outcome;
  outcome.detail = std::string("faults and write-protection work, in system calls too, ") +
                   (by_device ? "by /dev/userfaultfd" : "by the system call");
  return outcome;
}

Outcome probe_memfd() {
  const Fd memory(memfd_create("elasticos-probe", MFD_CLOEXEC));
  if (!memory) return failed("memfd_create");
  if (ftruncate(memory.get(), static_cast<off_t>(kUserSpaceEnd)) != 0) {
    return failed("a memfd of 128 TiB", "ulimit -f unlimited");
  }
  const off_t last = static_cast<off_t>(kUserSpaceEnd - kPageBytes);
  void* page =
      mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory.get(), last);
  if (page == MAP_FAILED) return failed("mapping the end of a memfd");
  *static_cast<volatile uint8_t*>(page) = 1;
  struct stat status {};
  const bool sparse = fstat(memory.get(), &status) == 0 && status.st_blocks * 512 <= (2 << 20) + 65536;
  const int punch = fallocate(memory.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, last, kPageBytes);
  if (punch != 0) return failed("punching a page out of a memfd");
  if (!sparse || fstat(memory.get(), &status) != 0) return {false, "a memfd is not sparse", ""};
  if (status.st_blocks != 0) return {false, "a punched page still takes memory", ""};
  const std::string huge = read_setting("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
  if (huge.find("[force]") != std::string::npos) {
    return {false, "huge pages are forced on shared memory",
            "echo never | sudo tee /sys/kernel/mm/transparent_hugepage/shmem_enabled"};
  }
  return {true, "sparse, 128 TiB", ""};
}

Outcome probe_page_scan() {
  struct ScanArguments {  // struct pm_scan_arg of include/uapi/linux/fs.h, since 6.7
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
  };
  struct Region {
    uint64_t start, end, categories;
  };
  constexpr uint64_t kPresent = 1 << 3;
  const Fd map(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  if (!map) return failed("/proc/self/pagemap");
  alignas(4096) static volatile uint8_t page[kPageBytes];
  page[0] = 1;
  const uint64_t at = reinterpret_cast<uint64_t>(page);
  Region region{};
  ScanArguments scan{};
  scan.size = sizeof scan;
  scan.start = at;
  scan.end = at + kPageBytes;
  scan.vec = reinterpret_cast<uint64_t>(&region);
  scan.vec_len = 1;
  scan.category_mask = kPresent;
  scan.return_mask = kPresent;
  if (ioctl(map.get(), _IOWR('f', 16, ScanArguments), &scan) == 1 && region.start == at) {
    return {true, "page tables are scanned by PAGEMAP_SCAN", ""};
  }
  uint64_t entry = 0;
  const off_t where = static_cast<off_t>(at / kPageBytes * sizeof entry);
  if (pread(map.get(), &entry, sizeof entry, where) != sizeof entry || entry >> 63 == 0) {
    return {false, "neither PAGEMAP_SCAN nor /proc/PID/pagemap works", ""};
  }
  return {false, "page tables are read from /proc/PID/pagemap, which is slower",
          "PAGEMAP_SCAN comes with Linux 6.7"};
}

}  // namespace elastic
