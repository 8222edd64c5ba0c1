/*
 * A thread waits for its vfork child when another one executes a program. Alone the child lives on in the old
 * memory, and says so. Prints what it said; "wrong" if it did not find its memory as it was.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "check.h"

enum { PAGES = 3000 };
static uint64_t memory[PAGES * PAGE_WORDS];
static int ends[2];

static void* make_child(void* unused) {
  (void)unused;
  if (vfork() == 0) {
    usleep(1500 * 1000);
    int right = 1;
    for (uint64_t i = 0; i < PAGES; i++) right = right && memory[i * PAGE_WORDS] == mix(i);
    if (write(ends[1], right ? "right" : "wrong", 5) != 5) _exit(1);
    _exit(0);
  }
  return NULL;
}

int main(int argc, char** argv) {
  if (argc > 1) {
    char said[16] = {0};
    const int from = (int)number(argc, argv, 1, 0);
    if (read(from, said, sizeof said - 1) < 0) fail("read");
    printf("the child: %s\n", said);
    return 0;
  }
  for (uint64_t i = 0; i < PAGES; i++) memory[i * PAGE_WORDS] = mix(i);
  if (pipe(ends) != 0) fail("pipe");
  fcntl(ends[1], F_SETFD, FD_CLOEXEC);
  pthread_t thread;
  pthread_create(&thread, NULL, make_child, NULL);
  usleep(500 * 1000);
  char from[16];
  snprintf(from, sizeof from, "%d", ends[0]);
  execl("/proc/self/exe", "outlived", from, NULL);
  fail("exec");
}
