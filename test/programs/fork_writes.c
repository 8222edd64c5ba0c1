/*
 * What the kernel itself writes into pages of a program that a child of it has still to get: the child has
 * them as they were at the fork, and what was written is there. Cases, each with an array of its own, most of
 * which is away.
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>

#include "cases.h"
#include "children.h"

enum { PAGES = 2000, USED = 16, APART = PAGES / USED };

static uint64_t* array;
static char at_fork[USED][PAGE_BYTES]; /* of the pages that are written to */
static int to_child[2];

static char* used(int index) { return (char*)(array + (size_t)index * APART * PAGE_WORDS); }
static int* word(int index) { return (int*)used(index); }

static void make_array(void) {
  array = (uint64_t*)map((size_t)PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, anonymous);
  fill(array, PAGES, 1);
}

static void verify_in_child(void) {
  for (uint64_t page = 0; page < PAGES; page++) {
    const uint64_t* const at = array + page * PAGE_WORDS;
    if (page % APART != 0)
      verify(at, 1, 1 + page * PAGE_WORDS, "a child");
    else if (page / APART < USED && memcmp(at, at_fork[page / APART], PAGE_BYTES) != 0)
      fail("a child has what was written to page %lu after the fork", page);
  }
}

/* A child that looks when finish() says so; all of its pages are to come. */
static pid_t start(void) {
  for (int i = 0; i < USED; i++) memcpy(at_fork[i], used(i), PAGE_BYTES);
  for (uint64_t i = 0; i < USED; i++) { /* which sends away what will be written to */
    const uint64_t first = (i * APART + 1) * PAGE_WORDS;
    fill(array + first, APART - 1, 1 + first);
  }
  if (pipe(to_child) != 0) fail("no pipe");
  const pid_t child = fork();
  if (child != 0) return child;
  close(to_child[1]);
  char byte = 0;
  if (read(to_child[0], &byte, 1) != 0) fail("the pipe broke");
  verify_in_child();
  _exit(0);
}

static void finish(pid_t child) {
  close(to_child[1]);
  expect_right(child, "at its end");
}

static void on_signal(int signal) { (void)signal; }

/* Results of calls, and the frame of a signal. */
static void results(void) {
  make_array();
  const pid_t before = fork();
  if (before == 0) _exit(3);
  int ends[2];
  if (pipe(ends) != 0 || write(ends[1], "0123456789", 10) != 10) fail("pipe");
  const pid_t child = start();
  if (read(ends[0], used(0) + 100, 4) != 4 || memcmp(used(0) + 100, "0123", 4) != 0) fail("read");
  const struct iovec parts[] = {{used(1) + PAGE_BYTES - 2, 4}, {used(2), 2}};
  if (readv(ends[0], parts, 2) != 6 || memcmp(used(1) + PAGE_BYTES - 2, "4567", 4) != 0 ||
      memcmp(used(2), "89", 2) != 0)
    fail("readv");
  if (pipe((int*)used(3)) != 0 || word(3)[1] != word(3)[0] + 1) fail("pipe");
  if (fstat(ends[0], (struct stat*)used(4)) != 0 || !S_ISFIFO(((struct stat*)used(4))->st_mode))
    fail("fstat");
  if (syscall(SYS_clock_gettime, CLOCK_REALTIME, used(5)) != 0 || ((struct timespec*)used(5))->tv_sec == 0)
    fail("clock_gettime");
  if (syscall(SYS_getrandom, used(6), PAGE_BYTES, 0) != PAGE_BYTES ||
      memcmp(used(6), at_fork[6], PAGE_BYTES) == 0)
    fail("getrandom");
  if (uname((struct utsname*)used(7)) != 0 || strcmp(used(7), "Linux") != 0) fail("uname");
  if (waitpid(before, word(8), 0) != before || *word(8) != 3 << 8) fail("waitpid");
  /* The stack of a handler ends with a page that is used for nothing else. */
  const stack_t stack = {.ss_sp = used(10) - (APART - 1) * PAGE_BYTES, .ss_size = (size_t)APART * PAGE_BYTES};
  const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
  if (sigaltstack(&stack, NULL) != 0 || sigaction(SIGUSR1, &action, NULL) != 0 || raise(SIGUSR1) != 0)
    fail("a signal");
  finish(child);
}

