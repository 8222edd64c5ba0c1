/*
 * A program at a terminal: two threads walk over memory larger than the limit until the second SIGINT; it
 * says when it is ready, interrupted and continued. With `plain` as second argument SIGINT ends it. Argument:
 * pages.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "ballast.h"

static _Atomic int interrupts;

static void say(const char* text) {
  if (write(STDOUT_FILENO, text, strlen(text)) < 0) _exit(9);
}

static void on_interrupt(int signal) {
  (void)signal;
  say(atomic_fetch_add(&interrupts, 1) == 0 ? "interrupted once\n" : "interrupted twice\n");
}

static void on_continue(int signal) {
  (void)signal;
  say("continued\n");
}

static void* walk(void* argument) {
  while (atomic_load(&interrupts) < 2) ballast_walk(argument, 50);
  return NULL;
}

int main(int argc, char** argv) {
  const uint64_t pages = number(argc, argv, 1, 3000);
  struct ballast shares[2] = {ballast_make(pages / 2), ballast_make(pages / 2)};
  if (argc < 3) signal(SIGINT, on_interrupt);
  signal(SIGCONT, on_continue);
  for (int i = 0; i < 2; i++) ballast_walk(&shares[i], pages);
  say("ready\n");
  pthread_t thread;
  if (pthread_create(&thread, NULL, walk, &shares[1]) != 0) fail("no thread");
  walk(&shares[0]);
  pthread_join(thread, NULL);
  for (int i = 0; i < 2; i++) ballast_walk(&shares[i], pages);
  say("whole\n");
  return 3;
}
