/*
 * A mapping of parts that no kernel merges (every other page is not for children) whose protection is changed
 * again and again: everybody who is told of mappings is told of all its parts. Arguments: calls, and a pipe
 * whose other end is opened when they shall begin. Says when it waits for that and when it is done.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>

#include "check.h"

enum { PAGES = 1024 };

int main(int argc, char** argv) {
  const uint64_t calls = number(argc, argv, 1, 2000);
  char* all = mmap(NULL, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) fail("no memory");
  for (uint64_t page = 1; page < PAGES; page += 2)
    if (madvise(all + page * PAGE_BYTES, PAGE_BYTES, MADV_DONTFORK) != 0) fail("no advice");
  puts("waiting");
  fflush(stdout);
  if (argc < 3 || open(argv[2], O_RDONLY) < 0) fail("no pipe");
  for (uint64_t i = 0; i < calls; i++)
    if (mprotect(all, PAGES * PAGE_BYTES, i % 2 == 0 ? PROT_READ : PROT_NONE) != 0) fail("no protection");
  puts("done");
  return 0;
}
