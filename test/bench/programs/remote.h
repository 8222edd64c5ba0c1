/* What the benchmark programs share: a clock, and an array that has left this node. The vDSO's clock is used,
 * so reading it costs no system call and a thread that asks stays where it is (or comes home for it). */
#ifndef REMOTE_H
#define REMOTE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE 4096ul

static inline uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static inline void give_up(const char* what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

/* `pages` pages that no two look alike and none is zero. */
static inline unsigned char* filled(size_t pages, unsigned char seed) {
  unsigned char* at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) give_up("no memory");
  for (size_t i = 0; i < pages; i++) {
    memset(at + i * PAGE, (int)(seed | 1), PAGE);
    memcpy(at + i * PAGE + 8, &i, sizeof i);
  }
  return at;
}

/* Page i of `at` still holds what filled() wrote. */
static inline int is_right(const unsigned char* at, size_t i, unsigned char seed) {
  size_t number;
  memcpy(&number, at + i * PAGE + 8, sizeof number);
  return number == i && at[i * PAGE] == (unsigned char)(seed | 1);
}

/* A step through `pages` (a power of two) that visits each once and never comes near the last ones: the
 * golden section, made odd. */
static inline size_t stride_of(size_t pages) { return (size_t)((double)pages * 0.6180339887) | 1; }

#endif
