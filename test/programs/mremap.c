/*
 * mremap: growing in place, moving, to a fixed place, shrinking, and leaving the old mapping behind, with
 * contents that are partly away; then a realloc that grows step by step. Argument: pages.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "check.h"

enum { MAP_FLAGS = MAP_PRIVATE | MAP_ANONYMOUS };

static uint64_t* map(void* at, uint64_t pages, int flags) {
  uint64_t* got = mmap(at, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_FLAGS | flags, -1, 0);
  if (got == MAP_FAILED) fail("mmap of %lu pages", pages);
  return got;
}

static uint64_t* remap(uint64_t* from, uint64_t pages, uint64_t new_pages, int flags, void* to) {
  uint64_t* got = mremap(from, pages * PAGE_BYTES, new_pages * PAGE_BYTES, flags, to);
  if (got == MAP_FAILED) fail("mremap of %lu to %lu pages: %s", pages, new_pages, strerror(errno));
  return got;
}

static void absent(uint64_t* at, const char* what) {
  unsigned char there;
  if (mincore(at, PAGE_BYTES, &there) == 0) fail("%s: still mapped", what);
}

int main(int argc, char** argv) {
  const uint64_t pages = number(argc, argv, 1, 2000);
  uint64_t* space = map(NULL, pages * 8, 0);
  munmap(space, pages * 8 * PAGE_BYTES);
  uint64_t* a = map(space, pages, MAP_FIXED);
  fill(a, pages, 1);
  if (remap(a, pages, pages + 50, 0, NULL) != a) fail("growing in place moved it");
  verify(a, pages, 1, "grown in place");
  verify_zero(a + pages * PAGE_WORDS, 50, "the grown part");
  fill(a + pages * PAGE_WORDS, 50, 1 + pages * PAGE_WORDS);
  uint64_t* wall = map(a + (pages + 50) * PAGE_WORDS, 1, MAP_FIXED);
  *wall = 99;
  if (mremap(a, (pages + 50) * PAGE_BYTES, (pages + 100) * PAGE_BYTES, 0) != MAP_FAILED || errno != ENOMEM)
    fail("grew through another mapping");
  uint64_t* b = remap(a, pages + 50, pages + 100, MREMAP_MAYMOVE, NULL);
  if (b == a) fail("did not move");
  verify(b, pages + 50, 1, "moved");
  verify_zero(b + (pages + 50) * PAGE_WORDS, 50, "the part that a move added");
  absent(a, "the old place of a moved mapping");
  if (*wall != 99) fail("the neighbour changed");
  uint64_t* target = space + pages * 4 * PAGE_WORDS;
  fill(map(target, pages / 2, MAP_FIXED), pages / 2, 5); /* is replaced */
  uint64_t* c = remap(b, pages + 100, pages, MREMAP_MAYMOVE | MREMAP_FIXED, target);
  if (c != target) fail("not at the fixed place");
  verify(c, pages, 1, "at a fixed place");
  absent(b, "the old place");
  if (remap(c, pages, pages / 2, 0, NULL) != c) fail("shrinking moved it");
  verify(c, pages / 2, 1, "shrunk");
  absent(c + pages / 2 * PAGE_WORDS, "the part cut off");
  uint64_t* d = remap(c, pages / 2, pages / 2, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
  verify(d, pages / 2, 1, "moved, the old mapping left");
  verify_zero(c, pages / 2, "the mapping left behind");
  *wall = 1;
  uint64_t *grown = NULL, have = 0;
  for (uint64_t size = 40; size < pages; size = size * 5 / 4 + 1) {
    grown = realloc(grown, size * PAGE_BYTES);
    if (grown == NULL) fail("realloc");
    verify(grown, have, 9, "after realloc");
    fill(grown + have * PAGE_WORDS, size - have, 9 + have * PAGE_WORDS);
    have = size;
  }
  verify(grown, have, 9, "at the end");
  verify(d, pages / 2, 1, "the moved mapping at the end");
  puts("mremap: all right");
  return 0;
}
