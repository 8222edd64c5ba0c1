/*
 * A hostile guest: on another node it tries every way to make a system call there. Prints what each attempt
 * came to, which must be what it comes to alone.
 *
 * hostile_calls CASE DIRECTORY ROUNDS     the calls make directories in DIRECTORY
 */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "hostile.h"

enum { BACK_AT = 0x40, STACK_AT = 0x100, RETURN_AT = 0x108 };
enum { SYS32_MKDIR = 39, TRAMPOLINE = 0x100000, LDT_CODE = 0x7 };

static long by_syscall(void* unused) {
  (void)unused;
  return raw_call(SYS_mkdir, (long)next_path(), 0700, 0);
}

static long by_x32(void* unused) {
  (void)unused;
  return raw_call(0x40000000 | SYS_mkdir, (long)next_path(), 0700, 0);
}

static long by_int80(void* unused) {
  (void)unused;
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(SYS32_MKDIR), "b"(next_path()), "c"(0700) : "memory");
  return result;
}

static long by_sysenter(void* unused) {
  (void)unused;
  long result;
  __asm__ volatile("push %%rbp; mov %%rsp, %%rbp; sysenter; pop %%rbp"
                   : "=a"(result)
                   : "a"(SYS32_MKDIR), "b"(next_path()), "c"(0700)
                   : "memory", "rdx");
  return result;
}

/* Into 32-bit code at `code`, which comes back by a far jump, with mkdir's arguments. */
long enter_32(void* at, long number, const char* b, long c, long selector);
__asm__(
    ".globl enter_32\n"
    "enter_32: push %rbx; push %rbp; mov %rsp, 0x100(%rdi); lea 32f(%rip), %rax; mov %rax, 0x108(%rdi)\n"
    "mov %esi, %eax; mov %edx, %ebx; lea 0x2000(%rdi), %rsp\n"
    "mov %esp, %ebp; push %r8; push %rdi; lretq\n"
    "32: pop %rbp; pop %rbx; ret\n");

static void write_32(const void* bytes, size_t count) {
  memcpy(code, bytes, count);
  const uint32_t back = (uint32_t)(uintptr_t)(code + BACK_AT), stack = (uint32_t)(uintptr_t)(code + STACK_AT),
                 end = (uint32_t)(uintptr_t)(code + RETURN_AT);
  unsigned char* const jump = code + count; /* ljmp $FLAT_CODE, $back */
  jump[0] = 0xea;
  memcpy(jump + 1, &back, 4);
  jump[5] = FLAT_CODE;
  jump[6] = 0;
  memcpy(code + BACK_AT, "\x48\x8b\x24\x25", 4); /* mov stack, %rsp */
  memcpy(code + BACK_AT + 4, &stack, 4);
  memcpy(code + BACK_AT + 8, "\xff\x24\x25", 3); /* jmp *end */
  memcpy(code + BACK_AT + 11, &end, 4);
}

static long in_32(void* unused) {
  (void)unused;
  return (int)enter_32(code, SYS32_MKDIR, next_path(), 0700, COMPAT_CODE);
}

static long in_ldt(void* unused) {
  (void)unused;
  return (int)enter_32(code, SYS32_MKDIR, next_path(), 0700, LDT_CODE);
}

static long by_jump(void* to) {
  long result;
  __asm__ volatile("call *%1"
                   : "=a"(result)
                   : "r"(to), "a"(SYS_mkdir), "D"(next_path()), "S"(0700)
                   : "rcx", "r11", "memory", "rdx");
  return result;
}

static long call_of_all_kinds(void* unused) {
  (void)unused;
  struct utsname name;
  char own[256];
  if (raw_call(SYS_uname, (long)&name, 0, 0) != 0) return -1;
  if (gethostname(own, sizeof own) != 0 || strcmp(own, name.nodename) != 0) return -2;
  struct stat seen;
  if (raw_call(SYS_stat, (long)directory, (long)&seen, 0) != 0) return -3;
  return raw_call(SYS_getpid, 0, 0, 0) == getpid() ? 0 : -4;
}

static long forged(uint64_t ip, uint64_t segments, uint64_t state) {
  static ucontext_t frame; /* as the kernel has it: flags, link, stack, registers, signal mask */
  memset(&frame, 0, sizeof frame);
  greg_t* const registers = frame.uc_mcontext.gregs;
  registers[REG_RIP] = (greg_t)ip;
  registers[REG_RSP] = (greg_t)attempt_stack;
  registers[REG_RAX] = 1234;
  registers[REG_CSGSFS] = (greg_t)segments;
  frame.uc_mcontext.fpregs = (fpregset_t)state;
  __asm__ volatile("mov %0, %%rsp; mov %1, %%eax; syscall; ud2" ::"r"(&frame), "i"(SYS_rt_sigreturn));
  __builtin_unreachable();
}