/* Words of futexes, changed by the kernel where it cannot wait. */
static void futexes(void) {
  make_array();
  for (int i = 0; i < USED; i++) *word(i) = 0;
  const pid_t child = start();
  for (int i = 0; i < USED; i += 2) {
    if (syscall(SYS_futex, word(i), FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0) != 0 || *word(i) != getpid())
      fail("LOCK_PI: %d, the word is %d", errno, *word(i));
    const int add_5 = FUTEX_OP(FUTEX_OP_ADD, 5, FUTEX_OP_CMP_EQ, 1);
    if (syscall(SYS_futex, word(i) + 1, FUTEX_WAKE_OP_PRIVATE, 1, 1, word(i + 1), add_5) != 0 ||
        *word(i + 1) != 5)
      fail("WAKE_OP: %d, the word is %d", errno, *word(i + 1));
    if (syscall(SYS_futex, word(i), FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0) != 0 || *word(i) != 0)
      fail("UNLOCK_PI: %d, the word is %d", errno, *word(i));
  }
  finish(child);
}

static atomic_int waiting;

static void* lock_pi(void* at) {
  atomic_store(&waiting, 1);
  if (syscall(SYS_futex, at, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0) != 0)
    fail("LOCK_PI of a waiter: %d", errno);
  return NULL;
}

/* A thread waits for a lock before the fork and gets it afterwards. */
static void waiter(void) {
  make_array();
  *word(0) = 0;
  if (syscall(SYS_futex, word(0), FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0) != 0) fail("LOCK_PI");
  pthread_t thread;
  pthread_create(&thread, NULL, lock_pi, word(0));
  while ((*(volatile int*)word(0) & FUTEX_WAITERS) == 0) usleep(1000);
  const pid_t child = start();
  if (syscall(SYS_futex, word(0), FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0) != 0)
    fail("UNLOCK_PI: %d", errno);
  pthread_join(thread, NULL);
  if ((*word(0) & FUTEX_TID_MASK) == 0 || (*word(0) & FUTEX_TID_MASK) == getpid())
    fail("the word of the lock is %#x", *word(0));
  finish(child);
}

static int quit(void* unused) {
  (void)unused;
  syscall(SYS_exit, 0);
  return 0;
}

static void* end_with_word(void* index) {
  syscall(SYS_set_tid_address, word((int)(uintptr_t)index));
  atomic_fetch_add(&waiting, 1);
  while (atomic_load(&waiting) > 0) usleep(1000);
  syscall(SYS_exit, 0);
  return NULL;
}

/* The numbers of new threads, and the words that are cleared at their ends. */
static void threads(void) {
  enum { NEW = 4, FIRST_OLD = 8, OLD = 4 };
  static char stacks[NEW][16384];
  make_array();
  pthread_t old[OLD];
  for (int i = 0; i < OLD; i++)
    pthread_create(&old[i], NULL, end_with_word, (void*)(uintptr_t)(FIRST_OLD + i));
  while (atomic_load(&waiting) < OLD) usleep(1000);
  for (int i = 0; i < OLD; i++) *word(FIRST_OLD + i) = 1;
  const pid_t child = start();
  const int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
                    CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
  for (int i = 0; i < NEW; i++) {
    const int tid =
        clone(quit, stacks[i] + sizeof stacks[i], flags, NULL, word(2 * i), NULL, word(2 * i + 1));
    if (tid < 0) fail("clone: %s", strerror(errno));
    if (*word(2 * i) != tid) fail("the number of thread %d is %d", tid, *word(2 * i));
    while (*(volatile int*)word(2 * i + 1) != 0) usleep(1000);
  }
  atomic_store(&waiting, 0);
  for (int i = 0; i < OLD; i++)
    while (*(volatile int*)word(FIRST_OLD + i) != 0) usleep(1000);
  finish(child);
}

static void* lock_robust(void* unused) {
  for (int i = 0; i < USED; i++) pthread_mutex_lock((pthread_mutex_t*)used(i));
  atomic_store(&waiting, 1);
  while (atomic_load(&waiting) == 1) usleep(1000);
  return unused;
}

/* Locks that a thread has when it ends. */
static void robust(void) {
  make_array();
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  for (int i = 0; i < USED; i++) pthread_mutex_init((pthread_mutex_t*)used(i), &attributes);
  pthread_t thread;
  pthread_create(&thread, NULL, lock_robust, NULL);
  while (atomic_load(&waiting) == 0) usleep(1000);
  const pid_t child = start();
  atomic_store(&waiting, 2);
  pthread_join(thread, NULL);
  for (int i = 0; i < USED; i++) {
    const int result = pthread_mutex_trylock((pthread_mutex_t*)used(i));
    if (result != EOWNERDEAD) fail("mutex %d: %s", i, strerror(result));
  }
  finish(child);
}

int main(int argc, char** argv) {
  static const struct test_case list[] = {{"results", results}, {"futexes", futexes}, {"waiter", waiter},
                                          {"threads", threads}, {"robust", robust},   {NULL, NULL}};
  return run_case(list, argc, argv);
}
