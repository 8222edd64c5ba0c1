/*
 * Signals while threads may be on other nodes: an interval timer and a thread that sends SIGUSR1 interrupt
 * two threads that walk over an array larger than the limit; the handlers run on an alternate stack, use
 * memory of their own and preserve all registers. Then faults on purpose: SIGSEGV with the right address and
 * code, SIGFPE, SIGILL. Arguments: pages of the array, rounds at least (they go on until some signals have
 * come).
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include "check.h"

static uint64_t *array, pages, rounds;
static _Atomic uint64_t alarms, users;
static _Atomic uint64_t* handler_memory;
static _Atomic int done;
static sigjmp_buf back;
static void* volatile fault_address;
static volatile int fault_code, fault_signal;

static void on_alarm(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info, (void)context;
  const uint64_t count = atomic_fetch_add(&alarms, 1); /* two threads may be in here at once */
  atomic_fetch_add(&handler_memory[count % 64 * PAGE_WORDS], 1);
  double x = (double)count; /* uses vector registers */
  for (int i = 0; i < 10; i++) x = x * 1.0000001 + 0.5;
  if (x < 0) fail("arithmetic in a handler");
}

static void on_user(int signal) {
  (void)signal;
  atomic_fetch_add(&users, 1);
}

static void* walk(void* argument) {
  const uint64_t half = pages / 2, self = (uintptr_t)argument;
  uint64_t* mine = array + self * half * PAGE_WORDS;
  double sum = 0;
  uint64_t round = 0;
  for (; round < rounds || atomic_load(&users) < 5; round++)
    for (uint64_t page = 0; page < half; page++) {
      uint64_t* word = mine + page * PAGE_WORDS + 3;
      if (*word != page + round) fail("round %lu page %lu: %lu", round, page, *word);
      *word += 1;
      sum += (double)page * 0.5;
    }
  const double expected = (double)(half * (half - 1) / 2) * 0.5 * (double)round;
  if (sum != expected) fail("a sum in a vector register is %f, not %f", sum, expected);
  atomic_fetch_add(&done, 1);
  return NULL;
}

static void* send(void* argument) {
  const pthread_t* targets = argument;
  while (atomic_load(&done) < 2) {
    for (int i = 0; i < 2; i++) pthread_kill(targets[i], SIGUSR1);
    usleep(3000);
  }
  return NULL;
}

static void on_fault(int signal, siginfo_t* info, void* context) {
  (void)context;
  fault_signal = signal;
  fault_address = info->si_addr;
  fault_code = info->si_code;
  siglongjmp(back, 1);
}

static void expect_fault(int signal, volatile uint64_t* address, int code, const char* what) {
  fault_signal = 0;
  if (sigsetjmp(back, 1) == 0) {
    if (signal == SIGSEGV) *address = 1;
    if (signal == SIGFPE) {
      uint64_t quotient = 1;
      __asm__ volatile("xor %%edx, %%edx; divq %1" : "+a"(quotient) : "r"(0ull) : "rdx", "cc");
    }
    if (signal == SIGILL) __asm__ volatile("ud2");
    fail("%s: no fault", what);
  }
  if (fault_signal != signal) fail("%s: signal %d", what, fault_signal);
  if (signal == SIGSEGV && fault_address != (void*)address)
    fail("%s: at %p, not %p", what, fault_address, (void*)address);
  if (code != 0 && fault_code != code) fail("%s: code %d, not %d", what, fault_code, code);
}

static volatile uint64_t* guarded;

/* A handler that mends the mapping and returns: the instruction is made again. */
static void on_guard(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)context;
  if (info->si_addr != (void*)(guarded + 8)) fail("the guarded page: fault at %p", info->si_addr);
  mprotect((void*)guarded, PAGE_BYTES, PROT_READ | PROT_WRITE);
}

static void faults(void) {
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  for (int i = 0; i < 3; i++) sigaction((int[]){SIGSEGV, SIGFPE, SIGILL}[i], &action, NULL);
  uint64_t* page = mmap(NULL, 4 * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  page[0] = 5;
  page[PAGE_WORDS] = 6;
  mprotect(page, PAGE_BYTES, PROT_READ);
  expect_fault(SIGSEGV, page + 1, SEGV_ACCERR, "read-only page");
  if (page[0] != 5) fail("the read-only page changed");
  munmap(page, PAGE_BYTES);
  expect_fault(SIGSEGV, page, SEGV_MAPERR, "unmapped page");
  if (page[PAGE_WORDS] != 6) fail("the neighbour changed");
  expect_fault(SIGSEGV, NULL, SEGV_MAPERR, "null pointer");
  expect_fault(SIGSEGV, (uint64_t*)0x7000000000, SEGV_MAPERR, "wild pointer");
  expect_fault(SIGFPE, NULL, 0, "division by zero");
  expect_fault(SIGILL, NULL, 0, "bad instruction");
  guarded = page + PAGE_WORDS;
  action.sa_sigaction = on_guard;
  sigaction(SIGSEGV, &action, NULL);
  mprotect((void*)guarded, PAGE_BYTES, PROT_NONE);
  guarded[8] = 77;
  if (guarded[8] != 77 || guarded[0] != 6) fail("the guarded page is wrong");
}

int main(int argc, char** argv) {
  pages = number(argc, argv, 1, 3000);
  rounds = number(argc, argv, 2, 20);
  array = calloc(pages, PAGE_BYTES);
  handler_memory = mmap(NULL, 64 * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (uint64_t page = 0; page < pages; page++) array[page * PAGE_WORDS + 3] = page % (pages / 2);
  const stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
  sigaltstack(&stack, NULL);
  struct sigaction action = {.sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
  sigaction(SIGALRM, &action, NULL);
  signal(SIGUSR1, on_user);
  faults();
  const struct itimerval every = {{0, 5000}, {0, 5000}};
  setitimer(ITIMER_REAL, &every, NULL);
  pthread_t threads[3];
  for (uintptr_t i = 0; i < 2; i++) pthread_create(&threads[i], NULL, walk, (void*)i);
  pthread_create(&threads[2], NULL, send, threads);
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  while (alarms < 5) pause();
  const struct itimerval never = {{0, 0}, {0, 0}};
  setitimer(ITIMER_REAL, &never, NULL);
  uint64_t sum = 0;
  for (int i = 0; i < 64; i++) sum += handler_memory[i * PAGE_WORDS];
  if (sum != alarms) fail("%lu alarms noted, %lu came", sum, alarms);
  faults();
  puts("signals: all right");
  return 0;
}
