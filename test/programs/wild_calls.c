/*
 * System calls with arguments at random, whose structures lie in memory that comes and goes, is read-only or
 * not there, and hold anything: prints what each answers, so that a stretched run can be compared with one
 * alone, line by line. All of it happens in an arena at a fixed address; other addresses print as
 * "elsewhere".
 *
 * Not tried, because alone it depends on what the kernel has merged: to move more than one page at once. Nor
 * shared futexes, which alone refuse memory that can only be read: here it is a file's.
 *
 * wild_calls FILE SEED CALLS     FILE is made; it must lie where O_DIRECT works.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ballast.h"
#include "check.h"

enum { BALLAST_PAGES = 2000, WALKED_PAGES = 40, ARENA_PAGES = 64, FILE_PAGES = 24, IOVECS = 6, REQUESTS = 4 };

static char* const arena = (char*)0x200000000000;
static uint64_t draws;
static int cached, direct, channel[2];
static aio_context_t context;
static char* heap;
static struct ballast ballast;

static uint64_t draw(uint64_t bound) {
  draws ^= draws << 13;
  draws ^= draws >> 7;
  draws ^= draws << 17;
  return (draws >> 20) % bound;
}

/* A page of the arena, or an address near one, or one where nothing can be. */
static char* any_page(void) { return arena + draw(ARENA_PAGES) * PAGE_BYTES; }

static char* any_address(void) {
  switch (draw(10)) {
    case 0: return NULL;
    case 1: return (char*)(draw(2) ? 0x7ffffffff000 : 0xffff800000000000);
    case 2: return (char*)~draw(8);
    case 3: return any_page() + PAGE_BYTES - draw(64);
    case 4: return any_page() + draw(PAGE_BYTES);
    default: return any_page() + 8 * draw(512);
  }
}

static uint64_t any_length(void) {
  switch (draw(12)) {
    case 0: return 0;
    case 1: return draw(PAGE_BYTES);
    case 2: return ~draw(PAGE_BYTES);  // a large one would reach what is not ours
    default: return (1 + draw(6)) * PAGE_BYTES;
  }
}

static void report(const char* call, long result) {
  const int error = errno;
  if (result == -1)
    printf("%s: error %d\n", call, error);
  else if (result >= (long)arena && result < (long)(arena + ARENA_PAGES * PAGE_BYTES))
    printf("%s: arena + %lx\n", call, result - (long)arena);
  else
    printf("%s: %lx\n", call, result);
}

/* As the kernel would copy: false where that cannot be. */
static int store(void* to, const void* from, size_t bytes) {
  if (write(channel[1], from, bytes) != (ssize_t)bytes) fail("no room in the pipe");
  const ssize_t stored = read(channel[0], to, bytes);
  char rest[PAGE_BYTES];
  if (stored != (ssize_t)bytes && read(channel[0], rest, bytes) < 0) fail("the pipe");
  return stored == (ssize_t)bytes;
}

static void show(const void* at, size_t bytes) {
  static char copy[PAGE_BYTES];
  const ssize_t shown = write(channel[1], at, bytes);
  uint64_t sum = 0;
  if (shown > 0 && read(channel[0], copy, (size_t)shown) != shown) fail("the pipe");
  for (ssize_t i = 0; i < shown; i++) sum = mix(sum + (unsigned char)copy[i]);
  printf("  %zd bytes there: %lx\n", shown, sum);
}

