/*
 * What goes on while a process forks, and while its children get their memory: a child has all of one moment,
 * each byte of it. Arguments: the case, and what it needs.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "cases.h"
#include "children.h"

enum { PAGES = 2000, CHILDREN = 20, MANY_PAGES = 12000 };

static const size_t bytes = (size_t)PAGES * PAGE_BYTES;
static atomic_bool ends;
static char **arguments, *places[2];

static uint64_t* array_of(uint64_t count) {
  return (uint64_t*)map(count * PAGE_BYTES, PROT_READ | PROT_WRITE, anonymous);
}

static bool is_mapped(char* place) {
  unsigned char there;
  const bool first = mincore(place, PAGE_BYTES, &there) == 0;
  if (first != (mincore(place + bytes - PAGE_BYTES, PAGE_BYTES, &there) == 0)) fail("half a mapping");
  return first;
}

static void* move(void* unused) {
  while (places[1] == NULL) usleep(100);
  for (int from = 0; !atomic_load(&ends); from = 1 - from)
    if (mremap(places[from], bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, places[1 - from]) !=
        places[1 - from])
      fail("mremap: %s", strerror(errno));
  return unused;
}

/* Forks children that `look` while the thread is busy. */
static void fork_meanwhile(pthread_t thread, void (*look)(void)) {
  for (int i = 0; i < CHILDREN; i++) {
    const pid_t child = fork();
    if (child != 0) {
      expect_right(child, "forked meanwhile");
      continue;
    }
    look();
    _exit(0);
  }
  atomic_store(&ends, true);
  pthread_join(thread, NULL);
  look();
}

static void look_at_moved(void) {
  const bool first = is_mapped(places[0]);
  if (first == is_mapped(places[1])) fail(first ? "it is in two places" : "it is nowhere");
  verify((uint64_t*)places[first ? 0 : 1], PAGES, 1, "what is moved to and fro");
}

/* A buffer is moved to and fro. */
static void moves(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, move, NULL);
  usleep(1000); /* its memory is there: nothing else is mapped from now on */
  places[0] = map(2 * bytes, PROT_READ | PROT_WRITE, anonymous);
  munmap(places[0] + bytes, bytes);
  fill((uint64_t*)places[0], PAGES, 1);
  places[1] = places[0] + bytes;
  fork_meanwhile(thread, look_at_moved);
}

static uint64_t* kept;

static void* replace(void* unused) {
  const int access = PROT_READ | PROT_WRITE;
  while (!atomic_load(&ends)) {
    if (mmap(places[0], bytes, access, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != places[0] ||
        mmap(places[0], bytes, access, anonymous | MAP_FIXED, -1, 0) != places[0])
      fail("mmap: %s", strerror(errno));
    fill((uint64_t*)places[0], PAGES, 2);
  }
  return unused;
}

static void look_at_replaced(void) {
  const uint64_t* const at = (uint64_t*)places[0];
  for (uint64_t i = 0; i < (uint64_t)PAGES * PAGE_WORDS; i++)
    if (at[i] != 0 && at[i] != mix(2 + i)) fail("word %lu of what is mapped anew is %#lx", i, at[i]);
  verify(kept, PAGES, 1, "what nobody changes");
}

/* Mappings take the place of others, of which most is elsewhere. */
static void replaces(void) {
  places[0] = map(bytes, PROT_READ | PROT_WRITE, anonymous);
  kept = array_of(PAGES);
  fill(kept, PAGES, 1);
  pthread_t thread;
  pthread_create(&thread, NULL, replace, NULL);
  fork_meanwhile(thread, look_at_replaced);
}

static void verify_page(const uint64_t* array, uint64_t page, const char* what) {
  verify(array + page * PAGE_WORDS, 1, 1 + page * PAGE_WORDS, what);
}

static void expect_all(const pid_t* children) {
  expect_right(children[0], "one that reads meanwhile");
  expect_status(children[1], SIGKILL, "one that is killed meanwhile");
  expect_right(children[2], "one that kills");
}

/* Children that get much memory at once read of it, and die, meanwhile. */
static void begin_handover(pid_t* children, uint64_t** array) {
  *array = array_of(MANY_PAGES);
  fill(*array, MANY_PAGES, 1);
  fflush(stdout);
  for (int i = 0; i < 3; i++) {
    children[i] = fork();
    if (children[i] != 0) continue;
    if (i == 0)
      for (uint64_t page = MANY_PAGES; page-- > 0;) verify_page(*array, page, "backwards");
    for (uint64_t n = 0; i == 1; n++) verify_page(*array, mix(n) % MANY_PAGES, "here and there");
    if (i == 2) {
      usleep((useconds_t)strtoul(arguments[2], NULL, 0));
      kill(children[1], SIGKILL);
    }
    _exit(0);
  }
}

static void handover_unmaps(void) {
  pid_t children[3];
  uint64_t* array;
  begin_handover(children, &array);
  munmap(array, (size_t)MANY_PAGES * PAGE_BYTES);
  expect_all(children);
}

static void handover_executes(void) {
  pid_t children[3];
  uint64_t* array;
  char numbers[3][16];
  begin_handover(children, &array);
  for (int i = 0; i < 3; i++) snprintf(numbers[i], sizeof numbers[i], "%d", children[i]);
  execl("/proc/self/exe", arguments[0], "expect", numbers[0], numbers[1], numbers[2], NULL);
  fail("exec: %s", strerror(errno));
}

static void expect_children(void) {
  pid_t children[3];
  for (int i = 0; i < 3; i++) children[i] = atoi(arguments[2 + i]);
  expect_all(children);
}

/* A child that has looked at all its memory, and lives until a file is there. */
static void complete(void) {
  uint64_t* const array = array_of(PAGES);
  fill(array, PAGES, 1);
  const pid_t child = fork();
  if (child != 0) return expect_right(child, "one that has all");
  FILE* const maps = fopen("/proc/self/maps", "r");
  char line[512], mode[8];
  uint64_t first, end;
  while (fgets(line, sizeof line, maps) != NULL)
    if (sscanf(line, "%lx-%lx %7s", &first, &end, mode) == 3 && mode[0] == 'r' && strstr(line, "[v") == NULL)
      for (; first < end; first += PAGE_BYTES) (void)*(volatile char*)first;
  puts("has all");
  fflush(stdout);
  while (access(arguments[2], F_OK) != 0) usleep(10000);
  verify(array, PAGES, 1, "it");
  _exit(0);
}

int main(int argc, char** argv) {
  arguments = argv;
  static const struct test_case list[] = {{"moves", moves},
                                          {"replaces", replaces},
                                          {"unmaps", handover_unmaps},
                                          {"executes", handover_executes},
                                          {"expect", expect_children},
                                          {"complete", complete},
                                          {NULL, NULL}};
  return run_case(list, argc, argv);
}
