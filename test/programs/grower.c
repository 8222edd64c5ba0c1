/*
 * Takes more memory whenever it is told to. Reads numbers from FILE (a pipe): each is as many MiB more, which
 * it fills; then it verifies all it has, and says how much that is. Ends with the pipe.
 */
#include "check.h"

enum { CHUNKS = 64, MEBIBYTE_PAGES = 256 };

int main(int argc, char** argv) {
  static uint64_t* chunks[CHUNKS];
  static uint64_t pages[CHUNKS];
  FILE* const orders = argc == 2 ? fopen(argv[1], "r") : NULL;
  if (orders == NULL) return 2;
  uint64_t sum = 0;
  uint32_t mebibytes;
  for (uint64_t count = 0; count < CHUNKS && fscanf(orders, "%u", &mebibytes) == 1;) {
    if (mebibytes > 0) {
      pages[count] = (uint64_t)mebibytes * MEBIBYTE_PAGES;
      chunks[count] = aligned_alloc(PAGE_BYTES, pages[count] * PAGE_BYTES);
      if (chunks[count] == NULL) fail("no memory");
      fill(chunks[count], pages[count], count);
      sum += pages[count++];
    }
    for (uint64_t i = 0; i < count; i++) verify(chunks[i], pages[i], i, "a chunk");
    printf("%lu pages are right\n", sum);
    fflush(stdout);
  }
  return 0;
}
