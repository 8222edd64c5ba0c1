/*
 * Memory calls with odd arguments: prints what each combination answers, so that a stretched run can be
 * compared with one alone, line by line. Every call aims at a fixed arena that is laid out anew before it:
 * two pages of anonymous memory, a hole of two pages, two pages of a private file mapping, two read-only
 * pages. Addresses are printed relative to the arena.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"

static char* const arena = (char*)0x200000000000;
enum { ARENA_PAGES = 16 };
static int file = -1;

static void lay_out(void) {
  const int fixed = MAP_PRIVATE | MAP_FIXED;
  munmap(arena, ARENA_PAGES * PAGE_BYTES);
  if (mmap(arena, 2 * PAGE_BYTES, PROT_READ | PROT_WRITE, fixed | MAP_ANONYMOUS, -1, 0) != arena)
    fail("no arena");
  mmap(arena + 4 * PAGE_BYTES, 2 * PAGE_BYTES, PROT_READ | PROT_WRITE, fixed, file, 0);
  mmap(arena + 6 * PAGE_BYTES, 2 * PAGE_BYTES, PROT_READ, fixed | MAP_ANONYMOUS, -1, 0);
  arena[0] = 1;
  arena[PAGE_BYTES] = 2;
  arena[4 * PAGE_BYTES] = 3;
}

static void report(const char* call, long a, long b, long c, long d, long result) {
  const int error = errno;
  printf("%s %lx %lx %lx %lx: ", call, a, b, c, d);
  if (result >= -4095 && result < 0)
    printf("%s\n", strerror(result == -1 ? error : (int)-result));
  else if (result >= (long)arena && result < (long)(arena + 64 * PAGE_BYTES))
    printf("arena + %lx\n", result - (long)arena);
  else
    printf("%s\n", result == 0 ? "0" : "elsewhere");
}

static const long offsets[] = {
    0, 1, PAGE_BYTES, 2 * PAGE_BYTES, 3 * PAGE_BYTES, 4 * PAGE_BYTES, 6 * PAGE_BYTES};
static const long lengths[] = {0,        1,   PAGE_BYTES, PAGE_BYTES + 1, 2 * PAGE_BYTES, 4 * PAGE_BYTES,
                               1L << 47, -1L, -PAGE_BYTES};
#define EACH(name, list) for (size_t name = 0; name < sizeof list / sizeof *list; name++)

static void simple_calls(void) {
  static const long protections[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, 8, 0x1000000};
  static const long advices[] = {MADV_NORMAL,   MADV_DONTNEED, MADV_FREE, MADV_WILLNEED,
                                 MADV_DONTFORK, MADV_DOFORK,   99};
  EACH(o, offsets) EACH(l, lengths) {
    const long at = (long)arena + offsets[o], length = lengths[l];
    lay_out();
    report("munmap", offsets[o], length, 0, 0, syscall(SYS_munmap, at, length));
    EACH(p, protections) {
      lay_out();
      report("mprotect", offsets[o], length, protections[p], 0,
             syscall(SYS_mprotect, at, length, protections[p]));
    }
    /* Advice about everything up there, stack and libraries included, is taken by the kernel: not here. */
    if (length != 1L << 47) EACH(v, advices) {
        lay_out();
        report("madvise", offsets[o], length, advices[v], 0, syscall(SYS_madvise, at, length, advices[v]));
        if (offsets[o] == 0 && length == 2 * PAGE_BYTES)
          printf("  %d %d\n", arena[0] * 0, arena[PAGE_BYTES] * 0);
      }
  }
}

static void map_calls(void) {
  static const long flags[] = {MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
                               MAP_PRIVATE | MAP_FIXED,
                               MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED,
                               MAP_ANONYMOUS | MAP_FIXED,
                               MAP_PRIVATE | MAP_SHARED | MAP_FIXED};
  EACH(o, offsets) EACH(l, lengths) EACH(f, flags) {
    lay_out();
    const long at = (long)arena + offsets[o];
    const int anonymous = (flags[f] & MAP_ANONYMOUS) != 0;
    report("mmap", offsets[o], lengths[l], flags[f], 0,
           syscall(SYS_mmap, at, lengths[l], PROT_READ | PROT_WRITE, flags[f], anonymous ? -1 : file, 0));
  }
  report("mmap odd offset", 0, 0, 0, 0, syscall(SYS_mmap, 0, PAGE_BYTES, PROT_READ, MAP_PRIVATE, file, 7));
  report("mmap no file", 0, 0, 0, 0, syscall(SYS_mmap, 0, PAGE_BYTES, PROT_READ, MAP_PRIVATE, 999, 0));
  report("mmap at 0", 0, 0, 0, 0,
         syscall(SYS_mmap, 0, 1L << 47, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  report("mmap beyond", 0, 0, 0, 0,
         syscall(SYS_mmap, 1L << 47, PAGE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
}

static long min(long a, long b) { return a < b ? a : b; }

static void moves(void) {
  static const long flags[] = {
      0, MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_MAYMOVE | MREMAP_FIXED, 64, MREMAP_MAYMOVE | MREMAP_DONTUNMAP};
  static const long sizes[] = {0, 1, PAGE_BYTES, 2 * PAGE_BYTES, 3 * PAGE_BYTES, 4 * PAGE_BYTES};
  EACH(o, offsets) EACH(a, sizes) EACH(b, sizes) EACH(f, flags) {
    /* What a move of more than one mapping answers depends on the kernel. */
    const long pages = (min(sizes[a], sizes[b]) + PAGE_BYTES - 1) / PAGE_BYTES, at = offsets[o] / PAGE_BYTES;
    if (at + pages > (at < 2 ? 2 : at < 6 ? 6 : 8)) continue;
    lay_out();
    report("mremap", offsets[o], sizes[a], sizes[b], flags[f],
           syscall(SYS_mremap, arena + offsets[o], sizes[a], sizes[b], flags[f], arena + 8 * PAGE_BYTES));
  }
}

int main(int argc, char** argv) {
  if (argc != 2) fail("wants the name of a file to make");
  file = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (file < 0 || ftruncate(file, 8 * PAGE_BYTES) != 0) fail("no file %s", argv[1]);
  simple_calls();
  map_calls();
  moves();
  void* const top = sbrk(0);
  report("brk below", 0, 0, 0, 0, syscall(SYS_brk, 4096) == (long)top ? 0 : -EINVAL);
  report("brk beyond", 0, 0, 0, 0, syscall(SYS_brk, 1L << 47) == (long)top ? 0 : -EINVAL);
  printf("done\n");
  return 0;
}
