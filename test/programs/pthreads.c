/*
 * POSIX threads: a queue with condition variables, priority-inheritance mutexes, reader-writer locks,
 * barriers, semaphores, thread-local storage with destructors, cancellation with clean-up handlers, and
 * storms of threads that begin and end at once. All of them walk over shared memory larger than the limit.
 * Arguments: pages, rounds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <unistd.h>

#include "ballast.h"

enum { WORKERS = 4, QUEUE = 8, STORM = 16 };

static struct ballast shares[WORKERS];
static uint64_t rounds;

static void start(pthread_t* thread, void* (*routine)(void*), uintptr_t argument) {
  const int error = pthread_create(thread, NULL, routine, (void*)argument);
  if (error != 0) fail("pthread_create: %d", error);
}

static void with_workers(void* (*routine)(void*)) {
  pthread_t threads[WORKERS];
  for (uintptr_t i = 0; i < WORKERS; i++) start(&threads[i], routine, i);
  for (int i = 0; i < WORKERS; i++) pthread_join(threads[i], NULL);
}

/* A bounded queue: half of the workers put, half take. */
static struct {
  pthread_mutex_t lock;
  pthread_cond_t more, less;
  uint64_t items[QUEUE], put, taken, sum;
} queue = {
    .lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER, .less = PTHREAD_COND_INITIALIZER};

static void* produce_or_consume(void* argument) {
  const uintptr_t self = (uintptr_t)argument;
  const uint64_t count = rounds * 50;
  for (uint64_t i = 0; i < count; i++) {
    ballast_walk(&shares[self], 20);
    pthread_mutex_lock(&queue.lock);
    if (self % 2 == 0) {
      while (queue.put - queue.taken == QUEUE) pthread_cond_wait(&queue.less, &queue.lock);
      queue.items[queue.put++ % QUEUE] = mix(i);
      pthread_cond_signal(&queue.more);
    } else {
      while (queue.put == queue.taken) pthread_cond_wait(&queue.more, &queue.lock);
      queue.sum += queue.items[queue.taken++ % QUEUE];
      pthread_cond_signal(&queue.less);
    }
    pthread_mutex_unlock(&queue.lock);
  }
  return NULL;
}

static void condition_variables(void) {
  with_workers(produce_or_consume);
  uint64_t sum = 0;
  for (uint64_t i = 0; i < rounds * 50; i++) sum += mix(i) * (WORKERS / 2);
  if (queue.sum != sum) fail("through the queue came %#lx, not %#lx", queue.sum, sum);
}

static pthread_mutex_t inheriting;
static pthread_rwlock_t book = PTHREAD_RWLOCK_INITIALIZER;
static pthread_barrier_t barrier;
static sem_t tokens;
static uint64_t entries[3 * PAGE_WORDS], guarded, by_token;

static void* lock_all(void* argument) {
  const uintptr_t self = (uintptr_t)argument;
  for (uint64_t i = 0; i < rounds * 20; i++) {
    ballast_walk(&shares[self], 30);
    pthread_mutex_lock(&inheriting);
    guarded++;
    pthread_mutex_unlock(&inheriting);
    if (i % 8 == self) {
      pthread_rwlock_wrlock(&book);
      for (int word = 0; word < 3 * PAGE_WORDS; word += 16) entries[word]++;
      pthread_rwlock_unlock(&book);
    } else {
      pthread_rwlock_rdlock(&book);
      for (int word = 16; word < 3 * PAGE_WORDS; word += 16)
        if (entries[word] != entries[0]) fail("half an entry in the book");
      pthread_rwlock_unlock(&book);
    }
    while (sem_wait(&tokens) != 0 && errno == EINTR) continue;
    by_token++;
    sem_post(&tokens);
    if (i % 16 == 0) pthread_barrier_wait(&barrier);
  }
  return NULL;
}

static void locks(void) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
  if (pthread_mutex_init(&inheriting, &attributes) != 0) fail("no mutex with priority inheritance");
  pthread_barrier_init(&barrier, NULL, WORKERS);
  sem_init(&tokens, 0, 1);
  with_workers(lock_all);
  const uint64_t turns = WORKERS * rounds * 20;
  if (guarded != turns || by_token != turns) fail("%lu and %lu turns of %lu", guarded, by_token, turns);
}

