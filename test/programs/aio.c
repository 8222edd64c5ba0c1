/*
 * Asynchronous I/O by the kernel's own calls. Events are taken out of the ring as the library does, without
 * any call, and with one. Arguments: the case, and a file to be made, on a file system that has direct I/O.
 */
#define _GNU_SOURCE
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "direct.h"

enum { BLOCK_PAGES = 32, BLOCK_BYTES = BLOCK_PAGES * PAGE_BYTES, BLOCKS = 128, DEPTH = 8 };

/* What io_setup maps; `tail` is the kernel's, `head` belongs to whoever takes events. */
struct ring {
  unsigned id, slots;
  _Atomic unsigned head, tail;
  unsigned magic, compat, incompat, header_bytes;
  struct io_event events[];
};

static aio_context_t setup(unsigned depth) {
  aio_context_t context = 0;
  if (syscall(SYS_io_setup, depth, &context) != 0) fail("io_setup: %s", strerror(errno));
  return context;
}

static struct iocb request(int operation, int file, void* buffer, uint64_t bytes, uint64_t offset) {
  struct iocb made;
  memset(&made, 0, sizeof made);
  made.aio_lio_opcode = (uint16_t)operation;
  made.aio_fildes = (uint32_t)file;
  made.aio_buf = (uint64_t)buffer;
  made.aio_nbytes = bytes;
  made.aio_offset = (int64_t)offset;
  return made;
}

/* All of them, in as many calls as it takes. */
static void submit(aio_context_t context, struct iocb** list, long count) {
  while (count > 0) {
    const long taken = syscall(SYS_io_submit, context, count, list);
    if (taken <= 0) fail("io_submit: %s", strerror(errno));
    list += taken;
    count -= taken;
  }
}

/* One event, out of the ring if `look`. */
static struct io_event next_event(aio_context_t context, bool look) {
  struct io_event event;
  if (!look) {
    if (syscall(SYS_io_getevents, context, 1, 1, &event, NULL) != 1)
      fail("io_getevents: %s", strerror(errno));
    return event;
  }
  struct ring* const ring = (struct ring*)context;
  while (atomic_load(&ring->head) == atomic_load(&ring->tail)) usleep(50);
  const unsigned head = atomic_load(&ring->head);
  event = ring->events[head];
  atomic_store(&ring->head, (head + 1) % ring->slots);
  return event;
}

static void expect_result(struct io_event event, int64_t wanted) {
  if (event.res != wanted) fail("a request: %lld, not %ld", (long long)event.res, (long)wanted);
}

static void write_file(int file) {
  const aio_context_t context = setup(4);
  uint64_t* const buffer = pages(BLOCK_PAGES);
  for (uint64_t block = 0; block < BLOCKS; block++) {
    fill(buffer, BLOCK_PAGES, seed_of(block));
    struct iocb one = request(IOCB_CMD_PWRITE, file, buffer, BLOCK_BYTES, block * BLOCK_BYTES);
    struct iocb* list[] = {&one};
    submit(context, list, 1);
    expect_result(next_event(context, false), BLOCK_BYTES);
  }
  if (syscall(SYS_io_destroy, context) != 0) fail("io_destroy: %s", strerror(errno));
}

struct work {
  int file;
  bool look, vectors;
};

