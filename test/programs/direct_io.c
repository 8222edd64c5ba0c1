/*
 * Direct I/O (O_DIRECT): what the disk writes into memory, and from memory, while everything else in it comes
 * and goes. Arguments: the case, and a file to be made, on a file system that has direct I/O.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "direct.h"

enum { BLOCK_PAGES = 16, BLOCKS = 64, BLOCK_BYTES = BLOCK_PAGES * PAGE_BYTES };

static void expect_count(const char* what, ssize_t got, ssize_t wanted) {
  if (got != wanted) fail("%s: %zd, not %zd: %s", what, got, wanted, got < 0 ? strerror(errno) : "short");
}

/* The file, block by block. */
static void write_file(int file) {
  uint64_t* buffer = pages(BLOCK_PAGES);
  for (uint64_t block = 0; block < BLOCKS; block++) {
    fill(buffer, BLOCK_PAGES, seed_of(block));
    expect_count("write", pwrite(file, buffer, BLOCK_BYTES, (off_t)(block * BLOCK_BYTES)), BLOCK_BYTES);
  }
  munmap(buffer, BLOCK_BYTES);
}

static void read_block(int file, uint64_t* buffer, uint64_t block) {
  memset(buffer, 0xee, BLOCK_BYTES);
  expect_count("read", pread(file, buffer, BLOCK_BYTES, (off_t)(block * BLOCK_BYTES)), BLOCK_BYTES);
  verify(buffer, BLOCK_PAGES, seed_of(block), "a block that was read");
}

/* A quarter of the file at a time, again and again. */
static void* read_quarters(void* argument) {
  enum { PART = BLOCKS / 4 };
  const int file = *(int*)argument;
  uint64_t* const buffer = pages(PART * BLOCK_PAGES);
  for (uint64_t round = 0; round < 12; round++) {
    const uint64_t first = round % 4 * PART;
    const ssize_t bytes = PART * BLOCK_BYTES;
    expect_count("read", pread(file, buffer, (size_t)bytes, (off_t)(first * BLOCK_BYTES)), bytes);
    for (uint64_t block = 0; block < PART; block++)
      verify(buffer + block * BLOCK_PAGES * PAGE_WORDS, BLOCK_PAGES, seed_of(first + block), "a part");
  }
  return NULL;
}

/* Threads read, and together need more memory than there is, while another one takes it from them. */
static void threads(void) {
  enum { READERS = 8 };
  int file = open_direct();
  crowd = pages(CROWD_PAGES);
  write_file(file);
  atomic_bool ends = false;
  pthread_t pressing, reading[READERS];
  pthread_create(&pressing, NULL, press, &ends);
  for (int i = 0; i < READERS; i++) pthread_create(&reading[i], NULL, read_quarters, &file);
  for (int i = 0; i < READERS; i++) pthread_join(reading[i], NULL);
  atomic_store(&ends, true);
  pthread_join(pressing, NULL);
}

/* Every call that reads, and the ways to a descriptor. */
static void calls(void) {
  const int made = open_direct();
  write_file(made);
  const int file = open(path, O_RDWR);
  uint64_t* buffer = pages(3 * BLOCK_PAGES);
  expect_count("read of the page cache", read(file, (char*)buffer + 1, 4096), 4096);
  if (fcntl(file, F_SETFL, fcntl(file, F_GETFL) | O_DIRECT) != 0) fail("F_SETFL: %s", strerror(errno));
  if ((fcntl(file, F_GETFL) & O_DIRECT) == 0) fail("O_DIRECT is not set");
  const int copy = dup(file);
  lseek(copy, BLOCK_BYTES, SEEK_SET);
  expect_count("read", read(copy, buffer, BLOCK_BYTES), BLOCK_BYTES);
  verify(buffer, BLOCK_PAGES, seed_of(1), "read");
  expect_count("the file's position", lseek(file, 0, SEEK_CUR), 2 * BLOCK_BYTES);
  const struct iovec parts[3] = {{buffer + 2 * BLOCK_PAGES * PAGE_WORDS, BLOCK_BYTES / 2},
                                 {buffer, BLOCK_BYTES / 2},
                                 {buffer + BLOCK_PAGES / 2 * PAGE_WORDS, BLOCK_BYTES}};
  for (int way = 0; way < 3; way++) {
    memset(buffer, 0, 3 * BLOCK_BYTES);
    ssize_t got = 0;
    if (way == 0) got = readv(file, parts, 3);
    if (way == 1) got = preadv(file, parts, 3, 2 * BLOCK_BYTES);
    if (way == 2) got = preadv2(file, parts, 3, 2 * BLOCK_BYTES, 0);
    expect_count("reads of vectors", got, 2 * BLOCK_BYTES);
    verify(buffer + 2 * BLOCK_PAGES * PAGE_WORDS, BLOCK_PAGES / 2, seed_of(2), "first part");
    verify(buffer + BLOCK_PAGES / 2 * PAGE_WORDS, BLOCK_PAGES / 2, seed_of(3), "third part");
  }
  expect_count("pwritev", pwritev(file, parts, 3, 0), 2 * BLOCK_BYTES);
  expect_count("read at the end", pread(file, buffer, BLOCK_BYTES, (off_t)BLOCKS * BLOCK_BYTES), 0);
  expect_count("a short read", pread(file, buffer, BLOCK_BYTES, (off_t)BLOCKS * BLOCK_BYTES - PAGE_BYTES),
               PAGE_BYTES);
}

