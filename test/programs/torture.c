// Writes and verifies memory at random, from several threads, while mappings come, go, move, shrink and
// change their protection, and children verify what they have of it: for running under random limits, jumps,
// cuts, and nodes that come and go. A page's right content follows from its region and a stamp, which is in
// memory too; a sum over the stamps of each region shows a page of them that was lost together with what it
// describes. Every page is verified again at the end.
//
// torture THREADS SEED SECONDS MEGABYTES     Prints "begins" and at the end "right: N steps"; the first wrong
// word ends it.
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

enum { kRegions = 6, kThreadsMax = 16, kSharedPages = 64, kLifeSteps = 20000 };

typedef struct {
  uint64_t* at;
  uint64_t pages, pages_max;
  uint64_t salt;
  uint32_t* stamps;  // 0: never written, reads as zeros
  uint64_t sum;      // of what each stamp mixes to
} Region;

typedef struct {
  uint64_t random, salts, steps, end_ns;
  int number;
  int pipe[2];
  Region regions[kRegions];
} Worker;

static struct {
  pthread_mutex_t lock;
  uint32_t stamp;
} shared_pages[kSharedPages];
static uint64_t* shared;

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t next(Worker* w) {
  w->random ^= w->random << 13;
  w->random ^= w->random >> 7;
  w->random ^= w->random << 17;
  return w->random;
}

static uint64_t below(Worker* w, uint64_t bound) { return (next(w) >> 16) % bound; }

static uint64_t first_word(uint64_t salt, uint64_t page, uint32_t stamp) {
  return mix(salt + page * 0x9e3779b97f4a7c15ull + stamp) | 1;
}

static void write_page(uint64_t* at, uint64_t word) {
  for (int i = 0; i < PAGE_WORDS; i++) at[i] = word + (uint64_t)i * word;
}

static void verify_page(const uint64_t* at, uint64_t word, const char* what, int thread, uint64_t page) {
  for (int i = 0; i < PAGE_WORDS; i++) {
    const uint64_t right = word + (uint64_t)i * word;
    if (at[i] != right)
      fail("%s: thread %d, page %lu at %p, word %d is %#lx, not %#lx", what, thread, page, (const void*)at, i,
           at[i], right);
  }
}

static uint64_t sum_of(uint64_t page, uint32_t stamp) { return stamp == 0 ? 0 : mix(page << 32 | stamp); }

static void set_stamp(Region* r, uint64_t page, uint32_t stamp) {
  r->sum += sum_of(page, stamp) - sum_of(page, r->stamps[page]);
  r->stamps[page] = stamp;
}

static void write_fresh(Worker* w, Region* r, uint64_t page) {
  const uint32_t stamp = (uint32_t)next(w) | 1;
  write_page(r->at + page * PAGE_WORDS, first_word(r->salt, page, stamp));
  set_stamp(r, page, stamp);
}

static void verify_of(Worker* w, Region* r, uint64_t page, const char* what) {
  const uint32_t stamp = r->stamps[page];
  verify_page(r->at + page * PAGE_WORDS, stamp == 0 ? 0 : first_word(r->salt, page, stamp), what, w->number,
              page);
}

static void verify_stamps(Worker* w, Region* r) {
  uint64_t sum = 0;
  for (uint64_t page = 0; page < r->pages_max; page++) sum += sum_of(page, r->stamps[page]);
  if (sum != r->sum) fail("thread %d: the stamps of a region are not what they were", w->number);
}

static void* map(uint64_t pages) {
  void* at = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) fail("mmap of %lu pages", pages);
  return at;
}

static void make(Worker* w, Region* r) {
  r->pages = 1 + below(w, r->pages_max);
  r->salt = mix(++w->salts + ((uint64_t)w->number << 32));
  r->at = map(r->pages);
}

static void forget_from(Region* r, uint64_t first, uint64_t end) {
  for (uint64_t page = first; page < end; page++) set_stamp(r, page, 0);
}

static void unmap(Region* r, uint64_t first) {
  if (munmap(r->at + first * PAGE_WORDS, (r->pages - first) * PAGE_BYTES) != 0) fail("munmap");
  forget_from(r, first, r->pages);
  r->pages = first;
}

static void resize(Worker* w, Region* r) {
  const uint64_t pages = 1 + below(w, r->pages_max);
  void* at = mremap(r->at, r->pages * PAGE_BYTES, pages * PAGE_BYTES, MREMAP_MAYMOVE);
  if (at == MAP_FAILED) fail("mremap from %lu to %lu pages", r->pages, pages);
  if (pages < r->pages) forget_from(r, pages, r->pages);
  r->at = at;
  r->pages = pages;
}

static void move(Region* r) {
  void* to = map(r->pages);
  void* at = mremap(r->at, r->pages * PAGE_BYTES, r->pages * PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, to);
  if (at != to) fail("mremap to a place");
  r->at = at;
}

// Part of a region loses its contents, or is read-only for a while.
static void advise_or_protect(Worker* w, Region* r) {
  const uint64_t first = below(w, r->pages), count = 1 + below(w, r->pages - first);
  uint64_t* at = r->at + first * PAGE_WORDS;
  if (below(w, 2) == 0) {
    if (madvise(at, count * PAGE_BYTES, MADV_DONTNEED) != 0) fail("madvise");
    forget_from(r, first, first + count);
    verify_of(w, r, first, "after MADV_DONTNEED");
    return;
  }
  if (mprotect(at, count * PAGE_BYTES, PROT_READ) != 0) fail("mprotect");
  verify_of(w, r, first + count - 1, "read-only");
  if (mprotect(at, count * PAGE_BYTES, PROT_READ | PROT_WRITE) != 0) fail("mprotect back");
}

