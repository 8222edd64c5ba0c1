/*
 * Reads and writes single words of an array in random order: what prefetching must not make worse. Arguments:
 * pages of the array, accesses, hot pages. If there are any, seven of eight accesses go to these first ones.
 */
#include "check.h"

int main(int argc, char** argv) {
  const uint64_t pages = number(argc, argv, 1, 4000), accesses = number(argc, argv, 2, 20000);
  const uint64_t hot = number(argc, argv, 3, 0);
  uint64_t* array = aligned_alloc(PAGE_BYTES, pages * PAGE_BYTES);
  if (array == NULL) fail("no memory");
  uint32_t* visits = calloc(pages, sizeof *visits);
  for (uint64_t page = 0; page < pages; page++) array[page * PAGE_WORDS] = page;
  for (uint64_t i = 0; i < accesses; i++) {
    const uint64_t page = mix(i + 77) % (hot > 0 && i % 8 != 0 ? hot : pages);
    uint64_t* cell = array + page * PAGE_WORDS;
    if (*cell != page + visits[page])
      fail("access %lu: page %lu says %lu, not %lu", i, page, *cell, page + visits[page]);
    *cell += 1;
    visits[page]++;
  }
  uint64_t sum = 0;
  for (uint64_t i = 0; i < pages; i++) sum += array[i * 7919 % pages * PAGE_WORDS]; /* not in order either */
  if (sum != pages * (pages - 1) / 2 + accesses) fail("the sum is %lu", sum);
  printf("%lu accesses, sum %lu\n", accesses, sum);
  return 0;
}
