/*
 * Private mappings of a file: reading them shows the file, writing them does not reach it; made writable by
 * mprotect too. The last page's tail is zero, what lies beyond raises SIGBUS. A shared mapping beside it
 * works as ever. Arguments: path of a file to make, pages.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

static void write_all(int fd, const void* data, size_t bytes) {
  for (size_t at = 0; at < bytes;) {
    const ssize_t put = write(fd, (const char*)data + at, bytes - at);
    if (put <= 0) fail("writing the file");
    at += (size_t)put;
  }
}

static void verify_file(int fd, uint64_t pages) {
  static uint64_t buffer[PAGE_WORDS];
  for (uint64_t page = 0; page < pages; page++) {
    if (pread(fd, buffer, PAGE_BYTES, (off_t)(page * PAGE_BYTES)) != PAGE_BYTES) fail("reading the file");
    verify(buffer, 1, 1 + page * PAGE_WORDS, "the file");
  }
}

static sigjmp_buf back;
static volatile uintptr_t fault_at;
static volatile int fault_code;

static void on_bus(int number, siginfo_t* info, void* context) {
  (void)number, (void)context;
  fault_at = (uintptr_t)info->si_addr;
  fault_code = info->si_code;
  siglongjmp(back, 1);
}

static void expect_bus(char* beyond) {
  fault_at = 0;
  if (sigsetjmp(back, 1) == 0) {
    const char seen = *(volatile char*)beyond;
    fail("beyond the file's end there is %d", seen);
  }
  if (fault_at != (uintptr_t)beyond || fault_code != BUS_ADRERR)
    fail("SIGBUS at %#lx, code %d", fault_at, fault_code);
}

/* The file has `pages` pages and a bit: the page after those is there, the ones beyond raise SIGBUS. */
static void beyond_the_end(int fd, uint64_t pages) {
  struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
  sigaction(SIGBUS, &action, NULL);
  for (int writable = 0; writable < 3; writable++) {
    const int protection = writable == 1 ? PROT_READ | PROT_WRITE : PROT_READ;
    char* map = mmap(NULL, (pages + 5) * PAGE_BYTES, protection, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) fail("mmap beyond the end");
    if (writable == 2 && mprotect(map, (pages + 5) * PAGE_BYTES, PROT_READ | PROT_WRITE) != 0)
      fail("mprotect");
    expect_bus(map + (pages + 1) * PAGE_BYTES + 100);
    if (map[pages * PAGE_BYTES] != 't' || map[(pages + 1) * PAGE_BYTES - 1] != 0) fail("the last page");
    munmap(map, (pages + 5) * PAGE_BYTES);
  }
}

int main(int argc, char** argv) {
  if (argc < 2) fail("usage: filemap PATH [PAGES]");
  const uint64_t pages = number(argc, argv, 2, 2500);
  const int fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (fd < 0) fail("cannot make %s", argv[1]);
  uint64_t* whole = malloc(pages * PAGE_BYTES);
  fill(whole, pages, 1);
  write_all(fd, whole, pages * PAGE_BYTES); /* a write from pages that are away */
  write_all(fd, "tail", 4);
  memset(whole, 0, pages * PAGE_BYTES);
  if (lseek(fd, 0, SEEK_SET) != 0 || read(fd, whole, pages * PAGE_BYTES) != (ssize_t)(pages * PAGE_BYTES))
    fail("reading into memory that is away");
  verify(whole, pages, 1, "read back");
  free(whole);
  const size_t bytes = (pages + 1) * PAGE_BYTES;
  uint64_t* map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  if (map == MAP_FAILED) fail("mmap of the file");
  verify(map, pages, 1, "the private mapping");
  if (memcmp(map + pages * PAGE_WORDS, "tail\0\0\0", 8) != 0) fail("the last page's tail");
  for (uint64_t page = 0; page < pages; page += 2) fill(map + page * PAGE_WORDS, 1, 7 + page * PAGE_WORDS);
  verify_file(fd, pages);
  for (uint64_t page = 0; page < pages; page++)
    verify(map + page * PAGE_WORDS, 1, (page % 2 ? 1 : 7) + page * PAGE_WORDS,
           "private pages, every other written");
  if (munmap(map, bytes) != 0) fail("munmap");
  map = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, PAGE_BYTES);
  if (map == MAP_FAILED) fail("mmap at an offset");
  verify(map, pages - 1, 1 + PAGE_WORDS, "read-only private mapping");
  if (mprotect(map, bytes, PROT_READ | PROT_WRITE) != 0) fail("mprotect to write");
  verify(map, pages - 1, 1 + PAGE_WORDS, "made writable");
  fill(map, pages - 1, 9);
  verify(map, pages - 1, 9, "written");
  verify_file(fd, pages);
  munmap(map, bytes);
  beyond_the_end(fd, pages);
  uint64_t* shared = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (shared == MAP_FAILED) fail("shared mmap");
  verify(shared, pages, 1, "the shared mapping");
  shared[5] = 5;
  uint64_t word = 0;
  if (pread(fd, &word, 8, 40) != 8 || word != 5) fail("a shared write did not reach the file");
  puts("filemap: all right");
  return 0;
}