/* Several reads at once, each into a buffer of its own, and the next when one has come. */
static void* read_all(void* argument) {
  const struct work work = *(const struct work*)argument;
  const aio_context_t context = setup(DEPTH);
  uint64_t* buffers[DEPTH];
  struct iocb* const requests = (struct iocb*)pages(1);
  struct iovec* const parts = (struct iovec*)pages(1);
  struct iocb* list[DEPTH];
  for (int i = 0; i < DEPTH; i++) {
    buffers[i] = pages(BLOCK_PAGES);
    list[i] = &requests[i];
  }
  uint64_t next = 0, done = 0;
  const uint64_t all = 4ull * BLOCKS;
  int free_slots[DEPTH], count = DEPTH;
  for (int i = 0; i < DEPTH; i++) free_slots[i] = i;
  while (done < all) {
    struct iocb* batch[DEPTH];
    long prepared = 0;
    for (; count > 0 && next < all; next++) {
      const int slot = free_slots[--count];
      const uint64_t offset = next % BLOCKS * BLOCK_BYTES;
      parts[2 * slot] = (struct iovec){buffers[slot], BLOCK_BYTES / 4};
      parts[2 * slot + 1] = (struct iovec){(char*)buffers[slot] + BLOCK_BYTES / 4, BLOCK_BYTES / 4 * 3};
      *list[slot] = work.vectors ? request(IOCB_CMD_PREADV, work.file, &parts[2 * slot], 2, offset)
                                 : request(IOCB_CMD_PREAD, work.file, buffers[slot], BLOCK_BYTES, offset);
      list[slot]->aio_data = next % BLOCKS;
      batch[prepared++] = list[slot];
    }
    submit(context, batch, prepared);
    const struct io_event event = next_event(context, work.look);
    expect_result(event, BLOCK_BYTES);
    const int slot = (int)((struct iocb*)event.obj - requests);
    verify(buffers[slot], BLOCK_PAGES, seed_of(event.data), "a block that was read");
    free_slots[count++] = slot;
    done++;
  }
  if (syscall(SYS_io_destroy, context) != 0) fail("io_destroy: %s", strerror(errno));
  return NULL;
}

static void reads(void) {
  const int file = open_direct();
  crowd = pages(CROWD_PAGES);
  write_file(file);
  struct work work[4];
  pthread_t pressing, reading[4];
  atomic_bool ends = false;
  pthread_create(&pressing, NULL, press, &ends);
  for (int i = 0; i < 4; i++) {
    work[i] = (struct work){file, i % 2 == 1, i / 2 == 1};
    pthread_create(&reading[i], NULL, read_all, &work[i]);
  }
  for (int i = 0; i < 4; i++) pthread_join(reading[i], NULL);
  atomic_store(&ends, true);
  pthread_join(pressing, NULL);
}

/* The same iocbs for everything, each in use for several reads at once. */
static void again(void) {
  const int file = open_direct();
  crowd = pages(CROWD_PAGES);
  write_file(file);
  const aio_context_t context = setup(BLOCKS);
  uint64_t* const buffer = pages((size_t)BLOCKS * BLOCK_PAGES);
  struct iocb one;
  struct iocb* list[] = {&one};
  for (uint64_t block = 0; block < BLOCKS; block++) {
    one = request(IOCB_CMD_PREAD, file, buffer + block * BLOCK_PAGES * PAGE_WORDS, BLOCK_BYTES,
                  block * BLOCK_BYTES);
    submit(context, list, 1);
    for (uint64_t i = 0; i < CROWD_PAGES / 8; i++) crowd[(block * 64 + i) % CROWD_PAGES * PAGE_WORDS]++;
  }
  for (int i = 0; i < BLOCKS; i++) expect_result(next_event(context, i % 2 == 0), BLOCK_BYTES);
  for (uint64_t block = 0; block < BLOCKS; block++)
    verify(buffer + block * BLOCK_PAGES * PAGE_WORDS, BLOCK_PAGES, seed_of(block), "one of many");
}

static void end_context(aio_context_t context) {
  if (syscall(SYS_io_destroy, context) != 0) fail("io_destroy: %s", strerror(errno));
}

static atomic_bool destroying;

/* Contexts that end while the disk has much to do for them: their place in memory is free before that. */
static void* destroy_busy(void* argument) {
  uint64_t* const buffer = pages(BLOCK_PAGES);
  struct iocb requests[BLOCKS], *list[BLOCKS];
  for (int i = 0; i < BLOCKS; i++) {
    requests[i] = request(IOCB_CMD_PWRITE, *(const int*)argument, buffer, BLOCK_BYTES,
                          (uint64_t)(BLOCKS + i) * BLOCK_BYTES);
    list[i] = &requests[i];
  }
  for (int round = 0; round < 90; round++) {
    const aio_context_t context = setup(BLOCKS);
    submit(context, list, BLOCKS);
    end_context(context);
  }
  return NULL;
}

