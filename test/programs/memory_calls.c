/*
 * Memory calls whose effect on contents, not only whose answer, has to be as it is alone; one case for each argument.
 * Every case prints the same under elasticos as without.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#include "check.h"

enum { PAGES = 16 };
static const size_t length = PAGES * PAGE_BYTES;
static const int anonymous = MAP_PRIVATE | MAP_ANONYMOUS;

static char* map(size_t bytes, int protection, int flags) {
  char* const at = mmap(NULL, bytes, protection, flags, -1, 0);
  if (at == MAP_FAILED) fail("no memory");
  return at;
}

static void must_be_fresh(char* at, const char* what) {
  char* const again = mmap(at, length, PROT_READ | PROT_WRITE, anonymous | MAP_FIXED_NOREPLACE, -1, 0);
  if (again != at) fail("%s: the place is not free", what);
  verify_zero((const uint64_t*)at, PAGES, what);
}

/* What the kernel maps over private memory, and takes away again, leaves nothing of the old contents. */
static void fresh(void) {
  char* const shared = map(length, PROT_READ | PROT_WRITE, anonymous);
  memset(shared, 0x5a, length);
  const int id = shmget(IPC_PRIVATE, length, 0600 | IPC_CREAT);
  if (shmat(id, shared, SHM_REMAP) != shared) fail("shmat");
  shmctl(id, IPC_RMID, NULL);
  if (shmdt(shared) != 0) fail("shmdt");
  must_be_fresh(shared, "after shmat and shmdt");

  char* const moved = map(length, PROT_READ | PROT_WRITE, anonymous);
  memset(moved, 0x33, length);
  char* const native = map(length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  char* const elsewhere = map(length, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS);
  if (mremap(native, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, moved) != moved ||
      mremap(moved, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, elsewhere) != elsewhere)
    fail("mremap of a shared mapping");
  must_be_fresh(moved, "after mremap");
}

enum { ROUNDS = 200, FILE_PAGES = 64 };
static _Atomic(const volatile char*) read_now;  // null: the reader rests
static atomic_int reader_rests, reader_ends;

static void* reader(void* unused) {
  (void)unused;
  while (!reader_ends) {
    const volatile char* const at = read_now;
    if (at == NULL) {
      reader_rests = 1;
      continue;
    }
    for (size_t i = 0; i < FILE_PAGES; i++)
      if (at[i * PAGE_BYTES] != 1) fail("page %zu of a file reads as %d", i, at[i * PAGE_BYTES]);
  }
  return NULL;
}

/* A private file mapping becomes writable while another thread reads it. */
static void convert(void) {
  char page[PAGE_BYTES];
  memset(page, 1, sizeof page);
  char name[] = "memory-calls-XXXXXX";
  const int file = mkstemp(name);
  unlink(name);
  for (int i = 0; i < FILE_PAGES; i++)
    if (write(file, page, sizeof page) != sizeof page) fail("write");
  pthread_t thread;
  pthread_create(&thread, NULL, reader, NULL);
  for (int round = 0; round < ROUNDS; round++) {
    char* const at = mmap(NULL, sizeof page * FILE_PAGES, PROT_READ, MAP_PRIVATE, file, 0);
    if (at == MAP_FAILED) fail("no mapping");
    read_now = at;
    for (volatile int i = 0; i < 20000; i++) continue;
    if (mprotect(at, sizeof page * FILE_PAGES, PROT_READ | PROT_WRITE) != 0) fail("mprotect");
    at[1] = 2;
    for (volatile int i = 0; i < 20000; i++) continue;
    read_now = NULL;
    reader_rests = 0;
    while (!reader_rests) continue;
    for (size_t i = 0; i < FILE_PAGES * sizeof page; i++)
      if (at[i] != (i == 1 ? 2 : 1)) fail("byte %zu is %d", i, at[i]);
    munmap(at, sizeof page * FILE_PAGES);
  }
  reader_ends = 1;
  pthread_join(thread, NULL);
}

static const struct {
  const char* name;
  void (*run)(void);
} cases[] = {
    {"fresh", fresh},
    {"convert", convert},
};

int main(int argc, char** argv) {
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    if (argc > 1 && strcmp(argv[1], cases[i].name) == 0) {
      cases[i].run();
      puts("done");
      return 0;
    }
  fail("no such case");
}
