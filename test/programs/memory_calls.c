/*
 * Memory calls whose effect on contents, not only whose answer, has to be as it is alone; one case for each
 * argument. Every case prints the same under elasticos as without.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "check.h"

enum { PAGES = 16 };
static const size_t length = PAGES * PAGE_BYTES;
static const int anonymous = MAP_PRIVATE | MAP_ANONYMOUS;

static char* map(size_t bytes, int protection, int flags) {
  char* const at = mmap(NULL, bytes, protection, flags, -1, 0);
  if (at == MAP_FAILED) fail("no memory");
  return at;
}

static void must_be_fresh(char* at, const char* what) {
  char* const again = mmap(at, length, PROT_READ | PROT_WRITE, anonymous | MAP_FIXED_NOREPLACE, -1, 0);
  if (again != at) fail("%s: the place is not free", what);
  verify_zero((const uint64_t*)at, PAGES, what);
}

/* What the kernel maps over private memory, and takes away again, leaves nothing of the old contents. */
static void fresh(void) {
  char* const shared = map(length, PROT_READ | PROT_WRITE, anonymous);
  memset(shared, 0x5a, length);
  const int id = shmget(IPC_PRIVATE, length, 0600 | IPC_CREAT);
  if (shmat(id, shared, SHM_REMAP) != shared) fail("shmat");
  shmctl(id, IPC_RMID, NULL);
  if (shmdt(shared) != 0) fail("shmdt");
  must_be_fresh(shared, "after shmat and shmdt");

  char* const moved = map(length, PROT_READ | PROT_WRITE, anonymous);
  memset(moved, 0x33, length);
  char* const native = map(length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  char* const elsewhere = map(length, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS);
  if (mremap(native, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, moved) != moved ||
      mremap(moved, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, elsewhere) != elsewhere)
    fail("mremap of a shared mapping");
  must_be_fresh(moved, "after mremap");
}

enum { ROUNDS = 200, FILE_PAGES = 64 };
static _Atomic(const volatile char*) read_now;  // null: the reader rests
static atomic_int reader_rests, reader_ends;

static void* reader(void* unused) {
  (void)unused;
  while (!reader_ends) {
    const volatile char* const at = read_now;
    if (at == NULL) {
      reader_rests = 1;
      continue;
    }
    for (size_t i = 0; i < FILE_PAGES; i++)
      if (at[i * PAGE_BYTES] != 1) fail("page %zu of a file reads as %d", i, at[i * PAGE_BYTES]);
  }
  return NULL;
}

/* A private file mapping becomes writable while another thread reads it. */
static void convert(void) {
  char page[PAGE_BYTES];
  memset(page, 1, sizeof page);
  char name[] = "memory-calls-XXXXXX";
  const int file = mkstemp(name);
  unlink(name);
  for (int i = 0; i < FILE_PAGES; i++)
    if (write(file, page, sizeof page) != sizeof page) fail("write");
  pthread_t thread;
  pthread_create(&thread, NULL, reader, NULL);
  for (int round = 0; round < ROUNDS; round++) {
    char* const at = mmap(NULL, sizeof page * FILE_PAGES, PROT_READ, MAP_PRIVATE, file, 0);
    if (at == MAP_FAILED) fail("no mapping");
    read_now = at;
    for (volatile int i = 0; i < 20000; i++) continue;
    if (mprotect(at, sizeof page * FILE_PAGES, PROT_READ | PROT_WRITE) != 0) fail("mprotect");
    at[1] = 2;
    for (volatile int i = 0; i < 20000; i++) continue;
    read_now = NULL;
    reader_rests = 0;
    while (!reader_rests) continue;
    for (size_t i = 0; i < FILE_PAGES * sizeof page; i++)
      if (at[i] != (i == 1 ? 2 : 1)) fail("byte %zu is %d", i, at[i]);
    munmap(at, sizeof page * FILE_PAGES);
  }
  reader_ends = 1;
  pthread_join(thread, NULL);
}

/* Enough to send everything else away. */
static void crowd_out(void) {
  enum { CROWD_PAGES = 4000 };
  static char* crowd;
  if (crowd == NULL) crowd = map((size_t)CROWD_PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, anonymous);
  for (int round = 0; round < 2; round++)
    for (size_t i = 0; i < CROWD_PAGES; i++) crowd[i * PAGE_BYTES] = (char)(i | 1);
}

static void make_robust(pthread_mutex_t* mutex, int shared) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutexattr_setpshared(&attributes, shared);
  pthread_mutex_init(mutex, &attributes);
}

