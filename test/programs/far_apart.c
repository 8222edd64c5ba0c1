/*
 * Memory of which one page in a mebibyte is used, several times over, in an order that no prefetch knows.
 *
 * far_apart MEBIBYTES ROUNDS
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "check.h"

enum { MEBIBYTE_BITS = 20, STRIDE = 7919 };

int main(int argc, char** argv) {
  const uint64_t count = number(argc, argv, 1, 32768), rounds = number(argc, argv, 2, 2);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  char* const memory = mmap(NULL, count << MEBIBYTE_BITS, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED) fail("no memory");
  for (uint64_t round = 0; round < rounds; round++)
    for (uint64_t i = 0; i < count; i++) {
      uint64_t* const word = (uint64_t*)(memory + (i * STRIDE % count << MEBIBYTE_BITS));
      if (*word != round) fail("round %lu: %lu", round, *word);
      *word += 1;
    }
  puts("far apart: all right");
  return 0;
}
