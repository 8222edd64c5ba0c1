/*
 * What is hardest on pages that move: many threads that want one page at a time, on whatever nodes they are.
 * `one-page` and `false-sharing`: one page, by atomics and by a word of each thread; `spin`: locks without
 * any call of the kernel; `futex`: threads that wake one another; `four-pages`: one instruction that needs
 * four pages while other threads take them away; `maps`: ten thousand mappings; `threads`: sixty-four
 * threads. Every thread also walks over memory of its own, so that it moves.
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ballast.h"
#include "cases.h"

enum { FEW = 4, MANY = 64, TURNS = 1500, MAPS = 10000, RING = 16, OWN_PAGES = 700 };

static struct ballast shares[MANY];
static _Atomic uint64_t shared[PAGE_WORDS] __attribute__((aligned(PAGE_BYTES)));

static void with_threads(int count, uint64_t pages, void* (*routine)(void*)) {
  pthread_t threads[MANY];
  for (int i = 0; i < count; i++) shares[i] = ballast_make(pages);
  for (uintptr_t i = 0; i < (uintptr_t)count; i++)
    if (pthread_create(&threads[i], NULL, routine, (void*)i) != 0) fail("no thread");
  for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
  for (int i = 0; i < count; i++) ballast_walk(&shares[i], pages);
}

static void* hammer(void* argument) {
  const uintptr_t self = (uintptr_t)argument;
  for (int i = 0; i < TURNS; i++) {
    for (int k = 0; k < 20; k++) atomic_fetch_add(&shared[(k * 7) % PAGE_WORDS], 1);
    ballast_walk(&shares[self], 4);
  }
  return NULL;
}

static void one_page(void) {
  with_threads(FEW, OWN_PAGES, hammer);
  for (int k = 0; k < 20; k++)
    if (shared[k * 7] != FEW * TURNS) fail("word %d was counted %lu times", k, (uint64_t)shared[k * 7]);
}

static void* count_beside(void* argument) {
  const uintptr_t self = (uintptr_t)argument;
  volatile uint64_t* own = (volatile uint64_t*)shared + self;
  for (uint64_t i = 0; i < TURNS; i++) {
    for (uint64_t k = 0; k < 20; k++) {
      if (*own != i * 20 + k) fail("a thread's own word is %lu, not %lu", *own, i * 20 + k);
      *own += 1;
    }
    ballast_walk(&shares[self], 4);
  }
  return NULL;
}

static void false_sharing(void) { with_threads(FEW, OWN_PAGES, count_beside); }

static void* spin_for_turns(void* argument) {
  const uintptr_t self = (uintptr_t)argument;
  for (int i = 0; i < TURNS / 5; i++) {
    while (atomic_exchange_explicit(&shared[0], 1, memory_order_acquire) != 0) __builtin_ia32_pause();
    ((volatile uint64_t*)shared)[8]++;
    atomic_store_explicit(&shared[0], 0, memory_order_release);
    ballast_walk(&shares[self], 20);
  }
  return NULL;
}

static void spin(void) {
  with_threads(FEW, OWN_PAGES, spin_for_turns);
  if (shared[8] != FEW * (TURNS / 5)) fail("under a spin lock: %lu", (uint64_t)shared[8]);
}

/* A ring: each thread waits for its number and passes the next one on. */
static void* pass_on(void* argument) {
  const uintptr_t self = (uintptr_t)argument;
  _Atomic uint32_t* turn = (_Atomic uint32_t*)shared;
  for (uint32_t i = 0; i < TURNS / 3; i++) {
    const uint32_t wanted = i * FEW + (uint32_t)self;
    for (uint32_t now; (now = atomic_load(turn)) != wanted;)
      syscall(SYS_futex, turn, FUTEX_WAIT_PRIVATE, now, NULL, NULL, 0);
    ballast_walk(&shares[self], 10);
    atomic_store(turn, wanted + 1);
    syscall(SYS_futex, turn, FUTEX_WAKE_PRIVATE, MANY, NULL, NULL, 0);
  }
  return NULL;
}

