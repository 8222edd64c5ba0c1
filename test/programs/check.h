/*
 * Shared by the test programs: they verify what they read back, and exit with 1 and one line on the first
 * wrong byte. Contents are made by arithmetic, so that a page's right content is known from its number alone.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { PAGE_BYTES = 4096, PAGE_WORDS = PAGE_BYTES / 8 };

__attribute__((noreturn, format(printf, 1, 2))) static inline void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("WRONG: ", stdout);
  vfprintf(stdout, format, arguments);
  fputc('\n', stdout);
  fflush(stdout);
  va_end(arguments);
  _Exit(1);
}

/* The finaliser of MurmurHash3: every input bit changes about half of the output bits. */
static inline uint64_t mix(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdull;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ull;
  return x ^ (x >> 33);
}

/* Argument `index` as a number, or `otherwise`. */
static inline uint64_t number(int argc, char** argv, int index, uint64_t otherwise) {
  return index < argc ? strtoull(argv[index], NULL, 0) : otherwise;
}

/* Fills `pages` pages at `at` from `seed`: each word its own value. */
static inline void fill(uint64_t* at, uint64_t pages, uint64_t seed) {
  for (uint64_t i = 0; i < pages * PAGE_WORDS; i++) at[i] = mix(seed + i);
}

/* Every word must be what fill() wrote. */
static inline void verify(const uint64_t* at, uint64_t pages, uint64_t seed, const char* what) {
  for (uint64_t i = 0; i < pages * PAGE_WORDS; i++)
    if (at[i] != mix(seed + i))
      fail("%s: page %lu word %lu is %#lx, not %#lx", what, i / PAGE_WORDS, i % PAGE_WORDS, at[i],
           mix(seed + i));
}

/* All of it must be zero. */
static inline void verify_zero(const uint64_t* at, uint64_t pages, const char* what) {
  for (uint64_t i = 0; i < pages * PAGE_WORDS; i++)
    if (at[i] != 0) fail("%s: page %lu word %lu is %#lx, not 0", what, i / PAGE_WORDS, i % PAGE_WORDS, at[i]);
}
