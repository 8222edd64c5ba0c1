/*
 * A hostile guest: on another node it tries instructions and states of the processor that are not for
 * programs, and memory, threads and children as no program should. Prints what each attempt came to, which
 * must be what it comes to alone.
 *
 * hostile_guest CASE DIRECTORY ROUNDS     the calls make directories in DIRECTORY
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "hostile.h"

enum { THREADS = 6 };

#define BYTES(name, text) \
  { name, text, sizeof text - 1 }
static const struct {
  const char* name;
  const char* bytes;
  size_t count;
} instructions[] = {
    BYTES("ud2", "\x0f\x0b"),
    BYTES("hlt", "\xf4"),
    BYTES("in", "\xec"),
    BYTES("out", "\xee"),
    BYTES("cli", "\xfa"),
    BYTES("wrmsr", "\x0f\x30"),
    BYTES("rdmsr", "\x0f\x32"),
    BYTES("write cr3", "\x0f\x22\xd8"),
    BYTES("read cr0", "\x0f\x20\xc0"),
    BYTES("read dr7", "\x0f\x21\xf8"),
    BYTES("lgdt", "\x0f\x01\x14\x24"),
    BYTES("lidt", "\x0f\x01\x1c\x24"),
    BYTES("lldt", "\x0f\x00\xd0"),
    BYTES("ltr", "\x0f\x00\xd8"),
    BYTES("wbinvd", "\x0f\x09"),
    BYTES("invlpg", "\x0f\x01\x38"),
    BYTES("swapgs", "\x0f\x01\xf8"),
    BYTES("sysret", "\x48\x0f\x07"),
    BYTES("sysexit", "\x48\x0f\x35"),
    BYTES("xsetbv", "\x0f\x01\xd1"),
    BYTES("mwait", "\x0f\x01\xc9"),
    BYTES("rdpmc", "\x0f\x33"),
    BYTES("rdtsc", "\x0f\x31\x31\xc0"),
    BYTES("rdtscp", "\x0f\x01\xf9\x31\xc0"),
    BYTES("cpuid", "\x31\xc0\x0f\xa2\x31\xc0"),
    BYTES("sgdt", "\x0f\x01\x44\x24\xe0\x31\xc0"),
    BYTES("smsw", "\x0f\x01\xe0\x31\xc0"),
    BYTES("sldt", "\x0f\x00\xc0"),
    BYTES("str", "\x0f\x00\xc8"),
    BYTES("int3", "\xcc"),
    BYTES("int1", "\xf1"),
    BYTES("trap flag", "\x9c\x81\x0c\x24\x00\x01\x00\x00\x9d\x90\x90\x90"),
    BYTES("alignment flag", "\x9c\x81\x0c\x24\x00\x00\x04\x00\x9d\x48\x8b\x44\x24\x01"),
    BYTES("lret to the kernel", "\x6a\x10\x50\x48\xcb"),
    BYTES("iret to the kernel", "\x6a\x18\x54\x9c\x6a\x10\x50\x48\xcf"),
    BYTES("bad fs", "\xb8\x0f\x00\x00\x00\x8e\xe0"),
    BYTES("bad ss", "\xb8\x18\x00\x00\x00\x8e\xd0"),
    BYTES("bad mxcsr", "\xc7\x44\x24\xf8\xff\xff\xff\xff\x0f\xae\x54\x24\xf8"),
    BYTES("read the kernel", "\x48\xa1\x00\x00\x00\x81\xff\xff\xff\xff"),
    BYTES("write the kernel", "\x48\xa3\x00\x00\x00\x81\xff\xff\xff\xff"),
    BYTES("jump to the kernel", "\x48\xc7\xc0\x00\x00\x00\x81\xff\xe0"),
    BYTES("jump to nowhere", "\x48\xb8\x00\x00\x00\x00\x00\x00\x00\x80\xff\xe0"),
    BYTES("vsyscall gettimeofday", "\x31\xff\x31\xf6\x48\xc7\xc0\x00\x00\x60\xff\xff\xd0"),
    BYTES("vsyscall time", "\x31\xff\x48\xc7\xc0\x00\x04\x60\xff\xff\xd0\x31\xc0"),
    BYTES("vsyscall getcpu", "\x31\xff\x31\xf6\x48\xc7\xc0\x00\x08\x60\xff\xff\xd0"),
    BYTES("vsyscall, bad pointer", "\xbf\x10\x00\x00\x00\x31\xf6\x48\xc7\xc0\x00\x00\x60\xff\xff\xd0"),
    BYTES("vsyscall, off by one", "\x48\xc7\xc0\x01\x00\x60\xff\xff\xd0"),
    BYTES("read vsyscall", "\x48\xa1\x00\x00\x60\xff\xff\xff\xff\xff\x31\xc0"),
};

static void all_instructions(void) {
  for (size_t i = 0; i < sizeof instructions / sizeof *instructions; i++) {
    write_code(instructions[i].bytes, instructions[i].count);
    repeat(instructions[i].name, rounds, code, NULL);
  }
}

static void interrupts(void) {
  for (int vector = 0; vector < 256; vector++) {
    if (vector == 0x80) continue;
    const unsigned char bytes[] = {0xcd, (unsigned char)vector};
    write_code(bytes, 2);
    char name[16];
    sprintf(name, "int %#x", vector);
    repeat(name, vector < 6 ? rounds : 1, code, NULL);
  }
}

/* ---- state of the processor */

