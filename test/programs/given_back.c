/*
 * Memory that the program has given back, the end of its heap or a block, is as unmapped for whoever asks,
 * and as new when it is taken again.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cases.h"

enum { PAGES = 40 };
static const size_t length = PAGES * PAGE_BYTES;

static char* heap_end(void) { return (char*)syscall(SYS_brk, 0); }

static void set_heap_end(char* to) {
  if ((char*)syscall(SYS_brk, to) != to) fail("brk");
}

static char* heap_top; /* page-aligned */

/* What the C library wants of the heap it has before. */
static void begin_heap(void) {
  void* volatile first = malloc(1);
  free(first);
  heap_top = (char*)(((uintptr_t)heap_end() + PAGE_BYTES - 1) & ~(uintptr_t)(PAGE_BYTES - 1));
  set_heap_end(heap_top);
}

/* Memory with something in it, given back: beyond the heap's end, or a block. */
static char* give_back_heap(void) {
  set_heap_end(heap_top + length);
  memset(heap_top, 0x5a, length);
  set_heap_end(heap_top);
  return heap_top;
}

static char* give_back_block(void) {
  char* const at = map(length, PROT_READ | PROT_WRITE, anonymous);
  memset(at, 0x5a, length);
  munmap(at, length);
  return at;
}

static sigjmp_buf back;
static siginfo_t seen;

static void on_fault(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)context;
  seen = *info;
  siglongjmp(back, 1);
}

static void must_fault(volatile char* at, int writes) {
  if (sigsetjmp(back, 1) == 0) {
    if (writes)
      *at = 1;
    else
      (void)*at;
    fail("it can be %s", writes ? "written" : "read");
  }
  if (seen.si_signo != SIGSEGV || seen.si_code != SEGV_MAPERR || seen.si_addr != (void*)at)
    fail("signal %d with code %d at %p", seen.si_signo, seen.si_code, seen.si_addr);
}

static void reads(char* at) { must_fault(at + PAGE_BYTES, 0); }
static void writes(char* at) { must_fault(at + length - 1, 1); }

static void kernel_reads(char* at) {
  int ends[2];
  if (pipe(ends) != 0) fail("pipe");
  expect_error("write", write(ends[1], at, 1) < 0, EFAULT);
  if (write(ends[1], "x", 1) != 1) fail("pipe");
  expect_error("read", read(ends[0], at + PAGE_BYTES, 1) < 0, EFAULT);
  close(ends[0]);
  close(ends[1]);
}

static void asks_mincore(char* at) {
  unsigned char there[PAGES];
  expect_error("mincore", mincore(at, length, there) < 0, ENOMEM);
}

static void asks_msync(char* at) { expect_error("msync", msync(at, PAGE_BYTES, MS_ASYNC) < 0, ENOMEM); }

static void asks_policy(char* at) {
  int mode = 0;
  const long failed = syscall(SYS_get_mempolicy, &mode, NULL, 0, at, 2 /* MPOL_F_ADDR */);
  if (failed == 0) fail("get_mempolicy knows it");
}

static void advises(char* at) {
  expect_error("madvise", madvise(at, PAGE_BYTES, MADV_DONTNEED) < 0, ENOMEM);
  expect_error("mprotect", mprotect(at, PAGE_BYTES, PROT_READ) < 0, ENOMEM);
}

static void is_listed(char* at) {
  char line[512];
  FILE* const file = fopen("/proc/self/maps", "r");
  if (file == NULL) fail("no list of mappings");
  while (fgets(line, sizeof line, file) != NULL) {
    unsigned long from, to;
    if (sscanf(line, "%lx-%lx", &from, &to) == 2 && from <= (uintptr_t)at && (uintptr_t)at < to)
      fail("listed: %s", line);
  }
  fclose(file);
}

static void is_free_for(char* at, int flags, int fd) {
  char* const taken = mmap(at, length, PROT_READ, flags | MAP_FIXED_NOREPLACE, fd, 0);
  if (taken != at) fail("the place is not free: %s", strerror(errno));
  for (size_t i = 0; i < length; i++)
    if (taken[i] != 0) fail("byte %zu is not zero", i);
  munmap(taken, length);
}

