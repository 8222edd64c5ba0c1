/*
 * The memory calls a program makes: brk, mmap at given places, munmap of the middle, mprotect, madvise. What
 * is freed and taken again must be zero; what stays must stay, also where it is away. Argument: pages.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"

static uint64_t* map(void* at, uint64_t pages, int prot, int flags) {
  uint64_t* got = mmap(at, pages * PAGE_BYTES, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  if (got == MAP_FAILED) fail("mmap of %lu pages", pages);
  return got;
}

static void heap(uint64_t pages) {
  char* start = sbrk(0);
  start += -(uintptr_t)start & (PAGE_BYTES - 1);
  if (brk(start + pages * PAGE_BYTES) != 0) fail("brk");
  uint64_t* words = (uint64_t*)start;
  verify_zero(words, pages, "new heap");
  fill(words, pages, 1);
  if (brk(start + pages / 2 * PAGE_BYTES) != 0) fail("brk down");
  verify(words, pages / 2, 1, "the heap that stayed");
  if (brk(start + pages * PAGE_BYTES) != 0) fail("brk up again");
  verify(words, pages / 2, 1, "the heap that stayed, again");
  verify_zero(words + pages / 2 * PAGE_WORDS, pages - pages / 2, "heap given back and taken again");
  if (brk(start) != 0) fail("brk to the start");
}

static void holes(uint64_t pages) {
  const uint64_t third = pages / 3;
  uint64_t* a = map(NULL, third * 3, PROT_READ | PROT_WRITE, 0);
  fill(a, third * 3, 2);
  uint64_t* middle = a + third * PAGE_WORDS;
  if (munmap(middle, third * PAGE_BYTES) != 0) fail("munmap");
  unsigned char there;
  if (mincore(middle, PAGE_BYTES, &there) == 0 || errno != ENOMEM) fail("the hole is mapped");
  verify(a, third, 2, "before the hole");
  verify(a + 2 * third * PAGE_WORDS, third, 2 + 2 * third * PAGE_WORDS, "after the hole");
  if (map(middle, third, PROT_READ | PROT_WRITE, MAP_FIXED_NOREPLACE) != middle)
    fail("the hole was not free");
  verify_zero(middle, third, "mapped anew in the hole");
  fill(middle, third, 3);
  if (map(a, third * 2, PROT_READ | PROT_WRITE, MAP_FIXED) != a) fail("mapping over");
  verify_zero(a, third * 2, "mapped over");
  verify(a + 2 * third * PAGE_WORDS, third, 2 + 2 * third * PAGE_WORDS, "beside what was mapped over");
  if (mmap(a, PAGE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) !=
          MAP_FAILED ||
      errno != EEXIST)
    fail("MAP_FIXED_NOREPLACE replaced");
  if (munmap(a, third * 3 * PAGE_BYTES) != 0) fail("munmap of all");
  if (munmap((char*)a + 1, PAGE_BYTES) == 0 || errno != EINVAL) fail("munmap of an odd address");
}

static void protection(uint64_t pages) {
  uint64_t* a = map(NULL, pages, PROT_NONE, 0);
  if (mprotect(a, pages * PAGE_BYTES, PROT_READ | PROT_WRITE) != 0) fail("mprotect");
  verify_zero(a, pages, "made accessible");
  fill(a, pages, 4);
  for (uint64_t page = 0; page < pages; page += 2)
    if (mprotect(a + page * PAGE_WORDS, PAGE_BYTES, page % 4 ? PROT_READ : PROT_NONE) != 0)
      fail("mprotect of one page");
  uint64_t* other = map(NULL, pages, PROT_READ | PROT_WRITE, 0);
  fill(other, pages, 5); /* pushes the first array away */
  if (mprotect(a, pages * PAGE_BYTES, PROT_READ) != 0) fail("mprotect back");
  verify(a, pages, 4, "after changes of protection");
  verify(other, pages, 5, "the other array");
  if (mprotect(a, pages * PAGE_BYTES, PROT_READ | PROT_WRITE) != 0) fail("mprotect to write");
  fill(a, pages, 6);
  verify(a, pages, 6, "written again");
  munmap(other, pages * PAGE_BYTES);
  munmap(a, pages * PAGE_BYTES);
}

static void advice(uint64_t pages) {
  uint64_t* a = map(NULL, pages, PROT_READ | PROT_WRITE, 0);
  fill(a, pages, 7);
  const uint64_t quarter = pages / 4;
  uint64_t* second = a + quarter * PAGE_WORDS;
  if (madvise(second, quarter * PAGE_BYTES, MADV_DONTNEED) != 0) fail("MADV_DONTNEED");
  verify(a, quarter, 7, "before the advised part");
  verify_zero(second, quarter, "the advised part");
  verify(second + quarter * PAGE_WORDS, pages - 2 * quarter, 7 + 2 * quarter * PAGE_WORDS,
         "after the advised part");
  fill(second, quarter, 8);
  if (madvise(a, pages * PAGE_BYTES, MADV_WILLNEED) != 0) fail("MADV_WILLNEED");
  verify(second, quarter, 8, "the advised part, written again");
  for (int round = 0; round < 50; round++) {
    a[(uint64_t)round * 7 % quarter * PAGE_WORDS] = 1;
    if (madvise(a, quarter * PAGE_BYTES, MADV_DONTNEED) != 0) fail("MADV_DONTNEED again");
  }
  verify_zero(a, quarter, "advised many times");
  verify(second, quarter, 8, "beside it");
  munmap(a, pages * PAGE_BYTES);
}

int main(int argc, char** argv) {
  const uint64_t pages = number(argc, argv, 1, 2400) & ~3ull;
  heap(pages);
  holes(pages);
  protection(pages);
  advice(pages);
  puts("maps: all right");
  return 0;
}
