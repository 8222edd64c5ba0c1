/*
 * The paper's counter program: one counter in memory, one in a register. Every 10 counts it touches the next
 * page of an array that is larger than the memory limit, so that with `--jump-every 1` it moves between the
 * nodes all the time; the walk goes round several times, so pages that were pushed away are visited again.
 * Each page holds how often it was visited. Arguments: counts, pages of the array.
 */
#include <sys/mman.h>

#include "check.h"

static volatile uint64_t in_memory;

int main(int argc, char** argv) {
  const uint64_t counts = number(argc, argv, 1, 120000), pages = number(argc, argv, 2, 5000);
  uint64_t* array =
      mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (array == MAP_FAILED) fail("no memory");
  register uint64_t in_register = 0;
  for (uint64_t i = 0; i < counts; i++) {
    in_memory++;
    __asm__ volatile("incq %0" : "+r"(in_register));
    if (i % 10 != 0) continue;
    const uint64_t visit = i / 10, page = visit % pages;
    uint64_t* cell = array + page * PAGE_WORDS + page % PAGE_WORDS;
    if (*cell != visit / pages)
      fail("page %lu was visited %lu times, it says %lu", page, visit / pages, *cell);
    *cell += 1;
  }
  if (in_memory != counts || in_register != counts)
    fail("after %lu counts: %lu in memory, %lu in the register", counts, in_memory, in_register);
  printf("%lu counts, in memory %lu, in the register %lu\n", counts, in_memory, in_register);
  return 0;
}
