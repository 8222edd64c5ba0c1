/*
 * Four threads with mutexes, atomics and a barrier over shared arrays larger than the memory limit. In each
 * round a thread works on another quarter of the array, so quarters change hands; sums are kept under mutexes
 * and in atomics and must come out exactly. Arguments: pages of the array, rounds.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "check.h"

enum { THREADS = 4, BUCKETS = 16 };

struct bucket {
  pthread_mutex_t lock;
  uint64_t sum, visits;
  char rest[PAGE_BYTES - sizeof(pthread_mutex_t) - 16];
};

static struct bucket buckets[BUCKETS] __attribute__((aligned(4096)));
static _Atomic uint64_t total __attribute__((aligned(4096)));
static _Atomic uint64_t order __attribute__((aligned(4096)));
static pthread_barrier_t barrier;
static uint64_t *array, pages, rounds;
static __thread uint64_t own_visits;

static void visit(uint64_t page, uint64_t round) {
  uint64_t* words = array + page * PAGE_WORDS;
  for (int i = 0; i < PAGE_WORDS; i += 64) {
    if (words[i] != mix(page) + round) fail("round %lu page %lu word %d is %#lx", round, page, i, words[i]);
    words[i]++;
  }
  own_visits++;
  atomic_fetch_add(&total, 1);
  if (page % 8 != 0) return;
  struct bucket* bucket = &buckets[mix(page + round) % BUCKETS];
  pthread_mutex_lock(&bucket->lock);
  bucket->sum += page;
  bucket->visits++;
  pthread_mutex_unlock(&bucket->lock);
}

static void* work(void* argument) {
  const uint64_t self = (uintptr_t)argument, quarter = pages / THREADS;
  for (uint64_t round = 0; round < rounds; round++) {
    const uint64_t first = (self + round) % THREADS * quarter;
    for (uint64_t i = 0; i < quarter; i++) visit(first + i, round);
    pthread_barrier_wait(&barrier);
  }
  atomic_fetch_add(&order, 1ull << (self * 8));
  return (void*)own_visits;
}

int main(int argc, char** argv) {
  pages = number(argc, argv, 1, 6000) / THREADS * THREADS;
  rounds = number(argc, argv, 2, 6);
  array = aligned_alloc(PAGE_BYTES, pages * PAGE_BYTES);
  if (array == NULL) fail("no memory");
  for (uint64_t page = 0; page < pages; page++)
    for (int i = 0; i < PAGE_WORDS; i += 64) array[page * PAGE_WORDS + i] = mix(page);
  for (int i = 0; i < BUCKETS; i++) pthread_mutex_init(&buckets[i].lock, NULL);
  pthread_barrier_init(&barrier, NULL, THREADS);
  pthread_t threads[THREADS];
  for (uintptr_t i = 0; i < THREADS; i++)
    if (pthread_create(&threads[i], NULL, work, (void*)i) != 0) fail("no thread");
  uint64_t by_threads = 0;
  for (int i = 0; i < THREADS; i++) {
    void* visits;
    pthread_join(threads[i], &visits);
    by_threads += (uintptr_t)visits;
  }
  uint64_t sum = 0, visits = 0, expected = 0;
  for (int i = 0; i < BUCKETS; i++) {
    sum += buckets[i].sum;
    visits += buckets[i].visits;
  }
  for (uint64_t page = 0; page < pages; page += 8) expected += page * rounds;
  if (total != pages * rounds || by_threads != total)
    fail("%lu visits, %lu by the threads", total, by_threads);
  if (order != 0x01010101) fail("threads that ended: %#lx", order);
  if (sum != expected || visits != (pages + 7) / 8 * rounds) fail("the buckets hold %lu in %lu", sum, visits);
  for (uint64_t page = 0; page < pages; page++)
    if (array[page * PAGE_WORDS] != mix(page) + rounds) fail("page %lu is wrong at the end", page);
  printf("%lu visits, buckets %lu\n", total, sum);
  return 0;
}
