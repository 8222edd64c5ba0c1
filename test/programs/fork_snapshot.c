/*
 * A child has the memory of the moment of the fork, whatever the parent, the child or its own children do
 * with it before the child has looked. Arguments: pages of the array, then ways, one after the other, each
 * with a fresh array. Every way verifies all bytes. With `leave FILE` and `replace FILE` the program ends, or
 * executes another, while its child has all pages still to get; the child writes what it found to FILE.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "children.h"

enum { SEED = 100, OTHER = 200, CHILDREN = 40, THREADS = 3, THREAD_PAGES = 24, NESTED = 8 };

static uint64_t *array, pages;

static uint64_t* map_pages(uint64_t count) {
  uint64_t* at = mmap(NULL, count * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) fail("no memory");
  return at;
}

static uint64_t* page(uint64_t index) { return array + index * PAGE_WORDS; }

static void verify_part(uint64_t first, uint64_t count, uint64_t seed, const char* what) {
  verify(page(first), count, seed + first * PAGE_WORDS, what);
}

/* A child that runs `check` when the parent has done `act`. */
static void after(const char* what, void (*act)(void), void (*check)(const char*)) {
  int ends[2];
  char byte = 0;
  if (pipe(ends) != 0) fail("no pipe");
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    close(ends[1]);
    if (read(ends[0], &byte, 1) != 0) fail("%s: the pipe broke", what);
    check(what);
    _exit(0);
  }
  close(ends[0]);
  if (act != NULL) act();
  close(ends[1]);
  expect_right(child, what);
}

static void as_filled(const char* what) { verify(array, pages, SEED, what); }

/* Away from where prefetch looks, and downwards. */
static void as_filled_backwards(const char* what) {
  for (uint64_t i = pages; i-- > 0;) verify_part(i, 1, SEED, what);
}

/* What the parent may do. */
static void overwrite(void) { fill(array, pages, OTHER); }
static void unmap(void) { munmap(array, pages * PAGE_BYTES); }
static void drop(void) { madvise(array, pages * PAGE_BYTES, MADV_DONTNEED); }

static void move(void) {
  uint64_t* const to = map_pages(pages);
  array = mremap(array, pages * PAGE_BYTES, pages * PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, to);
  verify(array, pages, SEED, "what the parent moved");
  overwrite();
}

static void protect(void) {
  mprotect(array, pages * PAGE_BYTES, PROT_NONE);
  mprotect(array, pages * PAGE_BYTES, PROT_READ);
  verify(array, pages, SEED, "what the parent protected");
  mprotect(array, pages * PAGE_BYTES, PROT_READ | PROT_WRITE);
  overwrite();
}

static void map_over(void) {
  const size_t half = pages / 2 * PAGE_BYTES;
  const int private = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
            shared = MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED;
  if (mmap(array, half, PROT_READ | PROT_WRITE, private, -1, 0) != array) fail("no new mapping");
  if (mmap(page(pages / 2), half, PROT_READ | PROT_WRITE, shared, -1, 0) == MAP_FAILED)
    fail("no new mapping");
  verify_zero(array, pages / 2 * 2, "what the parent mapped anew");
  memset(array, 7, 2 * half);
}

/* What the child may do. */
static void child_drops(const char* what) {
  const uint64_t half = pages / 2;
  verify_part(0, 1, SEED, what);
  madvise(page(1), (half - 1) * PAGE_BYTES, MADV_DONTNEED);
  verify_part(0, 1, SEED, what);
  verify_zero(page(1), half - 1, what);
  verify_part(half, pages - half, SEED, what);
  madvise(page(half), PAGE_BYTES, MADV_DONTNEED);
  verify_zero(page(half), 1, what);
}

