/*
 * Processor state live across moves: vector registers (AVX, and AVX-512 with its masks where the machine has
 * it), the x87 stack, and the control words of both, which hold patterns while a loop touches one page after
 * the other. The loop and the state are in one assembler block, so that the compiler puts nothing else into
 * the registers. Arguments: pages, passes.
 */
#include <immintrin.h>
#include <string.h>

#include "ballast.h"

static uint8_t before[32 * 64] __attribute__((aligned(64))), after[32 * 64] __attribute__((aligned(64)));
static uint64_t masks_before[8], masks_after[8];

#define TOUCH            \
  "1: incq (%[at])\n\t"  \
  "add $4096, %[at]\n\t" \
  "dec %[left]\n\t"      \
  "jnz 1b\n\t"
#define EACH8(op, a) op(a, 0) op(a, 1) op(a, 2) op(a, 3) op(a, 4) op(a, 5) op(a, 6) op(a, 7)
#define EACH16(op) EACH8(op, ) op(, 8) op(, 9) op(1, 0) op(1, 1) op(1, 2) op(1, 3) op(1, 4) op(1, 5)
#define EACH32(op)                                                                                   \
  EACH16(op)                                                                                         \
  op(1, 6) op(1, 7) op(1, 8) op(1, 9) op(2, 0) op(2, 1) op(2, 2) op(2, 3) op(2, 4) op(2, 5) op(2, 6) \
      op(2, 7) op(2, 8) op(2, 9) op(3, 0) op(3, 1)
#define LOAD_YMM(a, b) "vmovdqu " #a #b "*32(%[from]), %%ymm" #a #b "\n\t"
#define STORE_YMM(a, b) "vmovdqu %%ymm" #a #b ", " #a #b "*32(%[to])\n\t"
#define LOAD_ZMM(a, b) "vmovdqu64 " #a #b "*64(%[from]), %%zmm" #a #b "\n\t"
#define STORE_ZMM(a, b) "vmovdqu64 %%zmm" #a #b ", " #a #b "*64(%[to])\n\t"
#define LOAD_MASK(a, b) "kmovw " #a #b "*8(%[masks]), %%k" #a #b "\n\t"
#define STORE_MASK(a, b) "kmovw %%k" #a #b ", " #a #b "*8(%[masks_to])\n\t"
#define LOW_REGISTERS                                                                                        \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", \
      "xmm13", "xmm14", "xmm15"
#define HIGH_REGISTERS                                                                               \
  "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", \
      "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"

__attribute__((target("avx"))) static void walk_avx(uint64_t* at, uint64_t left) {
  __asm__ volatile(EACH16(LOAD_YMM) TOUCH EACH16(STORE_YMM) "vzeroupper"
                   : [at] "+r"(at), [left] "+r"(left)
                   : [from] "r"(before), [to] "r"(after)
                   : "memory", "cc", LOW_REGISTERS);
}

__attribute__((target("avx512f"))) static void walk_avx512(uint64_t* at, uint64_t left) {
  __asm__ volatile(
      EACH32(LOAD_ZMM) EACH8(LOAD_MASK, ) TOUCH EACH32(STORE_ZMM) EACH8(STORE_MASK, ) "vzeroupper"
      : [at] "+r"(at), [left] "+r"(left)
      : [from] "r"(before), [to] "r"(after), [masks] "r"(masks_before), [masks_to] "r"(masks_after)
      : "memory", "cc", LOW_REGISTERS, HIGH_REGISTERS);
}

/* Eight numbers on the x87 stack, which is then popped in the other order. */
static void walk_x87(uint64_t* at, uint64_t left, const double* from, double* to) {
  __asm__ volatile(
      "fldl (%[from])\n\tfldl 8(%[from])\n\tfldl 16(%[from])\n\tfldl 24(%[from])\n\t"
      "fldl 32(%[from])\n\tfldl 40(%[from])\n\tfldl 48(%[from])\n\tfldl 56(%[from])\n\t" TOUCH
      "fstpl 56(%[to])\n\tfstpl 48(%[to])\n\tfstpl 40(%[to])\n\tfstpl 32(%[to])\n\t"
      "fstpl 24(%[to])\n\tfstpl 16(%[to])\n\tfstpl 8(%[to])\n\tfstpl (%[to])"
      : [at] "+r"(at), [left] "+r"(left)
      : [from] "r"(from), [to] "r"(to)
      : "memory", "cc", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");
}

static void new_patterns(uint64_t seed) {
  for (size_t i = 0; i < sizeof before / 8; i++) ((uint64_t*)before)[i] = mix(seed + i);
  for (int i = 0; i < 8; i++) masks_before[i] = mix(seed * 31 + (uint64_t)i) & 0xffff;
  memset(after, 0, sizeof after);
  memset(masks_after, 0, sizeof masks_after);
}

static void set_control(uint32_t mxcsr, uint16_t word) {
  _mm_setcsr(mxcsr);
  __asm__ volatile("fldcw %0" : : "m"(word));
}

static void expect_control(uint32_t mxcsr, uint16_t word) {
  uint16_t now;
  __asm__ volatile("fnstcw %0" : "=m"(now));
  if (now != word) fail("the x87 control word is %#x, not %#x", now, word);
  /* The low six bits are flags of what has happened. */
  if ((_mm_getcsr() & ~0x3fu) != mxcsr) fail("mxcsr is %#x, not %#x", _mm_getcsr(), mxcsr);
}

int main(int argc, char** argv) {
  const uint64_t pages = number(argc, argv, 1, 3000), passes = number(argc, argv, 2, 6);
  uint64_t* array = calloc(pages, PAGE_BYTES);
  if (array == NULL) fail("no memory");
  static const uint32_t mxcsrs[] = {0x1f80, 0x3f80, 0x5f80, 0x7f80, 0x9fc0}; /* roundings; flush to zero */
  static const uint16_t words[] = {0x037f, 0x077f, 0x0b7f, 0x0f7f, 0x027f};  /* roundings; 53 bits */
  const int avx = __builtin_cpu_supports("avx"), avx512 = __builtin_cpu_supports("avx512f");
  uint64_t walks = 0;
  for (uint64_t pass = 0; pass < passes; pass++) {
    const uint32_t mxcsr = mxcsrs[pass % 5];
    const uint16_t word = words[pass % 5];
    new_patterns(pass);
    set_control(mxcsr, word);
    if (avx) {
      walk_avx(array, pages), walks++;
      if (memcmp(before, after, 16 * 32) != 0) fail("pass %lu: an AVX register changed", pass);
    }
    if (avx512) {
      walk_avx512(array, pages), walks++;
      if (memcmp(before, after, 32 * 64) != 0) fail("pass %lu: an AVX-512 register changed", pass);
      if (memcmp(masks_before, masks_after, sizeof masks_before) != 0) fail("pass %lu: a mask changed", pass);
    }
    double numbers[8], back[8];
    for (int i = 0; i < 8; i++) numbers[i] = (double)(pass * 8 + (uint64_t)i) + 0.25;
    walk_x87(array, pages, numbers, back), walks++;
    if (memcmp(numbers, back, sizeof back) != 0) fail("pass %lu: the x87 stack changed", pass);
    expect_control(mxcsr, word);
  }
  set_control(0x1f80, 0x037f);
  for (uint64_t page = 0; page < pages; page++)
    if (array[page * PAGE_WORDS] != walks)
      fail("page %lu: %lu visits of %lu", page, array[page * PAGE_WORDS], walks);
  printf("vectors: %lu walks, AVX %d, AVX-512 %d\n", walks, avx != 0, avx512 != 0);
  return 0;
}
