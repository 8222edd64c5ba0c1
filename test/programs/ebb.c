/*
 * Memory that comes, goes, and comes again: fills it, gives all but the first third back when there is a file
 * `free` in its directory, checks that third and fills the rest once more when there is one called `again`,
 * and ends at one called `done`. While it waits it touches none of it. Arguments: pages.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"

static void wait_for(const char* name) {
  while (access(name, F_OK) != 0) usleep(10000);
}

static uint64_t* map(uint64_t pages) {
  void* at = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) fail("no memory for %lu pages", pages);
  return at;
}

int main(int argc, char** argv) {
  const uint64_t pages = number(argc, argv, 1, 6000), kept = pages / 3;
  uint64_t* first = map(kept);
  uint64_t* rest = map(pages - kept);
  fill(first, kept, 1);
  fill(rest, pages - kept, 2);
  wait_for("free");
  if (munmap(rest, (pages - kept) * PAGE_BYTES) != 0) fail("not unmapped");
  wait_for("again");
  verify(first, kept, 1, "what was kept");
  rest = map(pages - kept);
  fill(rest, pages - kept, 3);
  wait_for("done");
  verify(first, kept, 1, "what was kept for longer");
  verify(rest, pages - kept, 3, "what came again");
  printf("%lu pages\n", pages);
  return 0;
}
