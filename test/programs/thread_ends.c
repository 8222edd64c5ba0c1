/*
 * What the kernel does for a thread without any call of it: robust mutexes at its end, breakpoints, and calls
 * of the page that it emulates.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "cases.h"

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

/* Breakpoints, and calls of the page at the end of all addresses, right after pages that are elsewhere. */
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

static const struct test_case cases[] = {
    {"robust", robust},
    {"robust-group", robust_group},
    {"traps", traps_and_vsyscalls},
    {NULL, NULL},
};

int main(int argc, char** argv) { return run_case(cases, argc, argv); }
