/*
 * Memory calls whose effect on contents, not only whose answer, has to be as it is alone.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cases.h"

enum { PAGES = 16 };
static const size_t length = PAGES * PAGE_BYTES;

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

/* Where elasticos has pages of its own, which no call may change. Alone there is nothing. */
static void reserved(void) {
  char* const at = (char*)0x100000;
  if (munmap(at, PAGE_BYTES) == 0) return; /* alone */
  expect_error("munmap", munmap(at - 4 * PAGE_BYTES, 9 * PAGE_BYTES) != 0, EINVAL);
  expect_error("mmap", mmap(at, length, PROT_READ, anonymous | MAP_FIXED, -1, 0) == MAP_FAILED, ENOMEM);
  expect_error("mprotect", mprotect(at, PAGE_BYTES, PROT_READ | PROT_WRITE) != 0, ENOMEM);
  expect_error("madvise", madvise(at, PAGE_BYTES, MADV_DONTNEED) != 0, ENOMEM);
  expect_error("mremap", mremap(at, PAGE_BYTES, 2 * PAGE_BYTES, MREMAP_MAYMOVE) == MAP_FAILED, EFAULT);
  static const int kinds[] = {MAP_PRIVATE | MAP_ANONYMOUS, MAP_SHARED | MAP_ANONYMOUS};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    char* const mine = map(length, PROT_READ | PROT_WRITE, kinds[i]);
    expect_error("mremap there",
                 mremap(mine, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, at - PAGE_BYTES) == MAP_FAILED,
                 EINVAL);
    char* const hinted = mmap(at, length, PROT_READ | PROT_WRITE, kinds[i], -1, 0);
    if (hinted == MAP_FAILED || hinted == at) fail("mmap with a hint: %p", (void*)hinted);
    hinted[0] = 1;
  }
  const int id = shmget(IPC_PRIVATE, length, 0600 | IPC_CREAT);
  const int failed = shmat(id, at - PAGE_BYTES, SHM_REMAP) == (void*)-1;
  const int error = errno;
  shmctl(id, IPC_RMID, NULL);
  errno = error;
  expect_error("shmat", failed, EINVAL);
  const int large = shmget(IPC_PRIVATE, 4 << 20, 0600 | IPC_CREAT);
  if (shmat(large, NULL, 0) == (void*)-1) fail("shmat where the kernel likes: %s", strerror(errno));
  shmctl(large, IPC_RMID, NULL);
}

/* What the program's file says, after advice that it is not needed as it is; and what was never written. */
static void own_data(void) {
  enum { WORDS = 4 * PAGE_BYTES / sizeof(int) };
  static _Alignas(PAGE_BYTES) int data[WORDS] = {[1] = 5, [WORDS / 2] = 6, [WORDS - 1] = 7};
  for (int round = 0; round < 2; round++) {
    for (int i = 0; i < WORDS; i++)
      if (data[i] != (i == 1) * 5 + (i == WORDS / 2) * 6 + (i == WORDS - 1) * 7) fail("%d is %d", i, data[i]);
    for (int i = 0; i < WORDS; i++) data[i] = -i;
    for (int i = 0; i < WORDS; i++)
      if (data[i] != -i) fail("%d is %d, after it was written", i, data[i]);
    if (madvise(data, sizeof data, MADV_DONTNEED) != 0) fail("madvise: %s", strerror(errno));
  }
}