static void is_free(char* at) { is_free_for(at, anonymous, -1); }
static void is_free_for_shared(char* at) { is_free_for(at, MAP_SHARED | MAP_ANONYMOUS, -1); }

static void child_has_it_not(char* at) {
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    asks_mincore(at);
    reads(at);
    kernel_reads(at);
    _exit(0);
  }
  int status;
  if (waitpid(child, &status, 0) != child || status != 0) fail("a child: status %d", status);
}

static int to_thread[2], from_thread[2];

static void* thread(void* unused) {
  char* at;
  while (read(to_thread[0], &at, sizeof at) == sizeof at) {
    must_fault(at, 1);
    if (write(from_thread[1], &at, sizeof at) != sizeof at) fail("pipe");
  }
  return unused;
}

static void thread_faults(char* at) {
  if (write(to_thread[1], &at, sizeof at) != sizeof at || read(from_thread[0], &at, sizeof at) != sizeof at)
    fail("pipe");
}

/* Each of them comes first after the memory has been given back. */
static void ask(char* (*give_back)(void)) {
  static void (*const all[])(char*) = {
      reads,   writes,    kernel_reads, asks_mincore,       asks_msync,    asks_policy,
      advises, is_listed, is_free,      is_free_for_shared, thread_faults, child_has_it_not};
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
  sigaction(SIGSEGV, &action, NULL);
  pthread_t id;
  if (pipe(to_thread) != 0 || pipe(from_thread) != 0 || pthread_create(&id, NULL, thread, NULL) != 0)
    fail("no thread");
  begin_heap();
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    char* const at = give_back();
    all[i](at);
  }
}

static void heap(void) { ask(give_back_heap); }
static void block(void) { ask(give_back_block); }

static void must_be(const uint64_t* from, const uint64_t* to, uint64_t value, const char* what) {
  for (; from < to; from += PAGE_BYTES / sizeof *from)
    if (*from != value) fail("%s: %lx at %p instead of %lx", what, *from, (const void*)from, value);
}

static void mark(uint64_t* from, const uint64_t* to, uint64_t value) {
  for (; from < to; from += PAGE_BYTES / sizeof *from) *from = value;
}

static uint64_t state = 88172645463325252ull;

static uint64_t next(void) { /* Marsaglia's xorshift64 */
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

static void in_child(const uint64_t* from, const uint64_t* to, uint64_t value) {
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    must_be(from, to, value, "in a child");
    _exit(0);
  }
  int status;
  if (waitpid(child, &status, 0) != child || status != 0) fail("a child: status %d", status);
}

/* The heap and a few blocks grow, shrink, come and go; what is new is zeros, what is kept has its contents.
 */
enum { CHURN_PAGES = 1600, BLOCKS = 6, CHURNS = 200 };

static void churn(void) {
  static struct { uint64_t *from, *to, value; } blocks[BLOCKS];
  begin_heap();
  uint64_t* const start = (uint64_t*)heap_top;
  uint64_t* end = start;
  for (uint64_t round = 1; round <= CHURNS; round++) {
    uint64_t* const to = start + next() % CHURN_PAGES * (PAGE_BYTES / sizeof *start);
    set_heap_end((char*)to);
    if (to > end) must_be(end, to, 0, "the heap's end");
    must_be(start, to < end ? to : end, round - 1, "the heap");
    mark(start, to, round);
    end = to;
    const size_t at = next() % BLOCKS, bytes = (1 + next() % 300) * PAGE_BYTES;
    must_be(blocks[at].from, blocks[at].to, blocks[at].value, "a block");
    if (blocks[at].from != NULL) munmap(blocks[at].from, (char*)blocks[at].to - (char*)blocks[at].from);
    blocks[at].from = (uint64_t*)map(bytes, PROT_READ | PROT_WRITE, anonymous);
    blocks[at].to = blocks[at].from + bytes / sizeof(uint64_t);
    must_be(blocks[at].from, blocks[at].to, 0, "a new block");
    mark(blocks[at].from, blocks[at].to, blocks[at].value = round);
    if (round % 50 == 0) in_child(start, end, round);
  }
  set_heap_end((char*)start);
}

static const struct test_case cases[] = {{"heap", heap}, {"block", block}, {"churn", churn}, {NULL, NULL}};

int main(int argc, char** argv) { return run_case(cases, argc, argv); }