static long set_thread_base(void* to) {
  __asm__ volatile("rdfsbase %0" : "=r"(attempt_thread_base));
  __asm__ volatile("wrfsbase %0" ::"r"(to));
  const long answer = raw_call(SYS_getpid, 0, 0, 0) > 0;
  __asm__ volatile("wrfsbase %0" ::"r"(attempt_thread_base));
  return answer;
}

static long set_other_base(void* to) {
  __asm__ volatile("wrgsbase %0" ::"r"(to));
  const long answer = raw_call(SYS_getpid, 0, 0, 0) > 0;
  uint64_t now;
  __asm__ volatile("rdgsbase %0" : "=r"(now));
  __asm__ volatile("wrgsbase %0" ::"r"(0ull));
  return answer && now == (uint64_t)to;
}

static void bases(void) {
  repeat("fs elsewhere", rounds, set_thread_base, (void*)0x123456789000);
  repeat("fs nowhere", rounds, set_thread_base, (void*)0x8000000000000000);
  repeat("gs elsewhere", rounds, set_other_base, (void*)0x123456789000);
  repeat("gs nowhere", rounds, set_other_base, (void*)0x8000000000000000);
}

static void kernel_base(void) {
  repeat("gs in the kernel", rounds, set_other_base, (void*)0xffff888000000000);
}

static long set_keys(void* value) {
  unsigned now, rest;
  __asm__ volatile(".byte 0x0f, 0x01, 0xef" ::"a"(value), "c"(0), "d"(0)); /* wrpkru */
  raw_call(SYS_getpid, 0, 0, 0);
  go_away(&ballast);
  __asm__ volatile(".byte 0x0f, 0x01, 0xee" : "=a"(now), "=d"(rest) : "c"(0)); /* rdpkru */
  return now;
}

/* The last one leaves it no memory at all, not even a stack for a handler. */
static void keys(void) {
  repeat("other keys", rounds, set_keys, (void*)0x55555550);
  puts("the end");
  fflush(stdout);
  signal(SIGSEGV, SIG_DFL);
  repeat("no key", 1, set_keys, (void*)0x55555557);
}

/* ---- memory, threads, processes, code that changes */

static long recurse(void* depth) {
  volatile char room[3000];
  room[0] = 1;
  return depth == NULL ? 0 : recurse((char*)depth + 1) + room[0]; /* NULL after 2^64 calls */
}

static void memory(void) {
  repeat("endless recursion", 2, recurse, (void*)1);
  write_code("\x48\x89\x07", 3); /* mov %rax, (%rdi) */
  repeat("a write to its text", rounds, code, on_signal);
  repeat("a write to a constant", rounds, code, (void*)instructions);
}

static _Atomic int threads_made;

static void* call_in_thread(void* argument) {
  struct ballast own = {ballast.words + (uintptr_t)argument * PAGE_WORDS * (BALLAST_PAGES / THREADS),
                        BALLAST_PAGES / THREADS, 0};
  char name[4096];
  for (int round = 0; round < rounds; round++) {
    for (uint64_t i = 0; i < own.pages; i += 8) own.words[i * PAGE_WORDS + 5] ^= 1;
    sprintf(name, "%s/%d-%d", directory, (int)(uintptr_t)argument, round);
    if (raw_call(SYS_mkdir, (long)name, 0700, 0) == 0) threads_made++;
  }
  return NULL;
}