/* What is wrong is refused as by the kernel, and what is unusual works. */
static void buffers(void) {
  const int file = open_direct();
  write_file(file);
  char* const at = map(4 * BLOCK_BYTES, PROT_READ | PROT_WRITE, anonymous);
  expect_error("misaligned memory", pread(file, at + 1, PAGE_BYTES, 0) < 0, EINVAL);
  expect_error("misaligned offset", pread(file, at, PAGE_BYTES, 1) < 0, EINVAL);
  expect_error("misaligned length", pread(file, at, 100, 0) < 0, EINVAL);
  expect_error("no memory there", pread(file, (void*)4096, PAGE_BYTES, 0) < 0, EFAULT);
  expect_error("no address", pread(file, (void*)-PAGE_BYTES, PAGE_BYTES, 0) < 0, EFAULT);
  expect_error("no vector", preadv(file, (void*)4096, 1, 0) < 0, EFAULT);
  expect_error("no descriptor", pread(-1, at, PAGE_BYTES, 0) < 0, EBADF);
  char* const only = map(PAGE_BYTES, PROT_READ, anonymous);
  expect_error("read-only memory", pread(file, only, PAGE_BYTES, 0) < 0, EFAULT);
  /* Never touched, across two mappings, and into memory that stays at home. */
  expect_count("untouched", pread(file, at + BLOCK_BYTES, BLOCK_BYTES, 0), BLOCK_BYTES);
  verify((uint64_t*)(at + BLOCK_BYTES), BLOCK_PAGES, seed_of(0), "untouched");
  mprotect(at + 2 * BLOCK_BYTES, BLOCK_BYTES / 2, PROT_READ | PROT_WRITE | PROT_EXEC);
  expect_count("two mappings", pread(file, at + 2 * BLOCK_BYTES, BLOCK_BYTES, BLOCK_BYTES), BLOCK_BYTES);
  verify((uint64_t*)(at + 2 * BLOCK_BYTES), BLOCK_PAGES, seed_of(1), "two mappings");
  char* const shared = map(BLOCK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  expect_count("shared", pread(file, shared, BLOCK_BYTES, 2 * BLOCK_BYTES), BLOCK_BYTES);
  verify((uint64_t*)shared, BLOCK_PAGES, seed_of(2), "shared");
  /* A hole after the first half: what fits is read. */
  munmap(at + 3 * BLOCK_BYTES + BLOCK_BYTES / 2, BLOCK_BYTES / 2);
  const ssize_t got = pread(file, at + 3 * BLOCK_BYTES, BLOCK_BYTES, 0);
  printf("into a hole: %zd\n", got);
  int ends[2];
  if (pipe2(ends, O_DIRECT) != 0) fail("pipe");
  expect_count("packet", write(ends[1], "packet", 6), 6);
  expect_count("packet", read(ends[0], at, PAGE_BYTES), 6);
  /* A child has the same descriptors. */
  const pid_t child = fork();
  if (child == 0) {
    read_block(file, (uint64_t*)at, 5);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (status != 0) fail("the child");
}

static atomic_int alarms;
static void on_alarm(int signal) {
  (void)signal;
  alarms++;
}

/* Much larger than the memory, with signals and memory that is asked back all the while. */
static void large(void) {
  const int file = open_direct();
  write_file(file);
  uint64_t* buffer = pages(BLOCKS * BLOCK_PAGES);
  signal(SIGALRM, on_alarm);
  const struct itimerval often = {{0, 2000}, {0, 2000}};
  setitimer(ITIMER_REAL, &often, NULL);
  for (int round = 0; round < 3; round++) {
    memset(buffer, 0, (size_t)BLOCKS * BLOCK_BYTES);
    lseek(file, 0, SEEK_SET);
    const size_t asked = (size_t)(BLOCKS - round) * BLOCK_BYTES;
    const ssize_t got = round == 1 ? pread(file, buffer, asked, BLOCK_BYTES) : read(file, buffer, asked);
    expect_count("a large read", got, (ssize_t)asked);
    for (uint64_t block = 0; block < (uint64_t)(BLOCKS - round); block++)
      verify(buffer + block * BLOCK_PAGES * PAGE_WORDS, BLOCK_PAGES, seed_of(block + (round == 1)),
             "a large read");
  }
  expect_count("more than there is", read(file, buffer, (size_t)BLOCKS * BLOCK_BYTES), 2 * BLOCK_BYTES);
  if (atomic_load(&alarms) == 0) fail("no signal came");
}

/* One read of many buffers cannot be made in parts. */
static void too_much(void) {
  const int file = open_direct();
  write_file(file);
  struct iovec parts[BLOCKS];
  for (int i = 0; i < BLOCKS; i++) parts[i] = (struct iovec){pages(BLOCK_PAGES), BLOCK_BYTES};
  for (int i = 0; i < 2; i++) {
    const ssize_t got = preadv(file, parts, BLOCKS, 0);
    printf("%zd: %s\n", got, got < 0 ? strerror(errno) : "read");
  }
}

/* The descriptor is there from the start. */
static void inherited(void) {
  const int file = open_direct();
  write_file(file);
  if (dup2(file, 100) < 0) fail("dup2");
  execl("/proc/self/exe", "direct_io", "after-exec", path, NULL);
  fail("exec");
}

static void after_exec(void) {
  uint64_t* buffer = pages(BLOCK_PAGES);
  crowd = pages(CROWD_PAGES);
  atomic_bool ends = false;
  pthread_t pressing;
  pthread_create(&pressing, NULL, press, &ends);
  for (uint64_t block = 0; block < BLOCKS; block++) read_block(100, buffer, block);
  atomic_store(&ends, true);
  pthread_join(pressing, NULL);
}

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  path = argv[2];
  static const struct test_case list[] = {
      {"threads", threads},   {"calls", calls},         {"buffers", buffers},       {"large", large},
      {"too-much", too_much}, {"inherited", inherited}, {"after-exec", after_exec}, {NULL, NULL}};
  return run_case(list, argc, argv);
}