static void map_calls(void) {
  char* const at = any_page();
  const uint64_t length = any_length();
  const int protections[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE};
  const int prot = protections[draw(4)];
  printf("%lx bytes at arena + %lx, %d: ", length, at - arena, prot);
  switch (draw(6)) {
    case 0: {
      const int how = draw(4) == 0 ? MAP_FIXED_NOREPLACE : MAP_FIXED, of_file = draw(3) == 0;
      if (length > FILE_PAGES * PAGE_BYTES || at + length > arena + ARENA_PAGES * PAGE_BYTES) return;
      const int flags = how | MAP_PRIVATE | (of_file ? 0 : MAP_ANONYMOUS);
      const long offset = of_file ? (long)(draw(FILE_PAGES - 6) * PAGE_BYTES) : 0;
      report("mmap", (long)mmap(at, length, prot, flags, of_file ? cached : -1, offset));
      break;
    }
    case 1: report("munmap", munmap(at + (draw(8) == 0), length)); break;
    case 2: report("mprotect", mprotect(at, length, prot)); break;
    case 3: {
      const int advices[] = {MADV_DONTNEED, MADV_FREE, MADV_WILLNEED, MADV_SEQUENTIAL, MADV_COLD, 99};
      const int advice = advices[draw(6)];
      printf("advice %d: ", advice);
      report("madvise", madvise(at, length, advice));
      /* Alone, what was given free stays until the kernel needs it. */
      if (advice == MADV_FREE) madvise(at, length, MADV_DONTNEED);
      break;
    }
    case 4: {
      const int fixed = draw(3) == 0;
      char* const to = any_page();
      const uint64_t grown = fixed || draw(2) ? PAGE_BYTES : 2 * PAGE_BYTES;
      const int flags = fixed ? MREMAP_MAYMOVE | MREMAP_FIXED : (int)draw(2) * MREMAP_MAYMOVE;
      if (fixed) printf("to arena + %lx: ", to - arena);
      char* moved = mremap(at, PAGE_BYTES, grown, flags, to);
      if (moved != MAP_FAILED && moved != at && !fixed) { /* where to is the kernel's choice */
        printf("mremap: moved\n");
        show(moved, grown);
        munmap(moved, grown);
      } else {
        report("mremap", (long)moved);
      }
      break;
    }
    default:
      if (draw(2))
        report("mlock", mlock(at, length));
      else
        report("munlock", munlock(at, length));
  }
}

static struct iovec any_buffer(void) {
  const uint64_t length = draw(4) == 0 ? any_length() : draw(4) * 512;
  return (struct iovec){draw(4) == 0 ? any_address() : any_page() + 512 * draw(8), length};
}

static void read_calls(void) {
  const int descriptors[] = {cached, direct, direct, -1, 12345};
  const int from = descriptors[draw(5)];
  const long offset = (long)(draw(4) == 0 ? draw(9000) : draw(FILE_PAGES) * PAGE_BYTES);
  const struct iovec buffer = any_buffer();
  struct iovec list[IOVECS];
  for (int i = 0; i < IOVECS; i++) list[i] = any_buffer();
  char* const at = draw(6) == 0 ? (char*)list : any_address();
  if (at != (char*)list) store(at, list, sizeof list);
  /* Never more of the list than there is: what follows it on the stack differs. */
  const long count = draw(6) == 0 ? 1025 - 2000 * (long)draw(2) : (long)draw(IOVECS + 1);
  switch (draw(5)) {
    case 0:
      if (lseek(cached, offset, SEEK_SET) < 0 || lseek(direct, offset, SEEK_SET) < 0) fail("lseek");
      report("read", read(from, buffer.iov_base, buffer.iov_len));
      break;
    case 1: report("pread", pread(from, buffer.iov_base, buffer.iov_len, offset)); break;
    case 2: report("preadv", syscall(SYS_preadv, from, at, count, offset, 0)); break;
    case 3:
      report("preadv2", syscall(SYS_preadv2, from, at, count, offset, 0, draw(8) == 0 ? 0x80 : 0));
      break;
    default:
      if (lseek(cached, offset, SEEK_SET) < 0 || lseek(direct, offset, SEEK_SET) < 0) fail("lseek");
      report("readv", syscall(SYS_readv, from, at, count));
  }
  show(buffer.iov_base, 512);
}

static int by_object(const void* a, const void* b) {
  const struct io_event *left = a, *right = b;
  return left->obj < right->obj ? -1 : left->obj > right->obj;
}