static void threads(void) {
  pthread_t all[THREADS];
  for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&all[i], NULL, call_in_thread, (void*)i);
  for (int i = 0; i < THREADS; i++) pthread_join(all[i], NULL);
  printf("%d threads: %d calls\n", THREADS, threads_made);
}

static long have_child(void* flags) {
  const long pid = raw_call(SYS_clone, (long)flags | SIGCHLD, 0, 0);
  if (pid == 0) raw_call(SYS_exit_group, raw_call(SYS_mkdir, (long)path, 0700, 0) == 0 ? 7 : 8, 0, 0);
  int status = 0;
  return waitpid((pid_t)pid, &status, 0) == pid ? WEXITSTATUS(status) : -1;
}

static long fork_child(void* unused) {
  (void)unused;
  next_path();
  return have_child(NULL);
}

static long vfork_child(void* unused) {
  (void)unused;
  next_path();
  return have_child((void*)(CLONE_VM | CLONE_VFORK));
}

static void children(void) {
  repeat("fork", rounds, fork_child, NULL);
  repeat("vfork", rounds, vfork_child, NULL);
}

static _Atomic int rewriting = 1;

static void* rewrite(void* unused) {
  (void)unused;
  _Atomic uint16_t* const call = (_Atomic uint16_t*)(code + 6);
  for (int i = 0; rewriting; i++) atomic_store(call, i % 2 ? 0x9090 : 0x050f);
  return NULL;
}

/* Another thread changes the instruction at which this one stands: it makes its call, at home, or none. */
static void rewritten_calls(void) {
  write_code("\xb8\x27\x00\x00\x00\x90\x0f\x05", 8); /* mov $SYS_getpid, %eax; nop; syscall */
  pthread_t other;
  pthread_create(&other, NULL, rewrite, NULL);
  int wrong = 0;
  for (int round = 0; round < 8 * rounds; round++) {
    go_away(&ballast);
    const long answer = attempt(code, NULL).result;
    wrong += answer != getpid() && answer != SYS_getpid;
  }
  rewriting = 0;
  pthread_join(other, NULL);
  printf("%d wrong answers\n", wrong);
}

/* A thread with a tile of AMX in use walks over memory that is elsewhere. Prints the same without AMX. */
static void tiles(void) {
  enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18, TILE_BYTES = 1024 };
  static unsigned char tile[TILE_BYTES], now[TILE_BYTES], shape[64] = {[0] = 1, [16] = 64, [48] = 16};
  int wrong = 0;
  for (int i = 0; i < TILE_BYTES; i++) tile[i] = (unsigned char)mix((uint64_t)i);
  const int may = syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
  for (int round = 0; may && round < rounds; round++) {
    const long stride = 64;
    __asm__ volatile(".byte 0xc4, 0xe2, 0x78, 0x49, 0x00" ::"a"(shape)); /* ldtilecfg (%rax) */
    __asm__ volatile(".byte 0xc4, 0xe2, 0x7b, 0x4b, 0x04, 0x18" ::"a"(tile), "b"(stride)); /* tileloadd */
    go_away(&ballast);
    __asm__ volatile(".byte 0xc4, 0xe2, 0x7a, 0x4b, 0x04, 0x18" ::"a"(now), "b"(stride)
                     : "memory"); /* tilestored */
    wrong += memcmp(tile, now, sizeof tile) != 0;
    __asm__ volatile(".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0"); /* tilerelease */
    memset(now, 0, sizeof now);
    go_away(&ballast);
  }
  printf("%d wrong tiles\n", wrong);
}

int main(int argc, char** argv) {
  static const struct test_case cases[] = {{"instructions", all_instructions},
                                           {"interrupts", interrupts},
                                           {"bases", bases},
                                           {"kernel-base", kernel_base},
                                           {"keys", keys},
                                           {"tiles", tiles},
                                           {"memory", memory},
                                           {"threads", threads},
                                           {"children", children},
                                           {"rewritten", rewritten_calls},
                                           {NULL, NULL}};
  make_hostile(argc, argv);
  return run_case(cases, argc, argv);
}
