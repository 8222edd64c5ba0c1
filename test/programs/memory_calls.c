/*
 * Memory calls whose effect on contents, not only whose answer, has to be as it is alone; one case for each argument.
 * Every case prints the same under elasticos as without.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>

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

static const struct {
  const char* name;
  void (*run)(void);
} cases[] = {
    {"fresh", fresh},
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
