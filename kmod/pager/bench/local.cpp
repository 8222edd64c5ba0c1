// What faults and contexts cost on one node, for `npm run bench` to divide by:
//   localFault  a thread touches a page that another process puts there from a buffer (userfaultfd, one
//   COPY);
//               seen by the thread
//   context     from the touch until the other process has got the fault, interrupted the thread, read its
//               context, and written it to another, stopped task: what a jump does besides sending
//
// The tracer waits in epoll_wait as the pager does and uses the pager's own ptrace calls. Both processes run
// on the CPU that they are given: an application and its home pager share one. Each figure is one line of
// JSON as in reference.cpp. Limits: needs the right to use userfaultfd; ends after five seconds of silence.
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../src/tracee.hpp"
#include "../src/util.hpp"

namespace elastic {
namespace {

constexpr size_t kWarmUp = 100;
constexpr size_t kSamplesMax = 1 << 16;
constexpr int kPatienceMs = 5000;
constexpr uint64_t kSpinUs = 1'000'000;

struct Options {
  std::string only;
  int cpus = 2;  // only reported
  int cpu = 0;
  size_t samples = 2000;
};

// Shared between the two processes: memory that is no subject of the measurement.
struct Shared {
  volatile uint64_t touched_ns;
  volatile int ready;
  uint32_t took_ns[kSamplesMax];
};

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) fail_errno("cannot pin to CPU %d", cpu);
}

void report(const char* name, const Options& options, std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  const auto at = [&](size_t percent) { return samples[(samples.size() - 1) * percent / 100]; };
  printf("{\"name\":\"%s\",\"cpus\":%d,\"p50\":%.3f,\"p99\":%.3f,\"unit\":\"us\",\"samples\":%zu}\n", name,
         options.cpus, at(50), at(99), samples.size());
  fflush(stdout);
}

uint8_t* map_shared(int fd, size_t bytes) {
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
  if (at == MAP_FAILED) fail_errno("mmap");
  return static_cast<uint8_t*>(at);
}

// The process whose faults are measured: pages of a memfd, as elastic memory is.
class Toucher {
 public:
  explicit Toucher(const Options& options) : pages_(options.samples + kWarmUp) {
    file_.reset(memfd_create("bench", MFD_CLOEXEC));
    if (!file_ || ftruncate(file_.get(), static_cast<off_t>(pages_ * kPageBytes)) != 0) fail_errno("memfd");
    at_ = map_shared(file_.get(), pages_ * kPageBytes);
    shared_ = reinterpret_cast<Shared*>(map_shared(-1, sizeof(Shared)));
    pid_ = fork();
    if (pid_ < 0) fail_errno("fork");
    if (pid_ == 0) touch_all();
  }
  ~Toucher() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, __WALL);
  }
  Toucher(const Toucher&) = delete;
  Toucher& operator=(const Toucher&) = delete;

  // The child makes its userfaultfd itself (it belongs to an address space); this takes a duplicate.
  void take_descriptor() {
    for (int i = 0; i < kPatienceMs && shared_->ready == 0; i++) usleep(1000);
    if (shared_->ready <= 0) throw Failure("the process that is measured did not start");
    const Fd process(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
    uffd_.reset(static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), shared_->ready, 0)));
    if (!uffd_) fail_errno("pidfd_getfd");
  }
  pid_t pid() const { return pid_; }
  int uffd() const { return uffd_.get(); }
  size_t pages() const { return pages_; }
  Shared& shared() const { return *shared_; }

 private:
  [[noreturn]] void touch_all() {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    const int uffd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
    uffdio_api api{UFFD_API, 0, 0};
    uffdio_register watch{};
    watch.range = {reinterpret_cast<uint64_t>(at_), pages_ * kPageBytes};
    watch.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP;
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) != 0 || ioctl(uffd, UFFDIO_REGISTER, &watch) != 0) _exit(1);
    shared_->ready = uffd;
    while (shared_->ready > 0) sched_yield();
    for (size_t i = 0; i < pages_; i++) {
      const uint64_t from = now_ns();
      shared_->touched_ns = from;
      *reinterpret_cast<volatile uint8_t*>(at_ + i * kPageBytes);
      shared_->took_ns[i] = static_cast<uint32_t>(now_ns() - from);
    }
    for (;;) pause();
  }

  size_t pages_;
  Fd file_, uffd_;
  uint8_t* at_ = nullptr;
  Shared* shared_ = nullptr;
  pid_t pid_ = 0;
};