static void futex(void) {
  with_threads(FEW, OWN_PAGES, pass_on);
  if ((uint32_t)shared[0] != TURNS / 3 * FEW) fail("the ring ended at %lu", (uint64_t)shared[0]);
}

/* Pages of the ring: thread i counts in the middle of every fourth page; the first one copies over their
 * borders. */
static uint8_t ring[RING * PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
static _Atomic int copied;

static void copy_over_borders(uint64_t turn) {
  const uint64_t from = 1 + mix(turn) % (RING / 2 - 1), to = RING / 2 + 1 + mix(turn + 1) % (RING / 2 - 1);
  uint8_t *source = ring + from * PAGE_BYTES - 3, *target = ring + to * PAGE_BYTES - 5;
  const uint64_t value = mix(turn * 3);
  memcpy(source, &value, 8);
  __asm__ volatile("movsq" : "+S"(source), "+D"(target) : : "memory");
  if (memcmp(target - 8, &value, 8) != 0) fail("turn %lu: the copy is wrong", turn);
}

static void* fight(void* argument) {
  const uintptr_t self = (uintptr_t)argument;
  uint64_t visits = 0;
  for (uint64_t i = 0; self == 0 ? i < TURNS : !atomic_load(&copied); i++) {
    if (self == 0) copy_over_borders(i);
    for (uintptr_t page = self; page < RING; page += FEW) {
      volatile uint64_t* middle = (volatile uint64_t*)(ring + page * PAGE_BYTES) + PAGE_WORDS / 2;
      if (*middle != visits) fail("page %lu has %lu visits of %lu", page, *middle, visits);
      *middle += 1;
    }
    visits++;
    ballast_walk(&shares[self], 4);
  }
  if (self == 0) atomic_store(&copied, 1);
  return NULL;
}

static void four_pages(void) { with_threads(FEW, OWN_PAGES, fight); }

/* Mappings that do not merge: every other one may not be executed. */
static void maps(void) {
  static uint64_t* at[MAPS];
  for (uint64_t i = 0; i < MAPS; i++) {
    const int protection = PROT_READ | PROT_WRITE | (i % 2 ? PROT_EXEC : 0);
    at[i] = (uint64_t*)map(PAGE_BYTES, protection, anonymous);
    at[i][i % PAGE_WORDS] = mix(i);
  }
  for (uint64_t i = 0; i < MAPS; i++)
    if (at[i][i % PAGE_WORDS] != mix(i)) fail("mapping %lu", i);
  for (uint64_t i = 0; i < MAPS; i += 3) munmap(at[i], PAGE_BYTES);
  for (uint64_t i = 1; i < MAPS; i += 3)
    if (mprotect(at[i], PAGE_BYTES, PROT_READ) != 0) fail("mprotect of mapping %lu", i);
  for (uint64_t i = 0; i < MAPS; i++)
    if (i % 3 != 0 && at[i][i % PAGE_WORDS] != mix(i)) fail("mapping %lu at the end", i);
}

static void* walk_and_count(void* argument) {
  const uintptr_t self = (uintptr_t)argument;
  for (int i = 0; i < 40; i++) {
    ballast_walk(&shares[self], 15);
    atomic_fetch_add(&shared[self * 8 % PAGE_WORDS], 1);
  }
  return NULL;
}

static void threads(void) {
  with_threads(MANY, 60, walk_and_count);
  for (int i = 0; i < MANY; i++)
    if (shared[i * 8] != 40) fail("thread %d counted %lu", i, (uint64_t)shared[i * 8]);
}

int main(int argc, char** argv) {
  static const struct test_case list[] = {
      {"one-page", one_page},
      {"false-sharing", false_sharing},
      {"spin", spin},
      {"futex", futex},
      {"four-pages", four_pages},
      {"maps", maps},
      {"threads", threads},
      {NULL, NULL},
  };
  return run_case(list, argc, argv);
}