static void child_unmaps(const char* what) {
  const uint64_t half = pages / 2;
  munmap(array, half * PAGE_BYTES);
  if (mmap(array, half * PAGE_BYTES, PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != array)
    fail("%s: the place is not free", what);
  verify_zero(array, half, what);
  if (mmap(page(half), PAGE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != page(half))
    fail("%s: no new mapping", what);
  verify_zero(page(half), 1, what);
  const pid_t child = fork(); /* has what its parent has mapped, and what it has not looked at */
  if (child == 0) verify_zero(array, half + 1, "a grandchild");
  verify_part(half + 1, pages - half - 1, SEED, what);
  if (child == 0) _exit(0);
  expect_right(child, what);
}

static void child_moves(const char* what) {
  uint64_t* const to = map_pages(pages * 2);
  if (mremap(array, pages * PAGE_BYTES, pages * 2 * PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
    fail("%s: mremap", what);
  verify(to, pages, SEED, what);
  verify_zero(to + pages * PAGE_WORDS, pages, what);
}

static void child_protects(const char* what) {
  mprotect(array, pages * PAGE_BYTES, PROT_NONE);
  mprotect(array, pages * PAGE_BYTES, PROT_READ);
  as_filled(what);
}

static void* verify_slice(void* index) {
  const uint64_t each = pages / THREADS, first = each * (uint64_t)(uintptr_t)index;
  verify_part(first, each, SEED, "a thread of a child");
  return NULL;
}

static void child_threads(const char* what) {
  pthread_t threads[THREADS];
  for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, verify_slice, (void*)i);
  const pid_t child = fork();
  if (child == 0) {
    as_filled("a grandchild of a child with threads");
    _exit(0);
  }
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  expect_right(child, what);
  as_filled(what);
}

static void child_vforks(const char* what) {
  const pid_t child = vfork();
  if (child == 0) {
    execl("/bin/true", "true", NULL);
    _exit(1);
  }
  expect_right(child, what);
  as_filled(what);
}

static void grandchildren(const char* what) {
  verify_part(1, 1, SEED, what);
  const pid_t child = fork();
  if (child == 0) {
    const pid_t grandchild = fork();
    if (grandchild == 0) {
      as_filled("a grandchild's child");
      _exit(0);
    }
    fill(array, pages, OTHER);
    verify(array, pages, OTHER, "what a grandchild wrote");
    expect_right(grandchild, what);
    _exit(0);
  }
  as_filled(what);
  expect_right(child, what);
}

/* The child forks while its parent writes. */
static void nested(const char* what) {
  pid_t grandchildren[NESTED];
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    for (int i = 0; i < NESTED; i++) {
      grandchildren[i] = fork();
      if (grandchildren[i] == 0) {
        as_filled("a child's child whose grandparent writes");
        _exit(0);
      }
    }
    for (int i = 0; i < NESTED; i++) expect_right(grandchildren[i], what);
    as_filled("its parent");
    _exit(0);
  }
  fill(array, pages, OTHER);
  expect_right(child, what);
}

/* Memory that each child finds empty, its children's children too. */
static void wipes(const char* what) {
  if (madvise(array, PAGE_BYTES, MADV_WIPEONFORK) != 0) fail("%s: madvise", what);
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    if (array[0] != 0) fail("%s: a child has what was to be wiped", what);
    array[0] = 1;
    const pid_t grandchild = fork();
    if (grandchild == 0) _exit(array[0] != 0);
    expect_right(grandchild, what);
    _exit(0);
  }
  expect_right(child, what);
}

/* A child that leaves at once, as a program does that becomes a daemon. */
static void daemonise(const char* what) {
  int ends[2];
  char byte = 0;
  if (pipe(ends) != 0) fail("no pipe");
  if (fork() != 0) {
    close(ends[1]);
    if (read(ends[0], &byte, 1) != 1 || byte != 'r') fail("%s: the daemon ended", what);
    return;
  }
  setsid();
  usleep(50000);
  as_filled_backwards("a daemon");
  if (write(ends[1], "r", 1) != 1) fail("%s: the pipe broke", what);
  _exit(0);
}

/* Words that the kernel reads and writes where it cannot wait for a page. */
static void lock_in_child(const char* what) {
  for (uint64_t i = 0; i < pages; i += 97) {
    pthread_mutex_t* const mutex = (pthread_mutex_t*)page(i);
    uint32_t* const word = (uint32_t*)(page(i) + PAGE_WORDS / 2);
    if (syscall(SYS_futex, word, 6 /* LOCK_PI */, 0, NULL, NULL, 0) != 0) fail("%s: LOCK_PI", what);
    if ((*word & 0x3fffffff) != (uint32_t)getpid()) fail("%s: the word of a lock is %#x", what, *word);
    if (syscall(SYS_futex, word, 7 /* UNLOCK_PI */, 0, NULL, NULL, 0) != 0) fail("%s: UNLOCK_PI", what);
    if (pthread_mutex_trylock(mutex) == 0) fail("%s: a lock that was held is free", what);
  }
}

static void locks(const char* what) {
  for (uint64_t i = 0; i < pages; i += 97) {
    memset(page(i), 0, PAGE_BYTES);
    pthread_mutex_init((pthread_mutex_t*)page(i), NULL);
    pthread_mutex_lock((pthread_mutex_t*)page(i));
  }
  after(what, overwrite, lock_in_child);
}

/* Threads of the parent count through their pages in order: a child must see a moment of that. */
static uint64_t* counters[THREADS];
static volatile int counting;

static void* count(void* index) {
  volatile uint64_t* const at = counters[(uintptr_t)index];
  for (uint64_t value = 1; counting; value++)
    for (int i = 0; i < THREAD_PAGES; i++) at[i * PAGE_WORDS] = value;
  return NULL;
}

static void consistent(const char* what) {
  for (int t = 0; t < THREADS; t++)
    for (int i = 1; i < THREAD_PAGES; i++) {
      const uint64_t first = counters[t][0], before = counters[t][(i - 1) * PAGE_WORDS];
      const uint64_t value = counters[t][i * PAGE_WORDS];
      if (value > before || value + 1 < first) fail("%s: %lu after %lu, of %lu", what, value, before, first);
    }
  as_filled(what);
}

static void threads(const char* what) {
  pthread_t running[THREADS];
  counting = 1;
  for (uintptr_t i = 0; i < THREADS; i++) counters[i] = map_pages(THREAD_PAGES);
  for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&running[i], NULL, count, (void*)i);
  for (int i = 0; i < 5; i++) after(what, NULL, consistent);
  after(what, overwrite, consistent);
  counting = 0;
  for (int i = 0; i < THREADS; i++) pthread_join(running[i], NULL);
}