// Calls `serve(address)` for each fault, woken as the pager is.
template <typename Serve>
void serve_faults(Toucher& toucher, const Serve& serve) {
  const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN;
  epoll_ctl(epoll.get(), EPOLL_CTL_ADD, toucher.uffd(), &event);
  toucher.shared().ready = -1;  // go
  for (size_t served = 0; served < toucher.pages();) {
    if (epoll_wait(epoll.get(), &event, 1, kPatienceMs) == 0) throw Failure("no fault for five seconds");
    uffd_msg messages[8];
    const ssize_t got = read(toucher.uffd(), messages, sizeof messages);
    for (size_t i = 0; got > 0 && i < static_cast<size_t>(got) / sizeof messages[0]; i++, served++)
      serve(messages[i].arg.pagefault.address & ~(kPageBytes - 1));
  }
}

void place(const Toucher& toucher, uint64_t address, const std::vector<uint8_t>& page) {
  uffdio_copy copy{};
  copy.dst = address;
  copy.src = reinterpret_cast<uint64_t>(page.data());
  copy.len = kPageBytes;
  if (ioctl(toucher.uffd(), UFFDIO_COPY, &copy) != 0) fail_errno("UFFDIO_COPY");
}

void measure_local_fault(const Options& options) {
  Toucher toucher(options);
  toucher.take_descriptor();
  const std::vector<uint8_t> page(kPageBytes, 1);
  serve_faults(toucher, [&](uint64_t address) { place(toucher, address, page); });
  while (toucher.shared().took_ns[toucher.pages() - 1] == 0) usleep(1000);
  std::vector<double> samples;
  for (size_t i = kWarmUp; i < toucher.pages(); i++) samples.push_back(toucher.shared().took_ns[i] / 1000.0);
  report("localFault", options, std::move(samples));
}

// A second traced task, stopped, for contexts to be written to.
pid_t stopped_task() {
  const pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) pause();
  }
  int status = 0;
  if (pid < 0 || ptrace(PTRACE_SEIZE, pid, nullptr, nullptr) != 0 || !interrupt(pid) ||
      waitpid(pid, &status, __WALL) != pid)
    fail_errno("ptrace is not permitted");
  return pid;
}

void measure_context(const Options& options) {
  Toucher toucher(options);
  toucher.take_descriptor();
  if (ptrace(PTRACE_SEIZE, toucher.pid(), nullptr, nullptr) != 0) fail_errno("ptrace is not permitted");
  const pid_t target = stopped_task();
  const std::vector<uint8_t> page(kPageBytes, 1);
  std::vector<double> samples;
  serve_faults(toucher, [&](uint64_t address) {
    Context context;
    int status = 0;
    const bool moved = interrupt(toucher.pid()) && spin_for_stop(toucher.pid(), status, kSpinUs) &&
                       get_context(toucher.pid(), context) && set_context(target, context);
    if (!moved) throw Failure("a context could not be moved");
    samples.push_back(static_cast<double>(now_ns() - toucher.shared().touched_ns) / 1000);
    place(toucher, address, page);
    resume(toucher.pid());
  });
  kill(target, SIGKILL);
  waitpid(target, nullptr, __WALL);
  samples.erase(samples.begin(), samples.begin() + kWarmUp);
  report("context", options, std::move(samples));
}

Options options_of(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    const char* value = argv[i + 1];
    if (name == "--only")
      options.only = value;
    else if (name == "--cpus")
      options.cpus = atoi(value);
    else if (name == "--cpu-home")
      options.cpu = atoi(value);
    else if (name == "--samples")
      options.samples = static_cast<size_t>(atol(value));
    else
      throw Failure("bench-local: unknown option " + name);
  }
  if (options.samples < 1 || options.samples + kWarmUp > kSamplesMax)
    throw Failure("bench-local: --samples is out of range");
  return options;
}

}  // namespace
}  // namespace elastic

int main(int argc, char** argv) {
  using namespace elastic;
  try {
    const Options options = options_of(argc, argv);
    pin(options.cpu);
    if (options.only != "context") measure_local_fault(options);
    if (options.only != "localFault") measure_context(options);
    return 0;
  } catch (const Failure& failure) {
    fprintf(stderr, "%s\n", failure.what());
    return 1;
  }
}
