/*
 * Makes a call twice that cannot work in a stretched program, and prints what it was answered. Arguments: the
 * call, "child" for a child that makes it.
 */
#define _GNU_SOURCE
#include <asm/socket.h>
#include <errno.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static long zero_copy(void) {
  const int one = 1, connection = socket(AF_INET, SOCK_STREAM, 0);
  return setsockopt(connection, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof one);
}

static long attach(void) {
  int ends[2];
  if (pipe(ends) != 0) fail("pipe");
  const pid_t child = fork();
  if (child == 0) {
    char byte;
    close(ends[1]);
    _Exit(read(ends[0], &byte, 1) > 0);
  }
  const long result = ptrace(PTRACE_ATTACH, child, 0, 0), error = errno;
  close(ends[0]);
  close(ends[1]);
  waitpid(child, NULL, 0);
  errno = (int)error;
  return result;
}

static long make(const char* call) {
  if (strcmp(call, "io_uring") == 0) return syscall(SYS_io_uring_setup, 8, NULL);
  if (strcmp(call, "userfaultfd") == 0) return syscall(SYS_userfaultfd, -1);
  if (strcmp(call, "vmsplice") == 0) return syscall(SYS_vmsplice, -1, NULL, 0, 0);
  if (strcmp(call, "process_madvise") == 0) return syscall(SYS_process_madvise, -1, NULL, 0, 0, 0);
  if (strcmp(call, "SO_ZEROCOPY") == 0) return zero_copy();
  if (strcmp(call, "traceme") == 0) return ptrace(PTRACE_TRACEME, 0, 0, 0);
  if (strcmp(call, "attach") == 0) return attach();
  if (strcmp(call, "pkey_alloc") == 0) return syscall(SYS_pkey_alloc, 0, -1);
  if (strcmp(call, "map_shadow_stack") == 0) return syscall(453, 0, 4096, 0);
  fail("no such call");
}

static void make_twice(const char* call) {
  for (int i = 0; i < 2; i++) {
    const long result = make(call);
    printf("%s: %s\n", call, result < 0 ? strerror(errno) : "done");
  }
  fflush(stdout);
}

int main(int argc, char** argv) {
  if (argc < 2) fail("which call?");
  if (argc == 2) {
    make_twice(argv[1]);
    return 0;
  }
  const pid_t child = fork();
  if (child == 0) {
    make_twice(argv[1]);
    _Exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status != 0;
}