/* Files of huge pages; how many there are to touch does not matter. */
static void huge(void) {
  const int file = memfd_create("huge", MFD_HUGETLB);
  if (file < 0) return;
  const size_t bytes = 4 << 20;
  if (ftruncate(file, (off_t)bytes) != 0) fail("ftruncate");
  char* const at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
  if (at == MAP_FAILED) fail("mmap: %s", strerror(errno));
  char* const odd = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
  if (odd == MAP_FAILED) fail("mmap of a page: %s", strerror(errno));
  char* const inside = odd + PAGE_BYTES;
  expect_error("inside a huge page",
               mmap(inside, PAGE_BYTES, PROT_READ, anonymous | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED,
               EEXIST);
  if (munmap(at, bytes) != 0) fail("munmap: %s", strerror(errno));
}

/* Promises about paging: what they answer. */
static void promises(void) {
  char* const at = map(length, PROT_READ | PROT_WRITE, anonymous);
  char* const hole = at + 4 * PAGE_BYTES;
  munmap(hole, PAGE_BYTES);
  mprotect(at + 8 * PAGE_BYTES, PAGE_BYTES, PROT_READ);
  if (madvise(at, 4 * PAGE_BYTES, MADV_POPULATE_WRITE) != 0) fail("populate: %s", strerror(errno));
  if (madvise(at + 8 * PAGE_BYTES, PAGE_BYTES, MADV_POPULATE_READ) != 0) fail("populate to read");
  expect_error("populate a hole", madvise(at, length, MADV_POPULATE_READ) != 0, ENOMEM);
  expect_error("populate what is read-only",
               madvise(at + 5 * PAGE_BYTES, 4 * PAGE_BYTES, MADV_POPULATE_WRITE) != 0, EINVAL);
  if (mlock(at + 1, PAGE_BYTES) != 0 || munlock(at, 2 * PAGE_BYTES) != 0) fail("mlock: %s", strerror(errno));
  expect_error("mlock of a hole", mlock(hole - 1, 2) != 0, ENOMEM);
  expect_error("munlock of a hole", munlock(hole, 1) != 0, ENOMEM);
  expect_error("mlock2", mlock2(at, PAGE_BYTES, 99) != 0, EINVAL);
  expect_error("mlockall", mlockall(0) != 0, EINVAL);
  expect_error("mlockall on fault alone", mlockall(MCL_ONFAULT) != 0, EINVAL);
}

static int grow(char** at, size_t* bytes, int flags) {
  char* const grown = mremap(*at, *bytes, *bytes * 2, flags);
  if (grown == MAP_FAILED) return errno;
  *at = grown;
  *bytes *= 2;
  return 0;
}

/* What was said of a mapping for forks is true of what grows out of it, in place or elsewhere. */
static void fork_advice(void) {
  static const int kinds[] = {MADV_WIPEONFORK, MADV_DONTFORK};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    char* at = map(64 * length, PROT_READ | PROT_WRITE, anonymous);
    munmap(at + length, 63 * length);
    size_t bytes = length;
    if (madvise(at, bytes, kinds[i]) != 0) fail("madvise: %s", strerror(errno));
    for (int step = 0; step < 4; step++) {
      if (step == 2 && mmap(at + bytes, PAGE_BYTES, PROT_NONE, anonymous | MAP_FIXED, -1, 0) == MAP_FAILED)
        fail("no wall");
      const int error = grow(&at, &bytes, MREMAP_MAYMOVE);
      if (error != 0) fail("step %d: %s", step, strerror(error));
      memset(at, 7, bytes);
    }
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
      unsigned char there;
      for (size_t b = 0; b < bytes; b += PAGE_BYTES) {
        const int absent = mincore(at + b, PAGE_BYTES, &there) != 0;
        if (absent != (kinds[i] == MADV_DONTFORK) || (!absent && at[b] != 0)) _exit(1);
      }
      _exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0)
      fail("a child has page(s) of advice %d", kinds[i]);
    for (size_t b = 0; b < bytes; b++)
      if (at[b] != 7) fail("byte %zu changed", b);
  }
}

static const struct test_case cases[] = {
    {"fresh", fresh},       {"convert", convert},   {"reserved", reserved},       {"huge", huge},
    {"own-data", own_data}, {"promises", promises}, {"fork-advice", fork_advice}, {NULL, NULL},
};

int main(int argc, char** argv) { return run_case(cases, argc, argv); }