static int lock_in_time(pthread_mutex_t* mutex) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 5;
  return pthread_mutex_timedlock(mutex, &until);
}

enum { MUTEXES = 50 };
static pthread_mutex_t* mutexes[MUTEXES];

static void* lock_all(void* unused) {
  (void)unused;
  for (int i = 0; i < MUTEXES; i++) pthread_mutex_lock(mutexes[i]);
  crowd_out();
  return NULL;
}

/* A thread ends with robust mutexes that are away, each on a page of its own. */
static void robust(void) {
  for (int i = 0; i < MUTEXES; i++) {
    mutexes[i] = (pthread_mutex_t*)map(2 * PAGE_BYTES, PROT_READ | PROT_WRITE, anonymous);
    make_robust(mutexes[i], PTHREAD_PROCESS_PRIVATE);
  }
  pthread_t thread;
  pthread_create(&thread, NULL, lock_all, NULL);
  pthread_join(thread, NULL);
  for (int i = 0; i < MUTEXES; i++) {
    const int result = lock_in_time(mutexes[i]);
    if (result != EOWNERDEAD) fail("mutex %d: %s", i, strerror(result));
  }
}

static atomic_int locked;

static void* lock_and_wait(void* mutex) {
  pthread_mutex_lock(mutex);
  locked = 1;
  pause();
  return NULL;
}

/* The process ends while a thread of it, whose list of robust mutexes is away, has one that a child wants. */
static void robust_group(void) {
  pthread_mutex_t* const mutex =
      (pthread_mutex_t*)map(PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  make_robust(mutex, PTHREAD_PROCESS_SHARED);
  int told[2];
  if (pipe(told) != 0) fail("pipe");
  if (fork() == 0) {
    char byte = 0;
    close(told[1]);
    if (read(told[0], &byte, 1) != 0) fail("nothing was to be said");
    const int result = lock_in_time(mutex);
    if (result != EOWNERDEAD) fail("shared mutex: %s", strerror(result));
    return;
  }
  pthread_t thread;
  pthread_create(&thread, NULL, lock_and_wait, mutex);
  while (!locked) continue;
  crowd_out();
  _exit(0);
}

static void expect_error(const char* what, int failed, int error) {
  if (!failed || errno != error) fail("%s: %s", what, failed ? strerror(errno) : "done");
}

/* Where elasticos has pages of its own, which no call may change. Alone there is nothing. */
static void reserved(void) {
  char* const at = (char*)0xf0000000000;
  if (munmap(at, PAGE_BYTES) == 0) return; /* alone */
  expect_error("munmap", munmap(at - 4 * PAGE_BYTES, 9 * PAGE_BYTES) != 0, EINVAL);
  expect_error("mmap", mmap(at, length, PROT_READ, anonymous | MAP_FIXED, -1, 0) == MAP_FAILED, ENOMEM);
  expect_error("mprotect", mprotect(at, PAGE_BYTES, PROT_READ | PROT_WRITE) != 0, ENOMEM);
  expect_error("madvise", madvise(at, PAGE_BYTES, MADV_DONTNEED) != 0, ENOMEM);
  expect_error("mremap", mremap(at, PAGE_BYTES, 2 * PAGE_BYTES, MREMAP_MAYMOVE) == MAP_FAILED, EFAULT);
  static const int kinds[] = {MAP_PRIVATE | MAP_ANONYMOUS, MAP_SHARED | MAP_ANONYMOUS};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    char* const mine = map(length, PROT_READ | PROT_WRITE, kinds[i]);
    expect_error("mremap there",
                 mremap(mine, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, at - PAGE_BYTES) == MAP_FAILED,
                 EINVAL);
    char* const hinted = mmap(at, length, PROT_READ | PROT_WRITE, kinds[i], -1, 0);
    if (hinted == MAP_FAILED || hinted == at) fail("mmap with a hint: %p", (void*)hinted);
    hinted[0] = 1;
  }
  const int id = shmget(IPC_PRIVATE, length, 0600 | IPC_CREAT);
  const int failed = shmat(id, at - PAGE_BYTES, SHM_REMAP) == (void*)-1;
  const int error = errno;
  shmctl(id, IPC_RMID, NULL);
  errno = error;
  expect_error("shmat", failed, EINVAL);
}