static void aio_calls(void) {
  const int descriptors[] = {cached, direct, direct, -1};
  struct iocb* pointers[REQUESTS];
  for (uint64_t i = 0; i < REQUESTS; i++) {
    const struct iovec buffer = any_buffer();
    struct iocb request = {.aio_fildes = (uint32_t)descriptors[draw(4)],
                           .aio_lio_opcode = (uint16_t)(draw(6) == 0 ? draw(9) + 1 : IOCB_CMD_PREAD),
                           .aio_buf = (uint64_t)buffer.iov_base,
                           .aio_nbytes = draw(2) ? draw(IOVECS) : buffer.iov_len,
                           .aio_offset = (int64_t)(draw(FILE_PAGES) * PAGE_BYTES)};
    if (draw(4) == 0) request.aio_lio_opcode = IOCB_CMD_PREADV;
    if (request.aio_lio_opcode != IOCB_CMD_PREAD && request.aio_lio_opcode != IOCB_CMD_PREADV)
      request.aio_fildes = (uint32_t)-1;
    pointers[i] = (struct iocb*)(draw(5) == 0 ? any_address() : any_page() + 64 * (i + draw(8) * REQUESTS));
    store(pointers[i], &request, sizeof request);
  }
  char* const at = any_address();
  if (!store(at, pointers, sizeof pointers) && draw(2)) return;
  const long count = draw(8) == 0 ? (long)draw(300) - 20 : (long)draw(REQUESTS + 1);
  const long accepted = syscall(SYS_io_submit, draw(16) == 0 ? draw(1000) : context, at, count);
  report("io_submit", accepted);
  static struct io_event events[512];
  const long ended = accepted > 0 ? syscall(SYS_io_getevents, context, accepted, 512, events, NULL) : 0;
  if (ended > 0) qsort(events, (size_t)ended, sizeof *events, by_object);
  for (long i = 0; i < ended; i++) report("  ended", (long)events[i].res);
}

static void futex_calls(void) {
  static const int operations[] = {FUTEX_WAKE,
                                   FUTEX_WAKE_OP,
                                   FUTEX_REQUEUE,
                                   FUTEX_CMP_REQUEUE,
                                   FUTEX_LOCK_PI,
                                   FUTEX_LOCK_PI2,
                                   FUTEX_TRYLOCK_PI,
                                   FUTEX_UNLOCK_PI,
                                   FUTEX_WAIT,
                                   FUTEX_WAIT_BITSET,
                                   FUTEX_WAIT_REQUEUE_PI,
                                   FUTEX_CMP_REQUEUE_PI,
                                   77};
  const uint32_t words[] = {0, 0x2a000001, 0x2a000001 | FUTEX_WAITERS, FUTEX_OWNER_DIED};
  const int operation = operations[draw(13)] | FUTEX_PRIVATE_FLAG;
  char *const one = any_address(), *const two = any_address();
  const uint32_t first = words[draw(4)], second = words[draw(4)];
  if ((uint64_t)one % 4 == 0) store(one, &first, sizeof first);
  if ((uint64_t)two % 4 == 0) store(two, &second, sizeof second);
  const int command = operation & FUTEX_CMD_MASK;
  const int waits = command == FUTEX_LOCK_PI || command == FUTEX_LOCK_PI2 || command == FUTEX_WAIT ||
                    command == FUTEX_WAIT_BITSET || command == FUTEX_WAIT_REQUEUE_PI;
  const struct timespec soon = {0, 1000};
  const uint64_t timeout_or_count =
      waits ? (draw(8) == 0 ? (uint64_t)any_address() : (uint64_t)&soon) : draw(3);
  if (waits && timeout_or_count == 0) return;
  report("futex", syscall(SYS_futex, one, operation, words[draw(4)], timeout_or_count, two, (uint32_t)draws));
  const uint32_t clean = 0x2a000007; /* a lock that was taken has the number of this thread in it */
  if ((uint64_t)one % 4 == 0) store(one, &clean, sizeof clean);
  if ((uint64_t)two % 4 == 0) store(two, &clean, sizeof clean);
}

static void* end_with_robust_list(void* head) {
  const uint32_t own = (uint32_t)gettid();
  uint64_t entry[4]; /* next, offset, pending, and a word that is ours */
  for (int i = 0; i < 3; i++) entry[i] = (uint64_t)any_address();
  if (draw(2)) entry[0] = (uint64_t)head + (draw(4) == 0 ? 0 : 32);
  if (draw(2)) entry[1] = 24;
  entry[3] = own;
  store(head, entry, sizeof entry);
  if (syscall(SYS_set_robust_list, head, draw(8) == 0 ? 12 : 24) == 0) syscall(SYS_exit, 0);
  return NULL;
}

