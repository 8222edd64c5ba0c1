/*
 * Children of two threads: one forks without end, the other ends the process, often in the middle of a fork.
 * Every grandchild has to run and end as well, so the pipe that all of them hold is closed soon. Argument:
 * children.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static void* fork_on(void* unused) {
  for (;;)
    if (fork() == 0) _exit(0);
  return unused;
}

int main(int argc, char** argv) {
  const uint64_t children = number(argc, argv, 1, 100);
  for (uint64_t i = 0; i < children; i++) {
    int ends[2];
    if (pipe(ends) != 0) fail("no pipe");
    const pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
      close(ends[0]);
      signal(SIGCHLD, SIG_IGN);
      pthread_t forker;
      pthread_create(&forker, NULL, fork_on, NULL);
      usleep(200 + i * 37 % 3000);
      _exit(0);
    }
    close(ends[1]);
    struct pollfd closed = {.fd = ends[0], .events = POLLIN};
    if (poll(&closed, 1, 5000) != 1) fail("a grandchild of child %lu does not run", i);
    close(ends[0]);
    if (waitpid(child, NULL, 0) != child) fail("no child to wait for");
  }
  puts("all ran");
  return 0;
}