static volatile sig_atomic_t traps, traps_elsewhere;
extern const char after_short_trap[], after_long_trap[];

static void on_trap(int signal, siginfo_t* info, void* context) {
  const ucontext_t* const interrupted = context;
  const char* const at = (const char*)interrupted->uc_mcontext.gregs[REG_RIP];
  traps += signal == SIGTRAP && info->si_code == SI_KERNEL;
  traps_elsewhere += at != after_short_trap && at != after_long_trap;
}

static int has_vsyscalls(void) {
  char line[512];
  int found = 0;
  FILE* const maps = fopen("/proc/self/maps", "r");
  while (maps != NULL && fgets(line, sizeof line, maps) != NULL)
    found = found || strstr(line, "[vsyscall]") != NULL;
  if (maps != NULL) fclose(maps);
  return found;
}

enum { TRAP_ROUNDS = 200 };

__attribute__((noinline)) static void trap_twice(void) {
  __asm__ volatile("int3; .globl after_short_trap; after_short_trap:");
  __asm__ volatile(".byte 0xcd, 3; .globl after_long_trap; after_long_trap:");
}

/* Breakpoints, and calls of the page at the end of all addresses, each right after a page that is elsewhere. */
static void traps_and_vsyscalls(void) {
  struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
  sigaction(SIGTRAP, &action, NULL);
  const int vsyscalls = has_vsyscalls();
  int (*const vsyscall_gettimeofday)(struct timeval*, void*) = (void*)0xffffffffff600000;
  time_t (*const vsyscall_time)(time_t*) = (void*)0xffffffffff600400;
  int (*const vsyscall_getcpu)(unsigned*, unsigned*, void*) = (void*)0xffffffffff600800;
  enum { FAR_PAGES = 4000 };
  volatile char* const far = map((size_t)FAR_PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, anonymous);
  for (size_t i = 0; i < FAR_PAGES; i++) far[i * PAGE_BYTES] = 1;
  for (size_t i = 0; i < TRAP_ROUNDS; i++) {
    (void)far[i * 8 * PAGE_BYTES];
    trap_twice();
    if (!vsyscalls) continue;
    const time_t now = time(NULL);
    struct timeval day = {0, 0};
    time_t seconds = 0;
    unsigned cpu = ~0u, node = ~0u;
    (void)far[(i * 8 + 2) * PAGE_BYTES];
    if (vsyscall_gettimeofday(&day, NULL) != 0 || day.tv_sec < now - 1 || day.tv_sec > now + 60)
      fail("gettimeofday: %ld", day.tv_sec);
    (void)far[(i * 8 + 4) * PAGE_BYTES];
    if (vsyscall_time(&seconds) != seconds || seconds < now - 1 || seconds > now + 60)
      fail("time: %ld", seconds);
    (void)far[(i * 8 + 6) * PAGE_BYTES];
    if (vsyscall_getcpu(&cpu, &node, NULL) != 0 || cpu == ~0u || node == ~0u) fail("getcpu: %u", cpu);
  }
  printf("%d traps, %d elsewhere\n", (int)traps, (int)traps_elsewhere);
}

static const struct {
  const char* name;
  void (*run)(void);
} cases[] = {
    {"fresh", fresh},
    {"convert", convert},
    {"robust", robust},
    {"robust-group", robust_group},
    {"reserved", reserved},
    {"traps", traps_and_vsyscalls},
};

int main(int argc, char** argv) {
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    if (argc > 1 && strcmp(argv[1], cases[i].name) == 0) {
      cases[i].run();
      puts("done");
      return 0;
    }
  fail("no such case");
}
