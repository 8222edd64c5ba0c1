/*
 * Large static arrays: .data with contents from the file, .bss, and constants that stay read-only; and large
 * automatic ones: a deep recursion whose frames are verified on the way back.
 * Arguments: passes, depth of the recursion (4 KiB a frame).
 */
#include "check.h"

enum { DATA_PAGES = 1024, BSS_PAGES = 1500 };

#define FOUR(x) x, x + 1, x + 2, x + 3
#define SIXTEEN(x) FOUR(x), FOUR(x + 4), FOUR(x + 8), FOUR(x + 12)

/* Only some pages have contents other than zero; all of them are in the file. */
static uint64_t data[DATA_PAGES * PAGE_WORDS] = {
    SIXTEEN(100),
    [77 * PAGE_WORDS] = SIXTEEN(200),
    [500 * PAGE_WORDS + 9] = SIXTEEN(300),
    [DATA_PAGES * PAGE_WORDS - 16] = SIXTEEN(400),
};
static uint64_t bss[BSS_PAGES * PAGE_WORDS];
static const uint64_t constants[PAGE_WORDS] = {SIXTEEN(500)};

static void expect_initial(uint64_t at, uint64_t from) {
  for (uint64_t i = 0; i < 16; i++)
    if (data[at + i] != from + i) fail("data word %lu is %lu, not %lu", at + i, data[at + i], from + i);
}

__attribute__((noinline)) static uint64_t recurse(uint64_t depth, uint64_t seed) {
  volatile uint64_t frame[PAGE_WORDS - 8];
  for (int i = 0; i < PAGE_WORDS - 8; i += 16) frame[i] = mix(seed + depth + (uint64_t)i);
  const uint64_t below = depth == 0 ? 0 : recurse(depth - 1, seed);
  for (int i = 0; i < PAGE_WORDS - 8; i += 16)
    if (frame[i] != mix(seed + depth + (uint64_t)i)) fail("the frame at depth %lu is wrong", depth);
  return below + frame[0];
}

int main(int argc, char** argv) {
  const uint64_t passes = number(argc, argv, 1, 3), depth = number(argc, argv, 2, 1500);
  expect_initial(0, 100);
  expect_initial(77 * PAGE_WORDS, 200);
  expect_initial(500 * PAGE_WORDS + 9, 300);
  expect_initial(DATA_PAGES * PAGE_WORDS - 16, 400);
  uint64_t sum = 0;
  for (uint64_t i = 0; i < DATA_PAGES * PAGE_WORDS; i++) sum += data[i];
  if (sum != 16 * 1000 + 4 * 120) fail("the sum of .data is %lu", sum);
  verify_zero(bss, BSS_PAGES, ".bss");
  for (uint64_t pass = 0; pass < passes; pass++) {
    fill(bss, BSS_PAGES, pass);
    fill(data, DATA_PAGES, pass + 50);
    const uint64_t first = recurse(depth, pass), second = recurse(depth, pass);
    if (first != second) fail("two equal recursions differ");
    verify(bss, BSS_PAGES, pass, ".bss");
    verify(data, DATA_PAGES, pass + 50, ".data");
    printf("pass %lu: %#lx\n", pass, first);
  }
  if (constants[3] != 503 || constants[100] != 0) fail("constants changed");
  puts("statics: all right");
  return 0;
}
