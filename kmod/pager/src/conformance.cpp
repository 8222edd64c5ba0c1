// The request loop of the conformance mode: frames in, one answer each. See kmod/userfaultfd.ts for the
// protocol.
#include "conformance.hpp"

#include <cstdio>
#include <cstring>

#include "util.hpp"

namespace elastic {

namespace {

constexpr uint32_t kBodyBytesMax = 1 << 20;
constexpr uint16_t kReady = 200, kOk = 300, kRefusedType = 301;

enum Request : uint16_t {
  kMap = 201,
  kUnmap,
  kProtect,
  kState,
  kNextFault,
  kPlace,
  kAllowWrite,
  kEvict,
  kScanAccessed,
  kScanWritten,
  kPark,
  kResume,
  kStatistics,
  kGuestStart,
  kGuestResult,
};

struct Frame {
  uint16_t type = 0;
  std::vector<uint64_t> numbers;
  std::vector<std::string> strings;
  uint64_t number(size_t index) const { return index < numbers.size() ? numbers[index] : 0; }
  PageRange range() const { return {number(0), number(1)}; }
  pid_t thread() const { return static_cast<pid_t>(number(0)); }
  std::span<const uint8_t> bytes() const {
    if (strings.empty()) return {};
    return {reinterpret_cast<const uint8_t*>(strings[0].data()), strings[0].size()};
  }
};

// False at the end of input; the suite is trusted, but a frame that does not fit its length ends the mode
// too.
bool read_frame(Frame& frame) {
  uint32_t body_bytes = 0;
  if (std::fread(&body_bytes, sizeof body_bytes, 1, stdin) != 1 || body_bytes > kBodyBytesMax) return false;
  std::string body(body_bytes, 0);
  uint16_t head[4];
  if (body_bytes < sizeof head || std::fread(body.data(), body_bytes, 1, stdin) != 1) return false;
  memcpy(head, body.data(), sizeof head);
  frame.type = head[0];
  size_t at = sizeof head;
  if (at + head[1] * sizeof(uint64_t) > body_bytes) return false;
  frame.numbers.resize(head[1]);
  if (head[1] > 0) memcpy(frame.numbers.data(), body.data() + at, head[1] * sizeof(uint64_t));
  at += head[1] * sizeof(uint64_t);
  for (int i = 0; i < head[2]; i++) {
    uint32_t length = 0;
    if (at + sizeof length > body_bytes) return false;
    memcpy(&length, body.data() + at, sizeof length);
    at += sizeof length;
    if (length > body_bytes - at) return false;
    frame.strings.emplace_back(body, at, length);
    at += length;
  }
  return at == body_bytes;
}

void write_frame(uint16_t type, const std::vector<uint64_t>& numbers,
                 const std::vector<std::string>& strings = {}) {
  std::string body;
  const uint16_t head[4] = {type, static_cast<uint16_t>(numbers.size()),
                            static_cast<uint16_t>(strings.size()), 0};
  body.append(reinterpret_cast<const char*>(head), sizeof head);
  for (const uint64_t number : numbers) body.append(reinterpret_cast<const char*>(&number), sizeof number);
  for (const std::string& text : strings) {
    const auto length = static_cast<uint32_t>(text.size());
    body.append(reinterpret_cast<const char*>(&length), sizeof length);
    body.append(text);
  }
  const auto body_bytes = static_cast<uint32_t>(body.size());
  std::fwrite(&body_bytes, sizeof body_bytes, 1, stdout);
  std::fwrite(body.data(), body.size(), 1, stdout);
  std::fflush(stdout);
}

void answer(Refused refused, const std::vector<std::string>& strings = {}) {
  if (refused) return write_frame(kRefusedType, {static_cast<uint64_t>(*refused)});
  write_frame(kOk, {}, strings);
}

std::string packed(const std::vector<uint64_t>& pages) {
  return {reinterpret_cast<const char*>(pages.data()), pages.size() * sizeof(uint64_t)};
}

void answer_next_fault(ConformanceTable& table, const Frame& frame) {
  const auto fault = table.next_fault(frame.number(0));
  if (!fault) return write_frame(kOk, {});
  write_frame(kOk, {fault->page, fault->write, static_cast<uint64_t>(fault->thread), fault->user_mode,
                    static_cast<uint64_t>(fault->cause)});
}

void answer_guest_result(ConformanceTable& table, const Frame& frame) {
  const uint64_t until = now_us() + frame.number(1) * 1000;
  uint64_t value = 0;
  for (;;) {
    table.guest().pump();
    const uint32_t outcome = table.guest().result(frame.thread(), value);
    if (outcome != 0 || now_us() >= until) return write_frame(kOk, {outcome, value});
    usleep(200);
  }
}

// Requests with contents, pages or a context in their answer, or with no range.
bool serve_rest(ConformanceTable& table, const Frame& frame) {
  std::vector<uint64_t> found;
  std::vector<uint8_t> context;
  std::string contents;
  Refused refused;
  switch (frame.type) {
    case kState: write_frame(kOk, {table.state(frame.number(0))}); break;
    case kNextFault: answer_next_fault(table, frame); break;
    case kEvict:
      refused = table.evict(frame.range(), contents);
      answer(refused, {contents});
      break;
    case kScanAccessed:
      refused = table.scan_accessed(frame.range(), found);
      answer(refused, {packed(found)});
      break;
    case kScanWritten:
      refused = table.scan_written(frame.range(), found);
      answer(refused, {packed(found)});
      break;
    case kPark:
      refused = table.park(frame.thread(), context);
      answer(refused, {std::string(context.begin(), context.end())});
      break;
    case kStatistics:
      write_frame(kOk, {table.resident(), table.faults, table.pages_placed, table.pages_evicted});
      break;
    case kGuestStart:
      table.guest().start(frame.thread(), static_cast<uint32_t>(frame.number(1)), address_of(frame.number(2)),
                          frame.number(3));
      answer({});
      break;
    case kGuestResult: answer_guest_result(table, frame); break;
    default: return false;
  }
  return true;
}

bool serve(ConformanceTable& table, const Frame& frame) {
  const PageRange range = frame.range();
  switch (frame.type) {
    case kMap: answer(table.map(range, frame.number(2))); return true;
    case kUnmap: answer(table.unmap(range)); return true;
    case kProtect: answer(table.protect(range, frame.number(2))); return true;
    case kPlace:
      answer(table.place(range, frame.bytes(), frame.strings.empty(), frame.number(2) != 0));
      return true;
    case kAllowWrite: answer(table.allow_write(range)); return true;
    case kResume: answer(table.resume_with(frame.thread(), frame.bytes())); return true;
    default: return serve_rest(table, frame);
  }
}

}  // namespace

int conformance(int argc, char** argv) {
  try {
    ConformanceTable table(argc > 0 ? argv[0] : "/proc/self/exe");
    std::vector<uint64_t> threads(table.guest().threads().begin(), table.guest().threads().end());
    write_frame(kReady, threads);
    for (Frame frame; read_frame(frame); frame = {}) {
      table.guest().pump();
      if (serve(table, frame)) continue;
      std::fprintf(stderr, "conformance: unknown request %u\n", static_cast<unsigned>(frame.type));
      return 125;
    }
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "conformance: %s\n", failure.what());
    return 125;
  }
  return 0;
}

}  // namespace elastic
