/*
 * Tasks that end, by a signal or another thread's exit, at any moment of the calls that are made in them for
 * somebody else. Cases: `outside` says its number and waits to be killed, `exits` ends by itself with status
 * 7 after some microseconds (the second argument), `children` are killed as soon as they are there.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "cases.h"
#include "children.h"

enum { THREADS = 2, CHILDREN = 300, PAGES = 500 };

static uint64_t delay_us;

/* Each open has calls made in this thread: what is read is not the kernel's list. */
static void* open_maps(void* unused) {
  (void)unused;
  char text[256];
  for (;;) {
    const int file = open("/proc/self/maps", O_RDONLY);
    if (file < 0 || read(file, text, sizeof text) <= 0) fail("no list of mappings");
    close(file);
  }
  return NULL;
}

/* In all threads. */
static void open_maps_on(void) {
  pthread_t thread;
  for (int i = 0; i < THREADS; i++) pthread_create(&thread, NULL, open_maps, NULL);
  open_maps(NULL);
}

static void outside(void) {
  printf("%d\n", getpid());
  fflush(stdout);
  open_maps_on();
}

static void* exit_later(void* unused) {
  (void)unused;
  usleep((useconds_t)delay_us);
  _exit(7);
}

static void exits(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, exit_later, NULL);
  open_maps_on();
}

static atomic_bool ended;

/* Kills every child of the main thread that it finds. */
static void* kill_children(void* unused) {
  char path[64], text[256];
  snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
  while (!atomic_load(&ended)) {
    const int file = open(path, O_RDONLY);
    const ssize_t bytes = read(file, text, sizeof text - 1);
    close(file);
    if (bytes <= 0) continue;
    text[bytes] = 0;
    kill(atoi(text), SIGKILL);
  }
  return unused;
}

static void children(void) {
  uint64_t* const array = (uint64_t*)map((size_t)PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, anonymous);
  fill(array, PAGES, 1);
  pthread_t killer;
  pthread_create(&killer, NULL, kill_children, NULL);
  for (int i = 0; i < CHILDREN; i++) {
    const pid_t child = fork();
    if (child == 0)
      for (;;) verify(array, PAGES, 1, "a child");
    array[i] = mix(1 + (uint64_t)i);
    expect_status(child, SIGKILL, "killed");
  }
  atomic_store(&ended, true);
  pthread_join(killer, NULL);
  verify(array, PAGES, 1, "the parent");
}

int main(int argc, char** argv) {
  delay_us = number(argc, argv, 2, 0);
  static const struct test_case list[] = {
      {"outside", outside}, {"exits", exits}, {"children", children}, {NULL, NULL}};
  return run_case(list, argc, argv);
}
