/*
 * A mapping full of holes whose protection is changed again and again: each call fails at the first hole, and
 * everybody who is told of mappings is told of all its parts. Argument: calls. Says when it begins and ends.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "check.h"

enum { PAGES = 1024 };

int main(int argc, char** argv) {
  const uint64_t calls = number(argc, argv, 1, 2000);
  char* all = mmap(NULL, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) fail("no memory");
  for (uint64_t page = 1; page < PAGES; page += 2) munmap(all + page * PAGE_BYTES, PAGE_BYTES);
  puts("mapping");
  fflush(stdout);
  for (uint64_t i = 0; i < calls; i++)
    if (mprotect(all, PAGES * PAGE_BYTES, PROT_READ) == 0) fail("protected what is not there");
  puts("done");
  return 0;
}
