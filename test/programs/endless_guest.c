/*
 * A guest that does not want to leave: each of its threads walks over memory that is elsewhere and then
 * computes for twenty seconds without a call or a fault, and so on for ever, while the first one waits.
 *
 * endless_guest THREADS PAGES     PAGES of memory in all
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <unistd.h>

#include "ballast.h"

enum { WALKED_PAGES = 60 };
static const uint64_t STEPS = 20000000000ull; /* of about a nanosecond */

static struct ballast ballast;
static uint64_t threads;

static void* compute(void* argument) {
  struct ballast own = ballast;
  own.pages /= threads;
  own.words += (uintptr_t)argument * own.pages * PAGE_WORDS;
  for (;;) {
    for (int i = 0; i < WALKED_PAGES; i++) own.words[own.visits++ % own.pages * PAGE_WORDS] ^= 1;
    for (uint64_t step = 0; step < STEPS; step++) __asm__ volatile("" ::"r"(step));
  }
  return NULL;
}

int main(int argc, char** argv) {
  threads = number(argc, argv, 1, 4);
  ballast = ballast_make(number(argc, argv, 2, 3000));
  puts("ready");
  fflush(stdout);
  for (uintptr_t i = 0; i < threads; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, compute, (void*)i) != 0) fail("no thread");
  }
  for (;;) pause();
}
