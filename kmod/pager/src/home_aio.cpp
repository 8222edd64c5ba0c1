// Asynchronous I/O (io_setup, io_submit): buffers of direct reads stay from before the io_submit until the
// ring says that they have been read. The program may take events out of the ring without any call, so the
// pager looks at the ring by itself: at each io_submit, at each tick, and every millisecond while a call
// waits for pages to be let go. See home.hpp and pinned_pages.hpp.
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <climits>
#include <iterator>

#include "home.hpp"

namespace elastic {

namespace {
constexpr uint64_t kReapUs = 1000;
constexpr uint64_t kRequestsMax = 8192;  // of one io_submit, which may accept fewer than asked
constexpr size_t kRequestsAtOnce = 32;   // looked at: two pages each at most
constexpr uint64_t kLastRequestsUs = 10'000'000;

// fs/aio.c: the ring that io_setup maps; its events follow.
struct Ring {
  uint32_t id, slots, head, tail, magic, compat_features, incompat_features, header_bytes;
};
constexpr uint32_t kRingMagic = 0xa10a10a1;
}  // namespace

// Null: not a ring, the kernel says so.
AioContext* Home::aio_context(uint64_t address) {
  const auto known = aio_.find(address);
  if (known != aio_.end()) return &known->second;
  const Region* region = regions_.find(page_of(address));
  Ring ring{};
  if (region == nullptr || region->kind != RegionKind::native || !region->file ||
      !region->file->path.starts_with("/[aio]") || address != address_of(region->start) ||
      pread(memory_view_.get(), &ring, sizeof ring, static_cast<off_t>(address)) != sizeof ring)
    return nullptr;
  const uint64_t fit = (address_of(region->end) - address - sizeof ring) / sizeof(io_event);
  if (ring.magic != kRingMagic || ring.slots < 2 || ring.slots > fit || ring.tail >= ring.slots)
    return nullptr;
  AioContext& context = aio_[address];
  context.slots = ring.slots;
  context.seen = ring.tail;
  return &context;
}

// Lets go what has ended since the last look. Not more than the slots of the ring: see
// AioContext::outstanding.
void Home::reap(uint64_t address, AioContext& context) {
  Ring ring{};
  if (pread(memory_view_.get(), &ring, sizeof ring, static_cast<off_t>(address)) != sizeof ring ||
      ring.tail >= context.slots)
    return;
  while (context.seen != ring.tail) {
    io_event events[64];
    const uint32_t end = ring.tail > context.seen ? ring.tail : context.slots;
    const uint32_t count = std::min<uint32_t>(end - context.seen, std::size(events));
    const uint64_t at = address + sizeof ring + context.seen * sizeof(io_event);
    const auto bytes = static_cast<ssize_t>(count * sizeof(io_event));
    if (pread(memory_view_.get(), events, static_cast<size_t>(bytes), static_cast<off_t>(at)) != bytes)
      return;
    for (uint32_t i = 0; i < count; i++) {
      context.outstanding -= context.outstanding > 0 ? 1 : 0;
      request_ended(context, events[i].obj);
    }
    context.seen = (context.seen + count) % context.slots;
  }
}

// Of several with one iocb it is not known which one: their pages go together.
void Home::request_ended(AioContext& context, uint64_t request) {
  const auto it = context.requests.find(request);
  if (it == context.requests.end() || --it->second.count > 0) return;
  const std::vector<PinnedPages::Id> pins = std::move(it->second.pins);
  context.requests.erase(it);
  for (const PinnedPages::Id id : pins) pins_->unpin(id);
}

void Home::reap_all() {
  for (auto& [address, context] : aio_) reap(address, context);
}

void Home::reap_while_waiting() {
  if (reaps_soon_ || aio_.empty() || !pins_->anybody_waits()) return;
  reaps_soon_ = true;
  loop_.at(now_us() + kReapUs, [this] {
    reaps_soon_ = false;
    reap_all();
    reap_while_waiting();
  });
}

// The kernel unmaps the ring first and then waits for the requests: meanwhile another thread's io_setup may
// get this address, so the context is out of the list from the call's entry on.
void Home::call_io_destroy(Thread& thread) {
  thread.ending_aio = aio_.extract(thread.call.rdi);
  run_native(thread, true);
}

void Home::end_io_destroy(Thread& thread, bool destroyed) {
  auto ending = std::exchange(thread.ending_aio, {});
  if (ending.empty()) return;
  if (!destroyed) {
    aio_.insert(std::move(ending));
    return;
  }
  for (const auto& [request, requests] : ending.mapped().requests)
    for (const PinnedPages::Id id : requests.pins) pins_->unpin(id);
}

// The program's end waits for its requests, as without us: the injector is the last to have its memory.
void Home::finish_aio(pid_t injector) {
  if (aio_.empty()) return;
  const uint64_t until = now_us() + kLastRequestsUs;
  while (waitpid(injector, nullptr, __WALL | WNOHANG) == 0 && now_us() < until) usleep(kReapUs);
}

void Home::call_io_submit(Thread& thread) {
  const user_regs_struct& r = thread.call;
  const uint64_t address = r.rdi;
  AioContext* context = aio_context(address);
  if (context == nullptr || static_cast<int64_t>(r.rsi) <= 0) return run_native(thread, false);
  reap(address, *context);
  const uint64_t room = context->slots - 1 - context->outstanding;
  const uint64_t count = std::min<uint64_t>({r.rsi, room, kRequestsMax});
  if (count == 0) return answer(thread, -EAGAIN);
  context->outstanding += count;
  with_memory(thread, {{reinterpret_cast<void*>(r.rdx), count * sizeof(uint64_t)}},
              [this, address, count](Thread& submitting, const std::vector<uint8_t>& bytes) {
                AioSubmission submission;
                submission.context = address;
                submission.requests.resize(bytes.size() / sizeof(uint64_t));
                memcpy(submission.requests.data(), bytes.data(),
                       submission.requests.size() * sizeof(uint64_t));
                give_back(address, count - submission.requests.size());
                submitting.submission = std::move(submission);
                look_at_requests(submitting);
              });
}

void Home::give_back(uint64_t address, uint64_t count) {
  const auto it = aio_.find(address);
  if (it != aio_.end()) it->second.outstanding -= std::min(it->second.outstanding, count);
}

// Of the requests not yet looked at the next few; when there are none left, the call is made.
void Home::look_at_requests(Thread& thread) {
  const AioSubmission& submission = *thread.submission;
  const size_t from = submission.reads.size();
  const size_t to = std::min(from + kRequestsAtOnce, submission.requests.size());
  if (from == to) return submit(thread, to);
  std::vector<iovec> ranges;
  for (size_t i = from; i < to; i++)
    ranges.push_back({reinterpret_cast<void*>(submission.requests[i]), sizeof(iocb)});
  with_memory(thread, ranges, [this, from, to](Thread& submitting, const std::vector<uint8_t>& bytes) {
    std::vector<iocb> requests(bytes.size() / sizeof(iocb));
    memcpy(requests.data(), bytes.data(), requests.size() * sizeof(iocb));
    if (requests.size() < to - from) {
      AioSubmission& fewer = *submitting.submission;
      give_back(fewer.context, fewer.requests.size() - (from + requests.size()));
      fewer.requests.resize(from + requests.size());
    }
    take_requests(submitting, requests, 0);
  });
}

// `requests` from `index` on.
void Home::take_requests(Thread& thread, const std::vector<iocb>& requests, size_t index) {
  for (; index < requests.size(); index++) {
    const iocb& request = requests[index];
    const uint16_t operation = request.aio_lio_opcode;
    if ((operation != IOCB_CMD_PREAD && operation != IOCB_CMD_PREADV) ||
        !is_direct(thread.tid, static_cast<int>(request.aio_fildes)))
      thread.submission->reads.push_back(false);
    else if (operation == IOCB_CMD_PREADV)
      return take_vector(thread, requests, index);
    else if (!take_buffers(thread, {{reinterpret_cast<void*>(request.aio_buf), request.aio_nbytes}}))
      return;
  }
  look_at_requests(thread);
}

// The list of buffers is in memory as well; then the walk goes on.
void Home::take_vector(Thread& thread, const std::vector<iocb>& requests, size_t index) {
  const iocb& request = requests[index];
  const size_t count = std::min<size_t>(request.aio_nbytes, IOV_MAX);
  const iovec list{reinterpret_cast<void*>(request.aio_buf), count * sizeof(iovec)};
  with_memory(thread, {list}, [this, requests, index](Thread& submitting, const std::vector<uint8_t>& bytes) {
    std::vector<iovec> buffers(bytes.size() / sizeof(iovec));
    memcpy(buffers.data(), bytes.data(), buffers.size() * sizeof(iovec));
    if (!take_buffers(submitting, buffers)) return;
    submitting.state = ThreadState::held;
    loop_.at(0, [this, tid = submitting.tid, requests, index] {  // not deeper with every request
      Thread* waiting = find_thread(tid);
      if (waiting == nullptr || !waiting->submission) return;
      waiting->state = ThreadState::running;
      take_requests(*waiting, requests, index + 1);
    });
  });
}

// False: with these pages it would be too much for one call, so it is made without this request.
bool Home::take_buffers(Thread& thread, const std::vector<iovec>& buffers) {
  AioSubmission& submission = *thread.submission;
  std::vector<uint64_t> pages = pages_read_into(buffers), both;
  std::set_union(submission.pages.begin(), submission.pages.end(), pages.begin(), pages.end(),
                 std::back_inserter(both));
  if (both.size() > pins_->pages_max()) {
    submit(thread, submission.reads.size());
    return false;
  }
  pins_->note_accepted(pages.size());
  submission.pages = std::move(both);
  submission.reads.push_back(true);
  return true;
}

void Home::submit(Thread& thread, size_t count) {
  AioSubmission& submission = *thread.submission;
  give_back(submission.context, submission.requests.size() - count);
  if (count == 0) {
    const bool unreadable = submission.requests.empty();
    thread.submission.reset();
    return unreadable ? answer(thread, -EFAULT) : too_much_to_pin(thread);
  }
  submission.requests.resize(count);
  user_regs_struct r = thread.call;
  r.rsi = count;
  if (!set_registers(thread.tid, r)) return;
  const pid_t tid = thread.tid;
  thread.state = ThreadState::held;
  thread.pins = pins_->pin(std::move(submission.pages), [this, tid](PinnedPages::Id pins) {
    Thread* waiting = find_thread(tid);
    if (waiting == nullptr || waiting->state != ThreadState::held || !waiting->submission) return;
    note_requests(*waiting->submission, pins);
    waiting->state = ThreadState::running;
    run_native(*waiting, true);
  });
  reap_while_waiting();
}

void Home::note_requests(const AioSubmission& submission, PinnedPages::Id pins) {
  const auto it = aio_.find(submission.context);
  if (it == aio_.end()) return;
  for (size_t i = 0; i < submission.requests.size(); i++) {
    AioContext::Requests& requests = it->second.requests[submission.requests[i]];
    requests.count++;
    if (!submission.reads[i]) continue;
    pins_->keep(pins);
    requests.pins.push_back(pins);
  }
}

void Home::end_io_submit(Thread& thread, user_regs_struct& r) {
  if (thread.submission) {
    const AioSubmission submission = std::move(*thread.submission);
    thread.submission.reset();
    const auto accepted = static_cast<size_t>(std::max<int64_t>(0, static_cast<int64_t>(r.rax)));
    const auto it = aio_.find(submission.context);
    for (size_t i = accepted; it != aio_.end() && i < submission.requests.size(); i++) {
      it->second.outstanding -= it->second.outstanding > 0 ? 1 : 0;
      request_ended(it->second, submission.requests[i]);
    }
    pins_->unpin(std::exchange(thread.pins, 0));
    r.rsi = thread.call.rsi;
    if (!set_registers(thread.tid, r)) return;
  }
  resume(thread.tid);
}

}  // namespace elastic
