/*
 * What a hostile guest needs (hostile_calls.c, hostile_guest.c): it walks over memory that is elsewhere, so
 * that it runs on another node, tries one thing there, and goes on wherever that leads. Compile with
 * -fno-stack-protector: the attempts change the base of the thread-local storage.
 */
#pragma once

#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "ballast.h"
#include "cases.h"

enum { BALLAST_PAGES = 1800, WALKED_PAGES = 40, CODE_BYTES = 2 * PAGE_BYTES, SIGNAL_STACK_BYTES = 1 << 16 };
enum { FLAT_CODE = 0x33, COMPAT_CODE = 0x23, FLAT_DATA = 0x2b, MISALIGNED_FLAGS = 0x40500 /* AC, DF, TF */ };

static const char* directory;
static int rounds;
static char* path; /* below 4 GiB */
static int made;

/* The name of a directory that does not exist yet. */
static inline const char* next_path(void) {
  sprintf(path, "%s/%d", directory, made++);
  return path;
}

static inline long raw_call(long number, long a, long b, long c) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
}

/* What came of an attempt: `at` is where the signal found it in `code`, -1 elsewhere. */
struct outcome {
  long result, at;
  int signal, code;
};

static unsigned char* code; /* below 4 GiB, may be written and executed */
static struct ballast ballast;
static struct outcome caught;
void* attempt_stack asm("attempt_stack");
uint64_t attempt_thread_base asm("attempt_thread_base"); /* 0: unchanged */

long attempt_call(void* what, void* argument);
void attempt_end(void);
__asm__(
    ".globl attempt_call, attempt_end\n"
    "attempt_call: push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "mov %rsp, attempt_stack(%rip)\n"
    "mov %rdi, %rax; mov %rsi, %rdi; call *%rax\n"
    /* From here on also after a signal, with anything in the registers. */
    "attempt_end:\n"
    "cmpq $0, attempt_thread_base(%rip); je 1f\n"
    "mov attempt_thread_base(%rip), %rcx; wrfsbase %rcx\n"
    "1: mov attempt_stack(%rip), %rsp\n"
    "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n");

static void on_signal(int signal, siginfo_t* info, void* context) {
  greg_t* const registers = ((ucontext_t*)context)->uc_mcontext.gregs;
  const long at = registers[REG_RIP] - (long)code;
  caught = (struct outcome){-1, at >= 0 && at < CODE_BYTES ? at : -1, signal, info->si_code};
  registers[REG_RIP] = (greg_t)attempt_end;
  registers[REG_RAX] = -1;
  registers[REG_EFL] &= ~(greg_t)MISALIGNED_FLAGS;
  registers[REG_CSGSFS] = (registers[REG_CSGSFS] & ~0xffffl) | FLAT_CODE;
}

static inline struct outcome attempt(void* what, void* argument) {
  caught = (struct outcome){0, -1, 0, 0};
  const long result = attempt_call(what, argument);
  if (caught.signal == 0) caught.result = result;
  return caught;
}

/* The code page becomes `bytes`, and a return. */
static inline void write_code(const void* bytes, size_t count) {
  memcpy(code, bytes, count);
  code[count] = 0xc3;
}

/* Most likely this thread is then where the ballast is; it executes a while, so that it may go again. */
static inline void go_away(struct ballast* walked) {
  ballast_walk(walked, WALKED_PAGES);
  for (volatile int i = 0; i < 300000; i++) {
  }
}

/* `rounds` attempts, which must all come out the same. */
static inline void repeat(const char* name, int rounds, void* what, void* argument) {
  struct outcome first = {0};
  for (int round = 0; round < rounds; round++) {
    go_away(&ballast);
    const struct outcome now = attempt(what, argument);
    if (round == 0) first = now;
    if (memcmp(&now, &first, sizeof now) != 0)
      fail("%s, round %d: result %ld, signal %d, code %d, at %ld; before %ld, %d, %d, %ld", name, round,
           now.result, now.signal, now.code, now.at, first.result, first.signal, first.code, first.at);
  }
  printf("%s: result %ld, signal %d, code %d, at %ld\n", name, first.result, first.signal, first.code,
         first.at);
}

static inline void make_hostile(int argc, char** argv) {
  if (argc < 3) fail("wants a case and a directory");
  directory = argv[2];
  rounds = (int)number(argc, argv, 3, 20);
  setvbuf(stdout, malloc(1 << 16), _IOFBF, 1 << 16);
  path = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  code = mmap(NULL, CODE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT,
              -1, 0);
  if (code == MAP_FAILED) fail("no memory for code");
  ballast = ballast_make(BALLAST_PAGES);
  const stack_t stack = {.ss_sp = malloc(SIGNAL_STACK_BYTES), .ss_size = SIGNAL_STACK_BYTES};
  sigaltstack(&stack, NULL);
  const struct sigaction action = {.sa_sigaction = on_signal,
                                   .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS};
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) sigaction(signals[i], &action, NULL);
}