// The kernel reads and writes pages too.
static void through_pipe(Worker* w, Region* r) {
  const uint64_t from = below(w, r->pages), to = below(w, r->pages);
  const uint32_t stamp = r->stamps[from];
  if (write(w->pipe[1], r->at + from * PAGE_WORDS, PAGE_BYTES) != PAGE_BYTES) fail("write");
  uint64_t* target = r->at + to * PAGE_WORDS;
  for (size_t got = 0; got < PAGE_BYTES;) {
    const ssize_t part = read(w->pipe[0], (char*)target + got, PAGE_BYTES - got);
    if (part <= 0) fail("read");
    got += (size_t)part;
  }
  verify_page(target, stamp == 0 ? 0 : first_word(r->salt, from, stamp), "through a pipe", w->number, to);
  write_fresh(w, r, to);
}

static void use_shared(Worker* w) {
  const uint64_t page = below(w, kSharedPages);
  uint64_t* at = shared + page * PAGE_WORDS;
  pthread_mutex_lock(&shared_pages[page].lock);
  const uint32_t stamp = shared_pages[page].stamp;
  verify_page(at, stamp == 0 ? 0 : first_word(7, page, stamp), "shared by threads", w->number, page);
  write_page(at, first_word(7, page, ++shared_pages[page].stamp));
  pthread_mutex_unlock(&shared_pages[page].lock);
}

// A child has all as it was, and what it writes is its own, while the pages change here.
static void fork_child(Worker* w, Region* r) {
  const pid_t child = fork();
  if (child == 0) {
    for (uint64_t page = 0; page < r->pages; page += 2) write_fresh(w, r, page);
    for (uint64_t page = 0; page < r->pages; page++) verify_of(w, r, page, "in a child");
    verify_stamps(w, r);
    _exit(0);
  }
  for (uint64_t page = 0; page < r->pages; page += 3) write_fresh(w, r, page);
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) fail("a child ended with %#x", status);
}

static void step(Worker* w) {
  Region* r = &w->regions[below(w, kRegions)];
  const uint64_t page = below(w, r->pages);
  const uint64_t what = below(w, 1000);
  if (what < 450) {
    write_fresh(w, r, page);
  } else if (what < 850) {
    verify_of(w, r, page, "at random");
  } else if (what < 890) {
    for (uint64_t i = page; i < r->pages && i < page + 64; i++) verify_of(w, r, i, "in a row");
  } else if (what < 950) {
    use_shared(w);
  } else if (what < 980) {
    through_pipe(w, r);
  } else if (what < 990) {
    advise_or_protect(w, r);
  } else if (what < 993) {
    resize(w, r);
  } else if (what < 995) {
    move(r);
  } else if (what < 997) {
    verify_stamps(w, r);
  } else if (what < 998) {
    if (r->pages > 1) unmap(r, 1 + below(w, r->pages - 1));
  } else if (what < 999) {
    unmap(r, 0);
    make(w, r);
  } else {
    fork_child(w, r);
  }
}

// One life of a thread: its memory outlives it.
static void* live(void* argument) {
  Worker* w = argument;
  for (int i = 0; i < kLifeSteps && now_ns() < w->end_ns; i++, w->steps++) step(w);
  return NULL;
}

static void begin(Worker* w, int number, uint64_t seed, uint64_t pages) {
  w->number = number;
  w->random = mix(seed * kThreadsMax + (uint64_t)number) | 1;
  if (pipe(w->pipe) != 0) fail("pipe");
  for (int i = 0; i < kRegions; i++) {
    Region* r = &w->regions[i];
    r->pages_max = pages;
    r->stamps = map((pages * sizeof *r->stamps + PAGE_BYTES - 1) / PAGE_BYTES);
    make(w, r);
  }
}

static uint64_t finish(Worker* w) {
  for (int i = 0; i < kRegions; i++) {
    verify_stamps(w, &w->regions[i]);
    for (uint64_t page = 0; page < w->regions[i].pages; page++)
      verify_of(w, &w->regions[i], page, "at the end");
  }
  return w->steps;
}

int main(int argc, char** argv) {
  const uint64_t threads = number(argc, argv, 1, 4), seed = number(argc, argv, 2, 1);
  const uint64_t end_ns = now_ns() + number(argc, argv, 3, 5) * 1000000000u;
  const uint64_t pages = number(argc, argv, 4, 32) * 256;
  static Worker workers[kThreadsMax];
  if (threads < 1 || threads > kThreadsMax) return 2;
  shared = map(kSharedPages);
  for (int i = 0; i < kSharedPages; i++) pthread_mutex_init(&shared_pages[i].lock, NULL);
  // On average half of each region's most is mapped.
  for (uint64_t i = 0; i < threads; i++) begin(&workers[i], (int)i, seed, 2 * pages / threads / kRegions + 1);
  puts("begins");
  fflush(stdout);
  while (now_ns() < end_ns) {
    pthread_t ids[kThreadsMax];
    for (uint64_t i = 0; i < threads; i++) {
      workers[i].end_ns = end_ns;
      if (pthread_create(&ids[i], NULL, live, &workers[i]) != 0) fail("pthread_create");
    }
    for (uint64_t i = 0; i < threads; i++) pthread_join(ids[i], NULL);
  }
  uint64_t steps = 0;
  for (uint64_t i = 0; i < threads; i++) steps += finish(&workers[i]);
  printf("right: %lu steps\n", steps);
  return 0;
}
