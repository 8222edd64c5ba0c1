/*
 * System calls with pointers: bad ones give EFAULT, as without stretching, and good ones reach pages that are
 * away, however large the buffer. Argument: pages of the buffer.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

/* Pointers the compiler knows nothing of. */
static char* volatile low = (char*)8, * volatile nowhere = (char*)0x123456789000;
static int null_fd, zero_fd, pipe_ends[2];

static void expect_fault(ssize_t result, const char* what) {
  if (result != -1 || errno != EFAULT) fail("%s: %zd (%s), not EFAULT", what, result, strerror(errno));
}

static void bad_pointers(void) {
  char* pages = mmap(NULL, 4 * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  munmap(pages + 2 * PAGE_BYTES, PAGE_BYTES);
  mprotect(pages + 3 * PAGE_BYTES, PAGE_BYTES, PROT_NONE);
  memset(pages, 'a', PAGE_BYTES);
  char* hole = pages + 2 * PAGE_BYTES;
  expect_fault(write(pipe_ends[1], hole, 1), "write from a hole");
  expect_fault(write(pipe_ends[1], low, 1), "write from page 0");
  expect_fault(write(pipe_ends[1], nowhere, 1), "write from nowhere");
  expect_fault(write(pipe_ends[1], pages + 3 * PAGE_BYTES, 1), "write from an inaccessible page");
  expect_fault(read(zero_fd, hole, 1), "read into a hole");
  expect_fault(read(zero_fd, pages + 3 * PAGE_BYTES, 1), "read into an inaccessible page");
  expect_fault(stat((char*)hole, &(struct stat){0}), "stat of a bad path");
  expect_fault(stat("/", (struct stat*)hole), "stat into a hole");
  mprotect(pages, PAGE_BYTES, PROT_READ);
  expect_fault(read(zero_fd, pages, 1), "read into a read-only page");
  if (pages[0] != 'a') fail("the read-only page changed");
  /* Up to the hole it can be written: the second page was never touched and reads as zeros. */
  const ssize_t put = write(pipe_ends[1], hole - 3, 10);
  char got[4] = "xxx";
  if (put == 3) {
    if (read(pipe_ends[0], got, 3) != 3 || memcmp(got, "\0\0\0", 3) != 0)
      fail("a short write wrote something else");
  } else if (put != -1 || errno != EFAULT) {
    fail("write up to a hole: %zd", put);
  }
  munmap(pages, 4 * PAGE_BYTES);
}

struct transfer {
  char* data;
  size_t bytes;
};

static void* send_all(void* argument) {
  const struct transfer* transfer = argument;
  for (size_t at = 0; at < transfer->bytes;) {
    const ssize_t put = write(pipe_ends[1], transfer->data + at, transfer->bytes - at);
    if (put <= 0) fail("write into the pipe");
    at += (size_t)put;
  }
  return NULL;
}

static void through_pipe(uint64_t pages) {
  uint64_t *from = malloc(pages * PAGE_BYTES), *to = malloc(pages * PAGE_BYTES);
  fill(from, pages, 3);
  struct transfer transfer = {(char*)from, pages * PAGE_BYTES};
  pthread_t thread;
  pthread_create(&thread, NULL, send_all, &transfer);
  for (size_t at = 0; at < transfer.bytes;) {
    struct iovec parts[2] = {{(char*)to + at, 5000}, {(char*)to + at + 5000, transfer.bytes - at}};
    if (transfer.bytes - at <= 5000)
      parts[0].iov_len = transfer.bytes - at, parts[1].iov_len = 0;
    else
      parts[1].iov_len -= 5000;
    const ssize_t got = readv(pipe_ends[0], parts, 2);
    if (got <= 0) fail("readv from the pipe");
    at += (size_t)got;
  }
  pthread_join(thread, NULL);
  verify(to, pages, 3, "through the pipe");
  verify(from, pages, 3, "the source");
  memset(to, 0xff, pages * PAGE_BYTES);
  if (read(zero_fd, to, pages * PAGE_BYTES) != (ssize_t)(pages * PAGE_BYTES)) fail("read of zeros");
  verify_zero(to, pages, "zeros read");
  if (write(null_fd, from, pages * PAGE_BYTES) != (ssize_t)(pages * PAGE_BYTES)) fail("write of all");
  free(from);
  free(to);
}

/* Robust and priority-inheriting mutexes: the kernel itself writes their words. */
static pthread_mutex_t pi_lock, robust_lock;
static uint64_t guarded_sum;

static void* lock_often(void* argument) {
  (void)argument;
  for (int i = 0; i < 300; i++) {
    pthread_mutex_lock(&pi_lock);
    guarded_sum++;
    pthread_mutex_unlock(&pi_lock);
  }
  return NULL;
}

static void* die_with_lock(void* argument) {
  (void)argument;
  pthread_mutex_lock(&robust_lock);
  return NULL;
}

static void locks(void) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
  pthread_mutex_init(&pi_lock, &attributes);
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, lock_often, NULL);
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  if (guarded_sum != 900) fail("under a PI mutex: %lu", guarded_sum);
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&robust_lock, &attributes);
  pthread_create(&threads[0], NULL, die_with_lock, NULL);
  pthread_join(threads[0], NULL);
  if (pthread_mutex_lock(&robust_lock) != EOWNERDEAD)
    fail("a robust mutex does not tell of its owner's death");
  pthread_mutex_consistent(&robust_lock);
  pthread_mutex_unlock(&robust_lock);
}

int main(int argc, char** argv) {
  const uint64_t pages = number(argc, argv, 1, 1500);
  null_fd = open("/dev/null", O_WRONLY);
  zero_fd = open("/dev/zero", O_RDONLY);
  if (pipe(pipe_ends) != 0) fail("no pipe");
  uint64_t* array = malloc(pages * PAGE_BYTES);
  fill(array, pages, 8); /* pushes away what is used below */
  bad_pointers();
  through_pipe(pages);
  verify(array, pages, 8, "the array");
  locks();
  verify(array, pages, 8, "the array at the end");
  if (system("exit 3") >> 8 != 3) fail("system()");
  puts("calls: all right");
  return 0;
}
