// Tests of contexts (tracee.hpp): as they travel, and as they are read from and written to real tasks whose
// vector registers, and tiles where the processor has them, hold patterns.
#include <asm/prctl.h>
#include <immintrin.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../src/tracee.hpp"

namespace elastic::test {
namespace {

#define CHECK(condition)                                                         \
  do {                                                                           \
    if (!(condition)) {                                                          \
      std::printf("%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                              \
    }                                                                            \
  } while (false)

constexpr size_t kHeaderAt = 512, kExtendedAt = 576;
constexpr long kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl(ARCH_REQ_XCOMP_PERM)

std::vector<uint8_t> encoded(const Context& context) {
  std::vector<uint8_t> bytes(kContextBytesMax);
  bytes.resize(context.encode(bytes.data()));
  return bytes;
}

void fill(Context& context, uint32_t full_bytes, uint32_t bytes) {
  context.registers.rip = 0x1234;
  context.xstate_full_bytes = full_bytes;
  context.xstate_bytes = bytes;
  for (uint32_t at = 0; at < bytes; at++)
    context.xstate[at] = at / 64 % 3 == 2 ? 0 : static_cast<uint8_t>(at | 1);
}

void test_travel() {
  Context out, in;
  fill(out, 2696, 2752);
  const std::vector<uint8_t> bytes = encoded(out);
  CHECK(bytes.size() == kContextHeadBytes + 64 * (43 - 14));
  memset(in.xstate.data(), 0xff, in.xstate.size());
  CHECK(in.decode(bytes));
  CHECK(in.registers.rip == 0x1234 && in.xstate_full_bytes == 2696 && in.xstate_bytes == 2752);
  CHECK(memcmp(in.xstate.data(), out.xstate.data(), 2752) == 0);
  fill(out, kXstateBytesMax, kXstateBytesMax);
  CHECK(in.decode(encoded(out)) && memcmp(in.xstate.data(), out.xstate.data(), kXstateBytesMax) == 0);
  fill(out, kExtendedAt, 0);
  CHECK(encoded(out).size() == kContextHeadBytes);
  CHECK(in.decode(encoded(out)) && in.xstate_bytes == 0);
}

void test_malformed() {
  Context out, in;
  fill(out, 2696, 2752);
  const std::vector<uint8_t> right = encoded(out);
  for (size_t bytes = 0; bytes < right.size(); bytes++) CHECK(!in.decode(std::span(right).first(bytes)));
  std::vector<uint8_t> wrong = right;
  wrong.push_back(1);
  CHECK(!in.decode(wrong));
  for (const uint64_t full :
       {uint64_t{0}, uint64_t{575}, uint64_t{2688}, uint64_t{kXstateBytesMax + 1}, ~uint64_t{0}}) {
    wrong = right;
    memcpy(wrong.data() + sizeof(user_regs_struct), &full, sizeof full);
    CHECK(!in.decode(wrong));
  }
  wrong = right;  // a line of zeros
  memset(wrong.data() + kContextHeadBytes, 0, 64);
  CHECK(!in.decode(wrong));
  wrong = right;  // one line more than follow
  wrong[sizeof(user_regs_struct) + 8] |= 4;
  CHECK(!in.decode(wrong));
}

void test_known() {
  Context context;
  fill(context, 2696, 2752);
  KnownXstate known;
  CHECK(!known.is(context) && !known.differs_only_in_legacy_area(context));
  known.note(context);
  CHECK(known.is(context));
  context.registers.rip++;
  CHECK(known.is(context));
  const auto changed = [&](size_t at, uint8_t bits) {
    context.xstate[at] ^= bits;
    const int result = known.is(context) ? 2 : known.differs_only_in_legacy_area(context) ? 1 : 0;
    context.xstate[at] ^= bits;
    return result;
  };
  for (const size_t at : {size_t{0}, size_t{24}, size_t{160}, kHeaderAt - 1}) CHECK(changed(at, 8) == 1);
  CHECK(changed(kHeaderAt, 3) == 1);  // whether x87 and SSE are in use, which writing them says anyhow
  for (const size_t at : {kHeaderAt + 1, kHeaderAt + 8, kExtendedAt, size_t{2751}})
    CHECK(changed(at, 8) == 0);
  CHECK(changed(kHeaderAt, 4) == 0);
  context.xstate_bytes -= 64;
  CHECK(!known.is(context) && !known.differs_only_in_legacy_area(context));
  context.xstate_bytes += 64;
  context.xstate_full_bytes++;
  CHECK(!known.is(context) && !known.differs_only_in_legacy_area(context));
  context.xstate_full_bytes--;
  known.forget();
  CHECK(!known.is(context) && !known.differs_only_in_legacy_area(context));
}

// What a task has in its registers, as far as the processor has them.
struct Pattern {
  alignas(64) uint8_t vectors[32 * 64];
  alignas(64) uint8_t tile[1024];
  uint32_t mxcsr;
};

__attribute__((target("avx512f"))) void load_zmm(const uint8_t* from) {
  __asm__ volatile("vmovdqu64 (%0), %%zmm1\n\tvmovdqu64 64(%0), %%zmm31" : : "r"(from) : "memory");
}
__attribute__((target("avx512f"))) void store_zmm(uint8_t* to) {
  __asm__ volatile("vmovdqu64 %%zmm1, (%0)\n\tvmovdqu64 %%zmm31, 64(%0)" : : "r"(to) : "memory");
}
__attribute__((target("avx"))) void load_ymm(const uint8_t* from) {
  __asm__ volatile("vmovdqu (%0), %%ymm1\n\tvmovdqu 32(%0), %%ymm15" : : "r"(from) : "memory");
}
__attribute__((target("avx"))) void store_ymm(uint8_t* to) {
  __asm__ volatile("vmovdqu %%ymm1, (%0)\n\tvmovdqu %%ymm15, 32(%0)" : : "r"(to) : "memory");
}
__attribute__((target("amx-tile"))) void load_tile(const uint8_t* from) {
  alignas(64) uint8_t config[64] = {1};
  config[16] = 64;                                  // bytes in a row of tile 0
  config[48] = 16;                                  // rows
  __asm__ volatile("" : : "r"(config) : "memory");  // the intrinsic tells the compiler of 8 bytes alone
  _tile_loadconfig(config);
  _tile_loadd(0, from, 64);
}
__attribute__((target("amx-tile"))) void store_tile(uint8_t* to) { _tile_stored(0, to, 64); }

// A task that, each time it goes on from a breakpoint, has stored its registers, and loads what is said next.
struct Task {
  Pattern* load = nullptr;
  Pattern* stored = nullptr;
  pid_t pid = 0;
};

enum class Uses { sse, avx, avx512, amx };

[[noreturn]] void run_task(const Task& task, Uses uses) {
  if (uses == Uses::amx) syscall(SYS_arch_prctl, kRequestPermission, kTileData);
  ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
  raise(SIGSTOP);
  const Pattern& from = *task.load;
  Pattern& to = *task.stored;
  _mm_setcsr(from.mxcsr);
  if (uses == Uses::amx) load_tile(from.tile);
  if (uses == Uses::avx512) load_zmm(from.vectors);
  if (uses == Uses::avx) load_ymm(from.vectors);
  if (uses == Uses::sse) __asm__ volatile("movdqu (%0), %%xmm1" : : "r"(from.vectors) : "memory");
  __asm__ volatile("int3");
  if (uses == Uses::sse) __asm__ volatile("movdqu %%xmm1, (%0)" : : "r"(to.vectors) : "memory");
  if (uses == Uses::avx) store_ymm(to.vectors);
  if (uses == Uses::avx512) store_zmm(to.vectors);
  if (uses == Uses::amx) store_tile(to.tile);
  to.mxcsr = _mm_getcsr();
  __asm__ volatile("int3");
  _exit(0);
}

void go_on(const Task& task) {
  int status = 0;
  CHECK(ptrace(PTRACE_CONT, task.pid, nullptr, nullptr) == 0);
  CHECK(waitpid(task.pid, &status, __WALL) == task.pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
}

// Stopped with its pattern in its registers.
Task start_task(Uses uses, uint8_t seed) {
  Task task;
  void* shared =
      mmap(nullptr, 2 * sizeof(Pattern), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(shared != MAP_FAILED);
  task.load = static_cast<Pattern*>(shared);
  task.stored = task.load + 1;
  for (size_t i = 0; i < sizeof task.load->vectors; i++)
    task.load->vectors[i] = static_cast<uint8_t>(i * 7 + seed);
  for (size_t i = 0; i < sizeof task.load->tile; i++) task.load->tile[i] = static_cast<uint8_t>(i * 5 + seed);
  task.load->mxcsr = seed % 2 == 0 ? 0x1f80 : 0x7f80;
  task.pid = fork();
  CHECK(task.pid >= 0);
  if (task.pid == 0) run_task(task, uses);
  int status = 0;
  CHECK(waitpid(task.pid, &status, __WALL) == task.pid && WIFSTOPPED(status));
  go_on(task);
  return task;
}

void expect(const Task& task, const Pattern& pattern, Uses uses) {
  go_on(task);
  const size_t bytes = uses == Uses::sse ? 16 : uses == Uses::avx ? 64 : uses == Uses::avx512 ? 128 : 0;
  CHECK(memcmp(task.stored->vectors, pattern.vectors, bytes) == 0);
  if (uses == Uses::amx) CHECK(memcmp(task.stored->tile, pattern.tile, sizeof pattern.tile) == 0);
  CHECK(task.stored->mxcsr == pattern.mxcsr);
  kill(task.pid, SIGKILL);
  waitpid(task.pid, nullptr, __WALL);
}

// The context of one task goes, over the wire, into another one.
void test_tasks(Uses uses, bool known) {
  const Task from = start_task(uses, 3), to = start_task(uses, 4);
  Context sent, there, came;
  KnownXstate xstate;
  CHECK(get_context(from.pid, sent) && get_context(to.pid, there));
  CHECK(came.decode(encoded(sent)));
  // Their stacks and code are alike; what differs is the pattern.
  came.registers = there.registers;
  if (known) xstate.note(there);
  CHECK(set_context(to.pid, came, xstate));
  CHECK(!xstate.is(came));
  Context back;
  CHECK(get_context(to.pid, back));
  back.xstate[kHeaderAt] |= 3;  // x87 and SSE count as used once they have been written
  came.xstate[kHeaderAt] |= 3;
  CHECK(encoded(back) == encoded(came));
  expect(to, *from.load, uses);
  expect(from, *from.load, uses);
}

void test_unchanged() {
  const Task task = start_task(Uses::sse, 3);
  Context context;
  KnownXstate xstate;
  CHECK(get_context(task.pid, context));
  xstate.note(context);
  CHECK(set_context(task.pid, context, xstate));
  expect(task, *task.load, Uses::sse);
}

bool has_tiles() {
  return __builtin_cpu_supports("amx-tile") && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

int run() {
  test_travel();
  test_malformed();
  test_known();
  test_unchanged();
  for (const bool known : {false, true}) {
    test_tasks(Uses::sse, known);
    if (__builtin_cpu_supports("avx")) test_tasks(Uses::avx, known);
    if (__builtin_cpu_supports("avx512f")) test_tasks(Uses::avx512, known);
    if (has_tiles()) test_tasks(Uses::amx, known);
  }
  std::puts("all context tests passed");
  return 0;
}

}  // namespace
}  // namespace elastic::test

int main() { return elastic::test::run(); }
