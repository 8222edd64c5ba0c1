/*
 * Resource limits: the stack, address space, data; and what no machine has.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cases.h"

static sigjmp_buf overflown;
static volatile size_t depth;

static void on_overflow(int signal) {
  (void)signal;
  siglongjmp(overflown, 1);
}

enum { FRAME_BYTES = 32 << 10 };

__attribute__((noinline)) static int descend(size_t bytes) {
  volatile char frame[FRAME_BYTES];
  frame[0] = 1;
  depth += FRAME_BYTES;
  if (bytes <= FRAME_BYTES) return frame[0];
  return descend(bytes - FRAME_BYTES) + frame[0];
}

/* The stack takes `bytes`, and overflows soon after `limit`. */
static void expect_stack(size_t bytes, size_t limit, const char* what) {
  enum { SLACK = 1 << 20 };
  depth = 0;
  if (sigsetjmp(overflown, 1) == 0) descend(bytes);
  if (depth < bytes) fail("%s: the stack ended after %zu of %zu", what, depth, bytes);
  depth = 0;
  if (sigsetjmp(overflown, 1) == 0) descend(limit + SLACK);
  if (depth > limit) fail("%s: the stack went on after %zu", what, limit);
}

/* The limit of the stack at the start, and after it was raised. */
static void stack(void) {
  static char other_stack[64 << 10];
  const stack_t place = {.ss_sp = other_stack, .ss_size = sizeof other_stack};
  struct sigaction action = {.sa_handler = on_overflow, .sa_flags = SA_ONSTACK};
  sigaltstack(&place, NULL);
  sigaction(SIGSEGV, &action, NULL);
  struct rlimit limit;
  getrlimit(RLIMIT_STACK, &limit);
  expect_stack(limit.rlim_cur - (1 << 20), limit.rlim_cur, "at the start");
  limit.rlim_cur = 64 << 20;
  if (setrlimit(RLIMIT_STACK, &limit) != 0) fail("setrlimit");
  expect_stack(63 << 20, 64 << 20, "raised");
}

/* What a library that wants an executable stack has the C library do. */
static void grows_down(void) {
  char here;
  char* const page = (char*)((uintptr_t)&here & ~(uintptr_t)(PAGE_BYTES - 1));
  const int all = PROT_READ | PROT_WRITE | PROT_EXEC;
  if (mprotect(page, PAGE_BYTES, all | PROT_GROWSDOWN) != 0) fail("mprotect: %s", strerror(errno));
  char* const other = map(PAGE_BYTES, PROT_READ, anonymous);
  expect_error("not a stack", mprotect(other, PAGE_BYTES, PROT_READ | PROT_GROWSDOWN) != 0, EINVAL);
  const unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3}; /* mov $42, %eax; ret */
  unsigned char on_stack[4 * PAGE_BYTES];
  memcpy(on_stack, code, sizeof code);
  __asm__ volatile("" ::"r"(on_stack) : "memory");
  printf("%d\n", ((int (*)(void))(uintptr_t)on_stack)());
}

/* Limits of the address space and of data. */
static void limits(void) {
  const struct rlimit space = {1 << 28, 1 << 28}, data = {1 << 24, 1 << 24};
  char* const at = map(1 << 20, PROT_READ | PROT_WRITE, anonymous);
  setrlimit(RLIMIT_AS, &space);
  expect_error("mmap", mmap(NULL, 1 << 30, PROT_READ, anonymous, -1, 0) == MAP_FAILED, ENOMEM);
  expect_error("mremap", mremap(at, 1 << 20, 1 << 30, MREMAP_MAYMOVE) == MAP_FAILED, ENOMEM);
  expect_error("brk", sbrk(1 << 29) == (void*)-1, ENOMEM);
  char* const reserve = map(100 << 20, PROT_NONE, anonymous);
  setrlimit(RLIMIT_DATA, &data);
  expect_error("data", mmap(NULL, 1 << 25, PROT_WRITE, anonymous, -1, 0) == MAP_FAILED, ENOMEM);
  expect_error("brk as data", sbrk(1 << 25) == (void*)-1, ENOMEM);
  if (mmap(NULL, 1 << 25, PROT_READ, anonymous, -1, 0) == MAP_FAILED) fail("read-only is no data");
  if (mmap(reserve, 100 << 20, PROT_READ, anonymous | MAP_FIXED, -1, 0) != reserve) fail("in its place");
  if (sbrk(1 << 20) == (void*)-1) fail("a little more");
}

static void* show(const char* what, void* at) {
  printf("%s: %s\n", what, at == MAP_FAILED ? strerror(errno) : "done");
  return at;
}

/* More than all that could ever hold it, in one call: refused if it is to be written to, and reserved. */
static void never(void) {
  const size_t much = 1ull << 45;
  const int both = PROT_READ | PROT_WRITE;
  show("mmap", mmap(NULL, much, both, anonymous, -1, 0));
  munmap(show("not reserved", mmap(NULL, much, both, anonymous | MAP_NORESERVE, -1, 0)), much);
  munmap(show("not written", mmap(NULL, much, PROT_READ, anonymous, -1, 0)), much);
  char* const at = map(1 << 20, both, anonymous);
  show("mremap", mremap(at, 1 << 20, much, MREMAP_MAYMOVE));
  show("brk", sbrk((intptr_t)1 << 40));
  show("malloc", malloc(much) == NULL ? MAP_FAILED : at);
  memset(at, 1, 1 << 20);
}

static const struct test_case cases[] = {
    {"stack", stack}, {"grows-down", grows_down}, {"limits", limits}, {"never", never}, {NULL, NULL},
};

int main(int argc, char** argv) { return run_case(cases, argc, argv); }
