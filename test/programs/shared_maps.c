/*
 * Memory that others share or that comes and goes: memfd, shared and private, with a child that writes it;
 * files mapped shared and private side by side; a heap of mappings that grow, move, shrink and end; MADV_FREE
 * and huge pages. Arguments: path of a file to make, pages, rounds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ballast.h"

enum { SHARED_PAGES = 200, PIECES = 40 };

static struct ballast ballast;

static uint64_t* map(uint64_t pages, int flags, int fd) {
  uint64_t* at = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (at == MAP_FAILED) fail("mmap of %lu pages", pages);
  return at;
}

static void unmap(uint64_t* at, uint64_t pages) {
  if (munmap(at, pages * PAGE_BYTES) != 0) fail("munmap");
}

/* Two views of one file, and a private copy that neither sees. */
static void views(int fd, uint64_t seed) {
  if (ftruncate(fd, SHARED_PAGES * PAGE_BYTES) != 0) fail("ftruncate");
  uint64_t *one = map(SHARED_PAGES, MAP_SHARED, fd), *other = map(SHARED_PAGES, MAP_SHARED, fd);
  fill(one, SHARED_PAGES, seed);
  ballast_walk(&ballast, ballast.pages / 2);
  verify(other, SHARED_PAGES, seed, "the other view");
  uint64_t* private = map(SHARED_PAGES, MAP_PRIVATE, fd);
  verify(private, SHARED_PAGES, seed, "the private view");
  fill(private, SHARED_PAGES, seed + 1);
  verify(one, SHARED_PAGES, seed, "a view beside a private one");
  fflush(stdout);
  const pid_t pid = fork();
  if (pid < 0) fail("fork");
  if (pid == 0) {
    verify(private, SHARED_PAGES, seed + 1, "the child's private view");
    fill(other, SHARED_PAGES, seed + 2);
    fill(private, SHARED_PAGES, seed + 3);
    _exit(0);
  }
  int status;
  if (waitpid(pid, &status, 0) != pid || status != 0) fail("the child ended with %#x", status);
  verify(one, SHARED_PAGES, seed + 2, "what the child wrote");
  ballast_walk(&ballast, ballast.pages / 2);
  verify(private, SHARED_PAGES, seed + 1, "what the child's private view was");
  uint64_t word;
  if (msync(one, SHARED_PAGES * PAGE_BYTES, MS_SYNC) != 0) fail("msync");
  if (pread(fd, &word, 8, 7 * PAGE_BYTES) != 8 || word != mix(seed + 2 + 7 * PAGE_WORDS)) fail("pread");
  word = 4711;
  if (pwrite(fd, &word, 8, 9 * PAGE_BYTES) != 8 || other[9 * PAGE_WORDS] != 4711) fail("pwrite");
  unmap(one, SHARED_PAGES), unmap(other, SHARED_PAGES), unmap(private, SHARED_PAGES);
}

static void sealed(void) {
  const int fd = memfd_create("sealed", MFD_ALLOW_SEALING);
  if (fd < 0) fail("memfd_create");
  views(fd, 100);
  if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0) fail("F_ADD_SEALS");
  if (ftruncate(fd, 0) == 0 || errno != EPERM) fail("a sealed file shrank");
  if (mmap(NULL, PAGE_BYTES, PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED) fail("a sealed file is writable");
  uint64_t* private = map(SHARED_PAGES, MAP_PRIVATE, fd);
  if (private[9 * PAGE_WORDS] != 4711) fail("a sealed file lost what it had");
  unmap(private, SHARED_PAGES);
  close(fd);
}

struct piece {
  uint64_t *at, pages, seed;
};

/* Pieces grow, shrink, move and end in an order drawn by arithmetic. */
static void grow_and_shrink(uint64_t rounds) {
  struct piece pieces[PIECES] = {0};
  for (uint64_t step = 0; step < rounds * PIECES; step++) {
    struct piece* piece = &pieces[mix(step) % PIECES];
    const uint64_t pages = 1 + mix(step + 1) % 60;
    if (piece->at == NULL) {
      *piece = (struct piece){map(pages, MAP_PRIVATE | MAP_ANONYMOUS, -1), pages, step};
      verify_zero(piece->at, pages, "a new piece");
      fill(piece->at, pages, step);
      continue;
    }
    const uint64_t common = pages < piece->pages ? pages : piece->pages;
    verify(piece->at, piece->pages, piece->seed, "a piece");
    if (step % 5 == 0) {
      unmap(piece->at, piece->pages);
      piece->at = NULL;
      continue;
    }
    piece->at = mremap(piece->at, piece->pages * PAGE_BYTES, pages * PAGE_BYTES, MREMAP_MAYMOVE);
    if (piece->at == MAP_FAILED) fail("mremap from %lu to %lu pages", piece->pages, pages);
    verify(piece->at, common, piece->seed, "a resized piece");
    verify_zero(piece->at + common * PAGE_WORDS, pages - common, "what a piece gained");
    *piece = (struct piece){piece->at, pages, step};
    fill(piece->at, pages, step);
  }
  for (int i = 0; i < PIECES; i++)
    if (pieces[i].at != NULL) verify(pieces[i].at, pieces[i].pages, pieces[i].seed, "a piece at the end");
}

static void advice(uint64_t pages) {
  uint64_t* at = map(pages, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  /* A kernel without huge pages says EINVAL. */
  if (madvise(at, pages * PAGE_BYTES, MADV_HUGEPAGE) != 0 && errno != EINVAL) fail("MADV_HUGEPAGE");
  fill(at, pages, 11);
  if (madvise(at, pages / 2 * PAGE_BYTES, MADV_FREE) != 0) fail("MADV_FREE");
  /* A freed page has what it had, or zeros; what is written after the call stays. */
  for (uint64_t page = 0; page < pages / 2; page++) {
    const uint64_t first = page * PAGE_WORDS;
    if (at[first] != 0 && at[first] != mix(11 + first)) fail("freed page %lu has %#lx", page, at[first]);
    at[first + 1] = page;
  }
  ballast_walk(&ballast, ballast.pages);
  for (uint64_t page = 0; page < pages / 2; page++)
    if (at[page * PAGE_WORDS + 1] != page) fail("page %lu was written after it was freed", page);
  verify(at + pages / 2 * PAGE_WORDS, pages - pages / 2, 11 + pages / 2 * PAGE_WORDS,
         "beside what was freed");
  if (madvise(at, pages * PAGE_BYTES, MADV_NOHUGEPAGE) != 0 && errno != EINVAL) fail("MADV_NOHUGEPAGE");
  if (madvise(at, pages * PAGE_BYTES, MADV_DONTNEED) != 0) fail("MADV_DONTNEED");
  verify_zero(at, pages, "after MADV_DONTNEED");
  unmap(at, pages);
}

int main(int argc, char** argv) {
  const uint64_t pages = number(argc, argv, 2, 2500), rounds = number(argc, argv, 3, 5);
  if (argc < 2) fail("no path");
  ballast = ballast_make(pages);
  const int fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (fd < 0) fail("cannot make %s", argv[1]);
  views(fd, 1);
  sealed();
  grow_and_shrink(rounds);
  advice(pages / 4);
  ballast_walk(&ballast, pages);
  puts("shared maps: all right");
  return 0;
}