static void thread_calls(void) {
  char* const head = any_address();
  pthread_t thread;
  if (pthread_create(&thread, NULL, end_with_robust_list, head) != 0) fail("pthread_create");
  pthread_join(thread, NULL);
  const uint64_t clean = 0x2a0000072a000007;
  uint32_t word = 0;
  if (write(channel[1], head + 24, sizeof word) == sizeof word) {
    if (read(channel[0], &word, sizeof word) != sizeof word) fail("the pipe");
    printf("robust list: %x\n", word & FUTEX_OWNER_DIED);
  }
  store(head + 24, &clean, sizeof clean);
}

static void child_calls(void) {
  char *const parent_word = any_address(), *const child_word = any_address();
  const unsigned long flags = SIGCHLD | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
  fflush(stdout);
  const long child = syscall(SYS_clone, flags, 0, parent_word, child_word, 0);
  if (child == 0) {
    show(any_page(), 64);
    fflush(stdout);
    _exit(3);
  }
  int status = 0;
  if (child > 0) waitpid((pid_t)child, &status, 0);
  report("clone", child > 0 ? status : child);
  const uint32_t clean = 0x2a000007;
  store(parent_word, &clean, sizeof clean);
}

static void other_calls(void) {
  static const char* const paths[] = {"/dev/null", "/proc/self/maps", "/nowhere/maps", ""};
  char* const at = any_address();
  switch (draw(6)) {
    case 0:
    case 1: {
      const char* path = paths[draw(4)];
      store(at, path, strlen(path) + 1);
      const long opened =
          draw(2) ? syscall(SYS_open, at, O_RDONLY) : syscall(SYS_openat, AT_FDCWD, at, O_RDONLY);
      report("open", opened < 0 ? -1 : 0);
      if (opened >= 0) close((int)opened);
      break;
    }
    case 2: {
      const struct rlimit limit = {(1 + draw(2)) << 23, RLIM_INFINITY};
      const int set = draw(2) && store(at, &limit, sizeof limit);
      report("prlimit", syscall(SYS_prlimit64, 0, RLIMIT_STACK, set ? at : NULL, set ? NULL : at));
      break;
    }
    case 3: {
      char* const wanted = heap + draw(64) * 1000;
      report("brk", (long)syscall(SYS_brk, wanted) - (long)heap);
      break;
    }
    case 4: report("rt_sigaction", syscall(SYS_rt_sigaction, SIGUSR1, NULL, at, 8)); break;
    default: report("shmdt", syscall(SYS_shmdt, (uint64_t)at | 1));
  }
}

static void step(void) {
  const uint64_t what = draw(100);
  if (what < 40)
    map_calls();
  else if (what < 62)
    read_calls();
  else if (what < 74)
    aio_calls();
  else if (what < 86)
    futex_calls();
  else if (what < 89)
    thread_calls();
  else if (what < 90)
    child_calls();
  else
    other_calls();
  ballast_walk(&ballast, WALKED_PAGES);
  const char* at = any_page() + 8 * draw(500);
  show(at, 32);
}

static void make_file(const char* path) {
  static char page[PAGE_BYTES];
  cached = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
  for (uint64_t i = 0; i < FILE_PAGES; i++) {
    for (int j = 0; j < PAGE_WORDS; j++) ((uint64_t*)page)[j] = mix(i << 32 | (uint64_t)j);
    if (write(cached, page, sizeof page) != sizeof page) fail("no file");
  }
  fsync(cached);
  close(cached);
  cached = open(path, O_RDONLY);
  direct = open(path, O_RDONLY | O_DIRECT);
  if (cached < 0 || direct < 0) fail("the file does not open");
}

int main(int argc, char** argv) {
  if (argc != 4 || pipe(channel) != 0 || syscall(SYS_io_setup, 64, &context) != 0) fail("it cannot begin");
  draws = mix(number(argc, argv, 2, 1)) | 1;
  make_file(argv[1]);
  mallopt(M_TOP_PAD, 1 << 20);  // the C library never moves the break again
  void* volatile some = malloc(1);
  free(some);
  heap = (char*)syscall(SYS_brk, 0);
  if (mmap(arena, ARENA_PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
           -1, 0) != arena)
    fail("no arena");
  ballast = ballast_make(BALLAST_PAGES);
  for (uint64_t calls = number(argc, argv, 3, 1000); calls > 0; calls--) step();
  return 0;
}