/* Those that take the place; each ends while the disk reads for it. */
static void* read_in_its_place(void* argument) {
  enum { READS = 4 };
  uint64_t* const buffer = pages((size_t)READS * BLOCK_PAGES);
  struct iocb requests[READS], *list[READS];
  for (uint64_t round = 0; atomic_load(&destroying); round++) {
    const aio_context_t context = setup(BLOCKS);
    for (uint64_t i = 0; i < READS; i++) {
      requests[i] = request(IOCB_CMD_PREAD, *(const int*)argument, buffer + i * BLOCK_PAGES * PAGE_WORDS,
                            BLOCK_BYTES, (round * READS + i) % BLOCKS * BLOCK_BYTES);
      list[i] = &requests[i];
    }
    submit(context, list, READS);
    end_context(context);
    for (uint64_t i = 0; i < READS; i++)
      verify(buffer + i * BLOCK_PAGES * PAGE_WORDS, BLOCK_PAGES, seed_of((round * READS + i) % BLOCKS),
             "a block read by a context that was ended");
    memset(buffer, 0, (size_t)READS * BLOCK_BYTES);
  }
  return NULL;
}

static void destroys(void) {
  int file = open_direct();
  crowd = pages(CROWD_PAGES);
  write_file(file);
  pthread_t pressing, busy[2], reading[2];
  atomic_bool ends = false;
  atomic_store(&destroying, true);
  pthread_create(&pressing, NULL, press, &ends);
  for (int i = 0; i < 2; i++) {
    pthread_create(&busy[i], NULL, destroy_busy, &file);
    pthread_create(&reading[i], NULL, read_in_its_place, &file);
  }
  for (int i = 0; i < 2; i++) pthread_join(busy[i], NULL);
  atomic_store(&destroying, false);
  for (int i = 0; i < 2; i++) pthread_join(reading[i], NULL);
  atomic_store(&ends, true);
  pthread_join(pressing, NULL);
}

/* What is wrong is refused as by the kernel; what is no direct read works, too. */
static void calls(void) {
  const int file = open_direct();
  write_file(file);
  const aio_context_t context = setup(16);
  char* const at = map(2 * BLOCK_BYTES, PROT_READ | PROT_WRITE, anonymous);
  struct iocb one = request(IOCB_CMD_PREAD, file, at + 1, PAGE_BYTES, 0);
  struct iocb* list[4] = {&one, (struct iocb*)4096, NULL, NULL};
  submit(context, list, 1);
  expect_result(next_event(context, true), -EINVAL);
  one = request(IOCB_CMD_PREAD, file, (void*)4096, PAGE_BYTES, 0);
  const long taken = syscall(SYS_io_submit, context, 1L, list);
  printf("no memory there: %ld\n", taken == 1 ? (long)next_event(context, false).res : -errno);
  expect_error("no iocb", syscall(SYS_io_submit, context, 1L, list + 1) < 0, EFAULT);
  expect_error("no list", syscall(SYS_io_submit, context, 1L, 4096L) < 0, EFAULT);
  expect_error("no context", syscall(SYS_io_submit, at, 1L, list) < 0, EINVAL);
  expect_error("a negative number", syscall(SYS_io_submit, context, -1L, list) < 0, EINVAL);
  if (syscall(SYS_io_submit, context, 0L, list) != 0) fail("none is not none");
  one = request(IOCB_CMD_PREAD, file, at, PAGE_BYTES, 0);
  if (syscall(SYS_io_submit, context, 2L, list) != 1) fail("the good one of two: %s", strerror(errno));
  expect_result(next_event(context, false), PAGE_BYTES);
  one = request(IOCB_CMD_PREAD, -1, at, PAGE_BYTES, 0);
  expect_error("no descriptor", syscall(SYS_io_submit, context, 1L, list) < 0, EBADF);
  /* An event descriptor, a poll, a flush, and the page cache. */
  const int wake = eventfd(0, 0), cached = open(path, O_RDONLY);
  int ends[2];
  if (pipe(ends) != 0) fail("pipe");
  struct iocb each[4] = {request(IOCB_CMD_PREAD, file, at, BLOCK_BYTES, BLOCK_BYTES),
                         request(IOCB_CMD_POLL, ends[0], (void*)POLLIN, 0, 0),
                         request(IOCB_CMD_FDSYNC, file, NULL, 0, 0),
                         request(IOCB_CMD_PREAD, cached, at + BLOCK_BYTES + 1, 100, 1)};
  for (int i = 0; i < 4; i++) {
    list[i] = &each[i];
    each[i].aio_data = (uint64_t)i;
    each[i].aio_flags = IOCB_FLAG_RESFD;
    each[i].aio_resfd = (uint32_t)wake;
  }
  submit(context, list, 4);
  if (write(ends[1], "x", 1) != 1) fail("write");
  int64_t results[4] = {0};
  for (int i = 0; i < 4; i++) {
    const struct io_event event = next_event(context, i % 2 == 0);
    results[event.data] = event.res;
  }
  for (int i = 0; i < 4; i++) printf("result %d: %ld\n", i, (long)results[i]);
  uint64_t count = 0;
  if (read(wake, &count, sizeof count) != sizeof count || count != 4) fail("events: %lu", count);
  verify((uint64_t*)at, BLOCK_PAGES, seed_of(1), "read with others");
  if (syscall(SYS_io_destroy, context) != 0) fail("io_destroy");
  expect_error("destroyed", syscall(SYS_io_submit, context, 1L, list) < 0, EINVAL);
  if ((setup(4) == 0)) fail("no context after the first");
}