static const uint64_t segments = FLAT_CODE | (uint64_t)FLAT_DATA << 48;
static long sigreturn_to(void* to) { return forged((uint64_t)to, segments, 0); }
static long sigreturn_to_kernel_code(void* to) { return forged((uint64_t)to, 0x10, 0); }
static long sigreturn_to_compat(void* to) { return forged((uint64_t)to, COMPAT_CODE, 0); }
static long sigreturn_bad_state(void* to) { return forged((uint64_t)to, segments, 0xffff888000000000); }

static void calls(void) {
  repeat("syscall", rounds, by_syscall, NULL);
  repeat("uname, stat, getpid", rounds, call_of_all_kinds, NULL);
  repeat("x32", rounds, by_x32, NULL);
  repeat("rt_sigreturn", rounds, sigreturn_to, attempt_end);
  repeat("rt_sigreturn to the kernel", rounds, sigreturn_to, (void*)0xffffffff81000000);
  repeat("rt_sigreturn to kernel code", rounds, sigreturn_to_kernel_code, attempt_end);
  repeat("rt_sigreturn to a bad state", rounds, sigreturn_bad_state, attempt_end);
  write_code("\x0f\x0b", 2);
  repeat("rt_sigreturn to 32-bit code", rounds, sigreturn_to_compat, code);
}

/* These make the call alone; stretched, they are refused. */
static void other_conventions(void) {
  repeat("int 0x80", rounds, by_int80, NULL);
  write_32("\xcd\x80", 2);
  repeat("int 0x80 in 32-bit code", rounds, in_32, NULL);
}

/* Alone these make the call and then fail, because a 64-bit program has no place where they return to. */
static void sysenters(void) {
  repeat("sysenter", rounds, by_sysenter, NULL);
  write_32("\x0f\x34", 2);
  repeat("sysenter in 32-bit code", rounds, in_32, NULL);
}

static void compat_code(void) {
  write_32("\xb8\x07\x00\x00\x00", 5);
  repeat("32-bit code", rounds, in_32, NULL);
  write_32("\x0f\x0b", 2);
  repeat("ud2 in 32-bit code", rounds, in_32, NULL);
  write_32("\x0f\x05", 2);
  repeat("syscall in 32-bit code", rounds, in_32, NULL);
  write_32("\xb8\xff\xff\xff\x7f\x83\xc0\x01\xce", 9);
  repeat("into in 32-bit code", rounds, in_32, NULL);
  struct user_desc entry = {
      .entry_number = 0, .limit = 0xfffff, .seg_32bit = 1, .contents = 2, .limit_in_pages = 1, .useable = 1};
  if (syscall(SYS_modify_ldt, 1, &entry, sizeof entry) != 0) return;
  write_32("\xb8\x08\x00\x00\x00", 5);
  repeat("code of its own segment", rounds, in_ldt, NULL);
}

/* The page through which elasticos makes its calls. */
static void trampoline(void) { repeat("trampoline", rounds, by_jump, (void*)TRAMPOLINE); }
static void trampoline_end(void) { repeat("trampoline's end", rounds, by_jump, (void*)(TRAMPOLINE + 2)); }
static void trampoline_data(void) {
  repeat("behind the trampoline", rounds, by_jump, (void*)(TRAMPOLINE + PAGE_BYTES));
  write_code("\x48\xa3\x00\x00\x10\x00\x00\x00\x00\x00", 10);
  repeat("a write to the trampoline", rounds, code, NULL);
  write_code("\x48\xa3\x00\x10\x10\x00\x00\x00\x00\x00", 10);
  repeat("a write behind the trampoline", rounds, code, NULL);
}

int main(int argc, char** argv) {
  static const struct test_case cases[] = {{"calls", calls},
                                           {"conventions", other_conventions},
                                           {"sysenter", sysenters},
                                           {"compat", compat_code},
                                           {"trampoline", trampoline},
                                           {"trampoline-end", trampoline_end},
                                           {"trampoline-data", trampoline_data},
                                           {NULL, NULL}};
  make_hostile(argc, argv);
  return run_case(cases, argc, argv);
}