/* Thread-local storage of several pages, and values with destructors. */
static __thread uint64_t own[4 * PAGE_WORDS];
static pthread_key_t key;
static _Atomic uint64_t destroyed, finished, cleaned;

static void destroy(void* value) {
  atomic_fetch_add(&destroyed, *(uint64_t*)value);
  free(value);
}

static void* live_shortly(void* argument) {
  const uint64_t self = (uintptr_t)argument;
  verify_zero(own, 4, "new thread-local storage");
  uint64_t* value = malloc(sizeof *value);
  *value = self;
  pthread_setspecific(key, value);
  fill(own, 4, self);
  /* Reads only: sixteen of them read one share at a time. */
  const struct ballast* share = &shares[self % WORKERS];
  for (uint64_t i = 0; i < 40; i++) {
    const uint64_t page = mix(self * 64 + i) % share->pages;
    if (share->words[page * PAGE_WORDS + PAGE_WORDS - 1] != mix(page))
      fail("a thread of the storm reads wrong");
  }
  verify(own, 4, self, "thread-local storage");
  atomic_fetch_add(&finished, 1);
  return (void*)(uintptr_t)mix(self);
}

static void storms(void) {
  pthread_key_create(&key, destroy);
  uint64_t started = 0, expected = 0;
  for (uint64_t round = 0; round < rounds; round++) {
    pthread_t threads[STORM];
    for (int i = 0; i < STORM; i++) {
      start(&threads[i], live_shortly, ++started);
      expected += started;
      if (i % 4 == 3) pthread_detach(threads[i]);
    }
    for (int i = 0; i < STORM; i++) {
      if (i % 4 == 3) continue;
      void* result;
      pthread_join(threads[i], &result);
      if ((uintptr_t)result != mix(started - STORM + 1 + i)) fail("a thread's result is wrong");
    }
  }
  /* Detached threads may still be on their way out. */
  for (int i = 0; i < 20000 && atomic_load(&destroyed) != expected; i++) usleep(1000);
  if (finished != started || destroyed != expected) fail("%lu threads ended of %lu", finished, started);
}

static void clean(void* argument) { atomic_fetch_add(&cleaned, *(uint64_t*)argument); }

static void* wait_for_cancellation(void* argument) {
  uint64_t on_stack = (uintptr_t)argument;
  pthread_cleanup_push(clean, &on_stack);
  if (on_stack % 2 == 0) {
    for (;;) pause();
  }
  pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
  const struct ballast* share = &shares[on_stack % WORKERS];
  for (volatile uint64_t page = 0, sum = 0;; page = (page + 1) % share->pages)
    sum += share->words[page * PAGE_WORDS];
  pthread_cleanup_pop(1);
  return NULL;
}

static void cancellation(void) {
  uint64_t expected = 0;
  for (uint64_t round = 0; round < rounds; round++) {
    pthread_t threads[WORKERS];
    for (uintptr_t i = 0; i < WORKERS; i++)
      start(&threads[i], wait_for_cancellation, i + 1), expected += i + 1;
    usleep(2000);
    for (int i = 0; i < WORKERS; i++) {
      void* result;
      pthread_cancel(threads[i]);
      pthread_join(threads[i], &result);
      if (result != PTHREAD_CANCELED) fail("a thread was not cancelled");
    }
  }
  if (cleaned != expected) fail("clean-up handlers saw %lu, not %lu", cleaned, expected);
}

int main(int argc, char** argv) {
  const uint64_t pages = number(argc, argv, 1, 3000);
  rounds = number(argc, argv, 2, 10);
  for (int i = 0; i < WORKERS; i++) shares[i] = ballast_make(pages / WORKERS);
  condition_variables();
  locks();
  storms();
  cancellation();
  for (int i = 0; i < WORKERS; i++) ballast_walk(&shares[i], shares[i].pages);
  puts("pthreads: all right");
  return 0;
}