static struct iocb* many(int file, int operation, aio_context_t context) {
  struct iocb* const requests = (struct iocb*)pages(4);
  struct iocb* list[BLOCKS];
  for (uint64_t block = 0; block < BLOCKS; block++) {
    uint64_t* const buffer = pages(BLOCK_PAGES);
    if (operation == IOCB_CMD_PWRITE) fill(buffer, BLOCK_PAGES, seed_of(block + 1000));
    requests[block] = request(operation, file, buffer, BLOCK_BYTES, block * BLOCK_BYTES);
    list[block] = &requests[block];
  }
  submit(context, list, BLOCKS);
  return requests;
}

/* Requests end before the process does. */
static void exits(void) {
  const int file = open_direct();
  write_file(file);
  many(file, IOCB_CMD_PWRITE, setup(BLOCKS));
  _exit(0);
}

static void check_written(void) {
  const int file = open(path, O_RDONLY);
  uint64_t* const buffer = pages(BLOCK_PAGES);
  for (uint64_t block = 0; block < BLOCKS; block++) {
    if (pread(file, buffer, BLOCK_BYTES, (off_t)(block * BLOCK_BYTES)) != BLOCK_BYTES) fail("read");
    verify(buffer, BLOCK_PAGES, seed_of(block + 1000), "written before exec");
  }
}

/* ... and before the next program begins; a child has none of them. */
static void execs(void) {
  const int file = open_direct();
  write_file(file);
  const aio_context_t context = setup(BLOCKS);
  many(file, IOCB_CMD_PREAD, context);
  const pid_t child = fork();
  if (child == 0) _exit(0);
  int status = 0;
  waitpid(child, &status, 0);
  if (status != 0) fail("the child");
  for (int i = 0; i < BLOCKS; i++) expect_result(next_event(context, false), BLOCK_BYTES);
  many(file, IOCB_CMD_PWRITE, context);
  execl("/proc/self/exe", "aio", "check", path, NULL);
  fail("exec");
}

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  path = argv[2];
  static const struct test_case list[] = {{"reads", reads},         {"again", again}, {"destroys", destroys},
                                          {"calls", calls},         {"exits", exits}, {"execs", execs},
                                          {"check", check_written}, {NULL, NULL}};
  return run_case(list, argc, argv);
}
