/*
 * Large direct reads, again and again while the memory limit moves, until there is a file `done` in its
 * directory, and once more; and a call of io_submit that waits. Arguments: the case, a file to be made on a
 * file system that has direct I/O, pages.
 */
#define _GNU_SOURCE
#include <linux/aio_abi.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "direct.h"

enum { WAIT_US = 200000 }; /* the pager sees meanwhile that a request has ended */

static aio_context_t context;

static void submit(int operation, int file, void* buffer, uint64_t bytes) {
  struct iocb one;
  struct iocb* list = &one;
  memset(&one, 0, sizeof one);
  one.aio_lio_opcode = (uint16_t)operation;
  one.aio_fildes = (uint32_t)file;
  one.aio_buf = (uint64_t)buffer;
  one.aio_nbytes = bytes;
  if (syscall(SYS_io_submit, context, 1L, &list) != 1) fail("io_submit: %s", strerror(errno));
  struct io_event event;
  if (syscall(SYS_io_getevents, context, 1L, 1L, &event, NULL) != 1)
    fail("io_getevents: %s", strerror(errno));
  if (event.res != (int64_t)bytes) fail("a request: %lld", (long long)event.res);
}

static void read_once(bool by_request, int file, uint64_t* buffer, uint64_t count) {
  memset(buffer, 0, count * PAGE_BYTES);
  const struct iovec halves[2] = {{buffer, count / 2 * PAGE_BYTES},
                                  {buffer + count / 2 * PAGE_WORDS, (count - count / 2) * PAGE_BYTES}};
  if (by_request)
    submit(IOCB_CMD_PREAD, file, buffer, count * PAGE_BYTES);
  else if (preadv(file, halves, 2, 0) != (ssize_t)(count * PAGE_BYTES))
    fail("preadv: %s", strerror(errno));
  verify(buffer, count, seed_of(0), "a read");
}

/* The kernel reads a pipe at once, within io_submit, and waits there until something is written. */
static void wait_within(const char* fifo) {
  char byte = 0;
  if (mkfifo(fifo, 0600) != 0) fail("mkfifo: %s", strerror(errno));
  const int file = open(fifo, O_RDONLY);
  if (file < 0) fail("open: %s", strerror(errno));
  submit(IOCB_CMD_PREAD, file, &byte, 1);
  printf("%c\n", byte);
}

int main(int argc, char** argv) {
  const char* const part = argc > 1 ? argv[1] : "";
  path = argc > 2 ? argv[2] : "";
  const uint64_t count = number(argc, argv, 3, 600);
  if (syscall(SYS_io_setup, 4, &context) != 0) fail("io_setup: %s", strerror(errno));
  if (strcmp(part, "waits") == 0) {
    wait_within(path);
    return 0;
  }
  const int file = open_direct();
  uint64_t* const buffer = pages(count);
  fill(buffer, count, seed_of(0));
  if (pwrite(file, buffer, count * PAGE_BYTES, 0) != (ssize_t)(count * PAGE_BYTES))
    fail("pwrite: %s", strerror(errno));
  uint64_t reads = 0;
  const bool by_request = strcmp(part, "requests") == 0;
  for (bool last = false; !last; reads++) {
    last = access("done", F_OK) == 0;
    read_once(by_request, file, buffer, count);
    if (reads == 0) close(open("begun", O_CREAT | O_WRONLY, 0600));
    usleep(WAIT_US);
  }
  printf("%lu pages\n", count);
  return 0;
}
