/*
 * Clocks: none of them goes back, neither for one thread nor from one thread to another, while the threads
 * move about; sleeps take at least as long as they say, and processor time grows no faster than real time.
 * Arguments: pages, readings of each thread.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <time.h>

#include "ballast.h"

enum { THREADS = 3, CLOCKS = 6, LATE_NS = 1000 };

static const clockid_t clocks[CLOCKS] = {CLOCK_MONOTONIC,        CLOCK_BOOTTIME, CLOCK_REALTIME,
                                         CLOCK_MONOTONIC_COARSE, CLOCK_TAI,      CLOCK_MONOTONIC_RAW};
static const char* const names[CLOCKS] = {"monotonic", "boottime", "realtime", "coarse", "tai", "raw"};
static struct ballast shares[THREADS];
static uint64_t readings;
/* The latest reading that some thread has published. */
static _Atomic uint64_t latest[CLOCKS];

static uint64_t now_ns(clockid_t clock) {
  struct timespec now;
  if (clock_gettime(clock, &now) != 0) fail("clock %d: %d", clock, errno);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void publish(int clock, uint64_t reading) {
  uint64_t seen = atomic_load(&latest[clock]);
  while (seen < reading && !atomic_compare_exchange_weak(&latest[clock], &seen, reading)) continue;
}

static void* read_clocks(void* argument) {
  struct ballast* share = argument;
  uint64_t own[CLOCKS] = {0}, own_time = 0;
  for (uint64_t i = 0; i < readings; i++) {
    ballast_walk(share, 20);
    for (int clock = 0; clock < CLOCKS; clock++) {
      const uint64_t others = atomic_load(&latest[clock]), now = now_ns(clocks[clock]);
      if (now < own[clock]) fail("%s went back by %lu ns", names[clock], own[clock] - now);
      if (now < others) fail("%s is %lu ns behind another thread's", names[clock], others - now);
      own[clock] = now;
      publish(clock, now);
    }
    const uint64_t used = now_ns(CLOCK_THREAD_CPUTIME_ID);
    if (used < own_time) fail("the thread's processor time went back by %lu ns", own_time - used);
    own_time = used;
  }
  return NULL;
}

static void sleeps(void) {
  for (int i = 1; i <= 5; i++) {
    const struct timespec length = {0, i * 2000000};
    const uint64_t before = now_ns(CLOCK_MONOTONIC), boot = now_ns(CLOCK_BOOTTIME);
    if (nanosleep(&length, NULL) != 0) fail("nanosleep");
    const uint64_t until = now_ns(CLOCK_BOOTTIME) + 1000000;
    const struct timespec at = {(time_t)(until / 1000000000), (long)(until % 1000000000)};
    if (clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &at, NULL) != 0) fail("clock_nanosleep");
    if (now_ns(CLOCK_BOOTTIME) < until) fail("an absolute sleep ended early");
    if (now_ns(CLOCK_MONOTONIC) - before < (uint64_t)length.tv_nsec) fail("a sleep ended early");
    if (now_ns(CLOCK_BOOTTIME) - boot > 60ull * 1000000000) fail("a sleep took a minute");
  }
}

int main(int argc, char** argv) {
  const uint64_t pages = number(argc, argv, 1, 3000);
  readings = number(argc, argv, 2, 1500);
  const uint64_t monotonic = now_ns(CLOCK_MONOTONIC), boot = now_ns(CLOCK_BOOTTIME);
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) shares[i] = ballast_make(pages / THREADS);
  for (int i = 0; i < THREADS; i++)
    if (pthread_create(&threads[i], NULL, read_clocks, &shares[i]) != 0) fail("no thread");
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  sleeps();
  const uint64_t took = now_ns(CLOCK_MONOTONIC) - monotonic, by_boot = now_ns(CLOCK_BOOTTIME) - boot;
  if (by_boot + LATE_NS < took) fail("%lu ns by one clock, %lu by the other", took, by_boot);
  if (now_ns(CLOCK_PROCESS_CPUTIME_ID) > took * THREADS + 1000000000)
    fail("more processor time than there was");
  struct timeval seconds;
  if (gettimeofday(&seconds, NULL) != 0 || time(NULL) < seconds.tv_sec - 1)
    fail("time and gettimeofday differ");
  puts("clocks: all right");
  return 0;
}
