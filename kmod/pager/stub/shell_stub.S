/* The program a shell process starts as: a trampoline page (`syscall; int3`) through which the pager makes calls, and
 * a page of constants with the seccomp filter that each guest thread gets before it runs guest code: no system call
 * whatever. Both pages are read-only for the guest. Everything else of the address space is unmapped by the pager. */
#define BPF_LD_W_ABS 0x20
#define BPF_JEQ_K 0x15
#define BPF_RET_K 0x06
#define RET_KILL_PROCESS 0x80000000
#define RET_TRAP 0x00030000

    .section .trampoline, "ax", @progbits
    .globl _start
_start:
    syscall
    int3

    .section .constants, "a", @progbits
    /* struct sock_fprog, at a fixed place: the first bytes of this page */
    .short 4
    .short 0, 0, 0
    .quad filter
filter:
    /* High half of the instruction pointer: the vsyscall page is emulated by the kernel and must not be. The kernel
     * returns from that call without making it and raises a signal; the pager undoes the return (guests.cpp) and
     * sends the thread home, where the call is made. Any other call ends the shell process. */
    .short BPF_LD_W_ABS; .byte 0, 0; .long 12
    .short BPF_JEQ_K;    .byte 0, 1; .long 0xffffffff
    .short BPF_RET_K;    .byte 0, 0; .long RET_TRAP
    .short BPF_RET_K;    .byte 0, 0; .long RET_KILL_PROCESS
