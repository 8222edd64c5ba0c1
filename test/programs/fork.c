/*
 * fork with pages that are away: the child finds all of them, changes them, and the parent does not notice;
 * what the parent changes meanwhile the child does not see. Then two more children at once, and one made by
 * vfork and exec (posix_spawn). Argument: pages of the array.
 */
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

extern char** environ;
static uint64_t *array, pages;
static uint64_t in_bss[PAGE_WORDS * 64];

static void meet(int read_end, int write_end) {
  char byte = 'x';
  if (write(write_end, &byte, 1) != 1 || read(read_end, &byte, 1) != 1) fail("the pipe broke");
}

static void child(int read_end, int write_end) {
  verify(array, pages, 1, "child after fork");
  fill(array, pages, 2);
  in_bss[100] = 7;
  meet(read_end, write_end);
  meet(read_end, write_end); /* the parent has written all its pages between the two */
  verify(array, pages, 2, "child after the parent wrote");
  if (in_bss[100] != 7) fail("the child's own variable is %lu", in_bss[100]);
  _exit(42);
}

static void expect(pid_t pid, int code) {
  int status = 0;
  if (waitpid(pid, &status, 0) != pid) fail("no child to wait for");
  if (!WIFEXITED(status) || WEXITSTATUS(status) != code) fail("a child ended with %#x, not %d", status, code);
}

int main(int argc, char** argv) {
  pages = number(argc, argv, 1, 3000);
  array = malloc(pages * PAGE_BYTES);
  if (array == NULL) fail("no memory");
  fill(array, pages, 1);
  in_bss[100] = 5;
  int to_child[2], to_parent[2];
  if (pipe(to_child) != 0 || pipe(to_parent) != 0) fail("no pipe");
  fflush(stdout);
  pid_t pid = fork();
  if (pid < 0) fail("fork");
  if (pid == 0) child(to_child[0], to_parent[1]);
  meet(to_parent[0], to_child[1]);
  verify(array, pages, 1, "parent after the child wrote");
  if (in_bss[100] != 5) fail("the parent's variable is %lu", in_bss[100]);
  fill(array, pages, 3);
  meet(to_parent[0], to_child[1]);
  expect(pid, 42);
  verify(array, pages, 3, "parent at the end");
  pid_t both[2];
  for (int i = 0; i < 2; i++) {
    both[i] = fork();
    if (both[i] < 0) fail("fork");
    if (both[i] == 0) {
      verify(array, pages, 3, "one of two children");
      array[i] = 1;
      _exit(10 + i);
    }
  }
  expect(both[0], 10);
  expect(both[1], 11);
  verify(array, pages, 3, "parent after two children");
  char* const command[] = {"sh", "-c", "exit 9", NULL};
  if (posix_spawn(&pid, "/bin/sh", NULL, NULL, command, environ) != 0) fail("posix_spawn");
  expect(pid, 9);
  verify(array, pages, 3, "parent after posix_spawn");
  puts("fork: all right");
  return 0;
}