static void many(const char* what) {
  pid_t all[CHILDREN];
  int ends[2];
  char byte = 0;
  if (pipe(ends) != 0) fail("no pipe");
  for (uint64_t i = 0; i < CHILDREN; i++) {
    array[i * 50 % (pages * PAGE_WORDS)] = i;
    all[i] = fork();
    if (all[i] < 0) fail("%s: fork", what);
    if (all[i] != 0) continue;
    close(ends[1]);
    if (read(ends[0], &byte, 1) != 0) fail("%s: the pipe broke", what);
    if (array[i * 50 % (pages * PAGE_WORDS)] != i) fail("%s: child %lu sees another's number", what, i);
    verify_part(pages / 2, pages / CHILDREN, SEED, what);
    _exit(0);
  }
  fill(array, pages, OTHER);
  close(ends[1]);
  for (int i = 0; i < CHILDREN; i++) expect_right(all[i], what);
}

/* Children that look at next to nothing. */
static void execute(const char* what) {
  for (int i = 0; i < 5; i++) {
    const pid_t child = fork();
    if (child == 0) {
      execl("/bin/true", "true", NULL);
      _exit(1);
    }
    expect_right(child, what);
  }
}

static void simple(const char* way) {
  static const struct {
    const char* name;
    void (*act)(void);
    void (*check)(const char*);
  } ways[] = {
      {"overwrite", overwrite, as_filled},
      {"backwards", overwrite, as_filled_backwards},
      {"unmap", unmap, as_filled},
      {"drop", drop, as_filled},
      {"move", move, as_filled},
      {"protect", protect, as_filled_backwards},
      {"map-over", map_over, as_filled},
      {"child-drops", overwrite, child_drops},
      {"child-unmaps", NULL, child_unmaps},
      {"child-moves", overwrite, child_moves},
      {"child-protects", NULL, child_protects},
      {"child-threads", NULL, child_threads},
      {"child-vforks", overwrite, child_vforks},
      {"grandchildren", overwrite, grandchildren},
      {"daemonise", NULL, daemonise},
  };
  for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++)
    if (strcmp(way, ways[i].name) == 0) return after(way, ways[i].act, ways[i].check);
  if (strcmp(way, "execute") == 0) return execute(way);
  if (strcmp(way, "locks") == 0) return locks(way);
  if (strcmp(way, "threads") == 0) return threads(way);
  if (strcmp(way, "many") == 0) return many(way);
  if (strcmp(way, "nested") == 0) return nested(way);
  if (strcmp(way, "wipes") == 0) return wipes(way);
  fail("no such way: %s", way);
}

/* The child looks when its parent's memory has ended, and says what it found in a file. */
static void outlive(const char* way, const char* path) {
  const pid_t parent = getpid();
  if (fork() == 0) {
    if (strcmp(way, "leave") == 0)
      while (getppid() == parent) usleep(1000);
    else
      usleep(300000);
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (dup2(file, STDOUT_FILENO) < 0) fail("no file");
    as_filled(way);
    puts("the child: all right");
    fflush(stdout);
    _exit(0);
  }
  if (strcmp(way, "replace") == 0) execl("/bin/sleep", "sleep", "1", NULL);
}

int main(int argc, char** argv) {
  pages = number(argc, argv, 1, 4000);
  for (int i = 2; i < argc; i++) {
    array = map_pages(pages);
    fill(array, pages, SEED);
    if (strcmp(argv[i], "leave") == 0 || strcmp(argv[i], "replace") == 0) {
      outlive(argv[i], argv[i + 1]);
      return 3;
    }
    simple(argv[i]);
    munmap(array, pages * PAGE_BYTES);
  }
  puts("all right");
  return 0;
}
