/*
 * Unusual ways to make a child. The argument names one: `vfork-copy` clone with CLONE_VFORK but without
 * CLONE_VM has memory of its own; `untraced` so has one with CLONE_UNTRACED, pages that were away included;
 * `heap` a child's heap grows and shrinks; `undumpable` a process that is not dumpable forks, and maps what
 * the kernel places.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static volatile int mine = 1;

static void expect_end(long child) {
  int status = 0;
  if (child < 0 || waitpid((pid_t)child, &status, 0) != child) fail("no child");
  if (status != 0) fail("the child ended with %#x", status);
}

static void vfork_copy(void) {
  const long child = syscall(SYS_clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0);
  if (child == 0) {
    mine = 2;
    syscall(SYS_exit_group, 0);
  }
  expect_end(child);
  if (mine != 1) fail("the parent's variable is %d", mine);
}

static void untraced(void) {
  const size_t pages = 4096;
  uint64_t* const memory = malloc(pages * PAGE_BYTES);
  fill(memory, pages, 6);
  const long child = syscall(SYS_clone, CLONE_UNTRACED | SIGCHLD, 0, 0, 0, 0);
  if (child == 0) {
    verify(memory, pages, 6, "memory of the child");
    memory[0] = 0;
    syscall(SYS_exit_group, 0);
  }
  expect_end(child);
  verify(memory, pages, 6, "memory of the parent");
}

static void heap(void) {
  if (sbrk(1 << 20) == (void*)-1) fail("no heap");
  char* const end = sbrk(0);
  memset(end - 4096, 7, 4096);
  const pid_t child = fork();
  if (child == 0) {
    if (sbrk(0) != end) fail("the heap ends elsewhere in the child");
    if (sbrk(1 << 20) != end) fail("the child's heap does not grow");
    memset(end, 8, 1 << 20);
    if (end[-1] != 7) fail("the child's heap has lost its contents");
    if (sbrk(-(3 << 19)) == (void*)-1 || sbrk(0) != end - (1 << 19)) fail("the child's heap does not shrink");
    _exit(0);
  }
  expect_end(child);
  if (sbrk(0) != end) fail("the parent's heap has moved");
}

static void undumpable(void) {
  if (prctl(PR_SET_DUMPABLE, 0) != 0) fail("prctl");
  mine = 3;
  const pid_t child = fork();
  if (child == 0) {
    if (mine != 3 || prctl(PR_GET_DUMPABLE) != 0) fail("the child is not like its parent");
    _exit(0);
  }
  expect_end(child);
  const int segment = shmget(IPC_PRIVATE, PAGE_BYTES, 0600 | IPC_CREAT);
  int* const shared = shmat(segment, NULL, 0);
  shmctl(segment, IPC_RMID, NULL);
  if (shared == (void*)-1) fail("no shared memory");
  *shared = 4;
  uint64_t* const pages = malloc(64 * PAGE_BYTES);
  fill(pages, 64, 5);
  verify(pages, 64, 5, "memory after shmat");
  if (*shared != 4 || prctl(PR_GET_DUMPABLE) != 0) fail("the parent has become dumpable");
}

int main(int argc, char** argv) {
  const char* way = argc > 1 ? argv[1] : "";
  if (strcmp(way, "vfork-copy") == 0)
    vfork_copy();
  else if (strcmp(way, "untraced") == 0)
    untraced();
  else if (strcmp(way, "heap") == 0)
    heap();
  else if (strcmp(way, "undumpable") == 0)
    undumpable();
  else
    fail("no such way: %s", way);
  puts("as alone");
  return 0;
}
