/*
 * What a program reads of its own mappings in /proc/self/maps and what depends on it. Lines are printed where
 * they are the same wherever the memory is; what lies elsewhere in each run is compared with what is known.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cases.h"

static char* const area = (char*)0x200000000000;  // nothing else is mapped near it
static char text[4 << 20];                        // the list, as read last

static void read_all(int fd) {
  if (fd < 0) fail("maps: %s", strerror(errno));
  size_t length = 0;
  ssize_t got;
  while ((got = read(fd, text + length, sizeof text - 1 - length)) > 0) length += (size_t)got;
  text[length] = 0;
  if (length == 0 || text[length - 1] != '\n') fail("maps: %zu bytes", length);
}

static void look(void) {
  const int fd = open("/proc/self/maps", O_RDONLY);
  read_all(fd);
  close(fd);
}

/* The line of the list with `at` in it, as a string; NULL: it is not mapped. */
static char* line_of(const void* at) {
  static char line[8192];
  for (const char* p = text; *p != 0; p = strchr(p, '\n') + 1) {
    uintptr_t start, end;
    if (sscanf(p, "%lx-%lx", &start, &end) != 2) fail("not a line: %.80s", p);
    if ((uintptr_t)at < start || (uintptr_t)at >= end) continue;
    snprintf(line, sizeof line, "%.*s", (int)(strchr(p, '\n') - p), p);
    return line;
  }
  return NULL;
}

/* Prints what lies in the area, every line of it; returns how many there are. */
static int show_area(const char* what, int print) {
  look();
  if (print) printf("%s:\n", what);
  int lines = 0;
  for (const char* p = text; *p != 0; p = strchr(p, '\n') + 1) {
    const uintptr_t start = strtoull(p, NULL, 16);
    if (start < (uintptr_t)area || start >= (uintptr_t)area + (1 << 30)) continue;
    if (print) printf("  %.*s\n", (int)(strchr(p, '\n') - p), p);
    lines++;
  }
  return lines;
}

static char* put(size_t first, size_t pages, int protection, int flags, int fd, off_t offset) {
  char* at = mmap(area + first * PAGE_BYTES, pages * PAGE_BYTES, protection, flags | MAP_FIXED, fd, offset);
  if (at == MAP_FAILED) fail("mmap at page %zu: %s", first, strerror(errno));
  return at;
}

static int make_file(size_t bytes) {
  char name[] = "/tmp/proc-maps-XXXXXX";
  const int fd = mkstemp(name);
  if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0) fail("a file: %s", strerror(errno));
  unlink(name);
  return fd;
}

/* The file that backs `at` must be shown as it is. */
static void expect_file(const void* at, int fd, const char* what) {
  struct stat info;
  char link[64], path[4096] = {0}, line[8192], device[16];
  unsigned long inode;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  if (fstat(fd, &info) != 0 || readlink(link, path, sizeof path - 1) < 0) fail("%s: no file", what);
  const char* found = line_of(at);
  if (found == NULL || sscanf(found, "%*s %*s %*s %15s %lu %8191[^\n]", device, &inode, line) != 3)
    fail("%s: %s", what, found);
  char expected[16];
  snprintf(expected, sizeof expected, "%02x:%02x", major(info.st_dev), minor(info.st_dev));
  if (strcmp(device, expected) != 0 || inode != info.st_ino || strcmp(line, path) != 0)
    fail("%s: %s %lu %s, not %s %lu %s", what, device, inode, line, expected, info.st_ino, path);
}

/* Prints the line of `at` from its protection on, with its distance to `base` in front. */
static void show_rest(const char* what, const void* at, const char* base) {
  const char* line = line_of(at);
  if (line == NULL) fail("%s is not in the list", what);
  uintptr_t start, end;
  sscanf(line, "%lx-%lx", &start, &end);
  printf("%s: +%lx, %lx bytes%s\n", what, start - (uintptr_t)base, end - start, strchr(line, ' '));
}

static int initialised = 1;
static char zeros[64 << 10];
static const int constant = 1;

__attribute__((noinline)) static uintptr_t deep(void) {
  volatile char frame[1 << 20];
  frame[0] = 1;
  look();
  return (uintptr_t)frame;
}

static void image(void) {
  look();
  extern char __executable_start;
  show_rest("headers", &__executable_start, &__executable_start);
  show_rest("code", (void*)(uintptr_t)image, &__executable_start);
  show_rest("constants", &constant, &__executable_start);
  show_rest("data", &initialised, &__executable_start);
  show_rest("bss", zeros + sizeof zeros - 1, &__executable_start);
  if (strstr(text, "memfd") != NULL) fail("a memory file is shown");
  if (strtoull(text, NULL, 16) < (uintptr_t)&__executable_start) fail("first: %.80s", text);
  if (sbrk(300 << 10) == (void*)-1) fail("sbrk");
  look();
  uintptr_t end = 0;
  const char* heap = line_of((char*)sbrk(0) - 1);
  if (heap == NULL || sscanf(heap, "%*x-%lx", &end) != 1 || strstr(heap, " [heap]") == NULL ||
      end != (((uintptr_t)sbrk(0) + PAGE_BYTES - 1) & -(uintptr_t)PAGE_BYTES))
    fail("heap: %s", heap);
  void* local = &end;
  uintptr_t start = 0;
  look();
  const char* used = line_of(local);
  if (used == NULL || sscanf(used, "%lx-%lx", &start, &end) != 2 || strstr(used, " [stack]") == NULL ||
      end - start > 1 << 20)
    fail("stack: %s", used);
  printf("stack up to %lx\n", end);
  const uintptr_t lowest = deep();
  if (sscanf(line_of(local), "%lx", &start) != 1 || start > lowest) fail("deep: %s", line_of(local));
}

static void changes(void) {
  put(0, 16, PROT_READ | PROT_WRITE, anonymous, -1, 0);
  show_area("mapped", 1);
  if (mprotect(area + 4 * PAGE_BYTES, 4 * PAGE_BYTES, PROT_READ) != 0) fail("mprotect");
  if (mprotect(area + 12 * PAGE_BYTES, PAGE_BYTES, PROT_NONE) != 0) fail("mprotect");
  if (mprotect(area + 13 * PAGE_BYTES, PAGE_BYTES, PROT_READ | PROT_EXEC) != 0) fail("mprotect");
  show_area("protected", 1);
  if (munmap(area + 5 * PAGE_BYTES, PAGE_BYTES) != 0) fail("munmap");
  show_area("a hole", 1);
  if (mprotect(area, 5 * PAGE_BYTES, PROT_READ | PROT_WRITE) != 0) fail("mprotect");
  put(16, 16, PROT_READ | PROT_WRITE, anonymous, -1, 0);
  show_area("joined", 1);
  if (madvise(area + 20 * PAGE_BYTES, PAGE_BYTES, MADV_DONTFORK) != 0) fail("madvise");
  show_area("advised", 1);
  if (munmap(area, 64 * PAGE_BYTES) != 0) fail("munmap");
  printf("%d lines left\n", show_area("", 0));
}

static void files(void) {
  const int fd = make_file(16 * PAGE_BYTES);
  put(0, 4, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 2 * PAGE_BYTES)[0] = 1;
  put(4, 4, PROT_READ, MAP_PRIVATE, fd, 8 * PAGE_BYTES);
  put(8, 4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  put(12, 8, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 12 * PAGE_BYTES);  // four beyond the end
  look();
  for (size_t page = 0; page < 20; page += 4) expect_file(area + page * PAGE_BYTES, fd, "mapped");
  printf("%d lines\n", show_area("", 0));
  if (mprotect(area + 5 * PAGE_BYTES, PAGE_BYTES, PROT_READ | PROT_WRITE) != 0) fail("mprotect");
  if (mprotect(area + PAGE_BYTES, PAGE_BYTES, PROT_READ) != 0) fail("mprotect");
  printf("%d lines\n", show_area("", 0));
  for (int page = 0; page < 20; page++) {
    char words[64], *line = line_of(area + page * PAGE_BYTES);
    expect_file(area + page * PAGE_BYTES, fd, "changed");
    snprintf(words, sizeof words, "%s", line);
    printf("%.*s\n", (int)(strchr(strchr(strchr(words, ' ') + 1, ' ') + 1, ' ') - words), words);
  }
}

static void many(void) {
  enum { MANY = 10000 };
  put(0, MANY, PROT_READ | PROT_WRITE, anonymous, -1, 0);
  for (size_t page = 0; page < MANY; page += 2)
    if (mprotect(area + page * PAGE_BYTES, PAGE_BYTES, PROT_READ) != 0) fail("mprotect");
  printf("%d lines\n", show_area("", 0));
}

static void* other_thread(void* unused) {
  (void)unused;
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/task/%ld/maps", getpid(), syscall(SYS_gettid));
  read_all(open(path, O_RDONLY));
  if (line_of(area) == NULL) fail("by task");
  read_all(open("/proc/thread-self/maps", O_RDONLY));
  if (line_of(area) == NULL) fail("by thread");
  return NULL;
}

/* All the names it has, and files that have its name. */
static void names(void) {
  put(0, 1, PROT_READ, anonymous, -1, 0);
  static char expected[8192];
  look();
  snprintf(expected, sizeof expected, "%s", line_of(area));
  char own[64];
  snprintf(own, sizeof own, "/proc/%d/maps", getpid());
  const int self = open("/proc/self", O_PATH | O_DIRECTORY), before = dup(0);
  close(before);
  const char* const ways[] = {"/proc/self/maps", "/proc//self/../self/maps", own, "maps", "self/maps"};
  for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
    if (i == 3 && chdir("/proc/self") != 0) fail("chdir");
    if (i == 4 && chdir("/proc") != 0) fail("chdir");
    const int fd = (int)syscall(SYS_open, ways[i], O_RDONLY);
    if (fd != before) fail("%s: descriptor %d, not %d", ways[i], fd, before);
    read_all(fd);
    close(fd);
    if (strcmp(line_of(area), expected) != 0) fail("%s: %s", ways[i], line_of(area));
  }
  read_all(openat(self, "maps", O_RDONLY | O_CLOEXEC));
  if (strcmp(line_of(area), expected) != 0) fail("from a directory: %s", line_of(area));
  printf("close on exec: %d\n", fcntl(before, F_GETFD));
  pthread_t thread;
  if (pthread_create(&thread, NULL, other_thread, NULL) != 0 || pthread_join(thread, NULL) != 0)
    fail("a thread");
  char directory[] = "/tmp/proc-maps-XXXXXX", path[64];
  if (mkdtemp(directory) == NULL) fail("a directory");
  snprintf(path, sizeof path, "%s/maps", directory);
  const int made = open(path, O_CREAT | O_RDWR, 0600);
  if (write(made, "mine\n", 5) != 5) fail("write");
  read_all(open(path, O_RDONLY));
  printf("a file of that name: %s", text);
  unlink(path);
  rmdir(directory);
  const pid_t child = fork();
  if (child == 0) {
    pause();
    _Exit(0);
  }
  snprintf(path, sizeof path, "/proc/%d/maps", child);
  read_all(open(path, O_RDONLY));
  printf("a child's: %s\n", line_of(area) != NULL ? "is there" : "is not");
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  printf("errors: %d", open("/proc/self/maps/", O_RDONLY) < 0 ? errno : 0);
  printf(" %d", open((const char*)8, O_RDONLY) < 0 ? errno : 0);
  static char longest[PAGE_BYTES + 100];
  memset(longest, 'x', sizeof longest - 1);
  printf(" %d\n", open(longest, O_RDONLY) < 0 ? errno : 0);
}

/* Every open reads from its start, and again when it is rewound. */
static void offsets(void) {
  const int one = open("/proc/self/maps", O_RDONLY), two = open("/proc/self/maps", O_RDONLY);
  read_all(one);
  static char first[sizeof text];
  strcpy(first, text);
  read_all(two);
  if (lseek(one, 0, SEEK_SET) != 0) fail("lseek");
  read_all(one);
  if (strcmp(first, text) != 0) fail("another text when rewound");
  if (write(one, "x", 1) >= 0) fail("written to");
  FILE* file = fopen("/proc/self/maps", "r");
  char line[8192];
  int lines = 0;
  while (file != NULL && fgets(line, sizeof line, file) != NULL) lines++;
  if (lines < 10) fail("%d lines", lines);
}

/* The path lies in memory that has been pushed away, and across the edge of a page. */
static void away(void) {
  enum { PAGES = 4096 };
  char* const at = map(PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, anonymous);
  char* const crossing = at + 8 * PAGE_BYTES - 7;
  strcpy(at, "/proc/self/maps");
  strcpy(crossing, "/proc/self/maps");
  for (size_t page = 16; page < PAGES; page++) memset(at + page * PAGE_BYTES, (int)page, PAGE_BYTES);
  read_all(open(at, O_RDONLY));
  if (strstr(text, "memfd") != NULL) fail("from memory that was away");
  read_all(open(crossing, O_RDONLY));
  if (strstr(text, "memfd") != NULL) fail("across pages");
}

/* What the C library makes of it: the main thread's stack. */
static void main_stack(void) {
  pthread_attr_t attributes;
  void* address = NULL;
  size_t bytes = 0;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0 ||
      pthread_attr_getstack(&attributes, &address, &bytes) != 0)
    fail("pthread_getattr_np");
  printf("stack: %zu bytes up to %p\n", bytes, (void*)((char*)address + bytes));
}

static const struct test_case cases[] = {
    {"image", image},     {"changes", changes}, {"files", files},      {"many", many}, {"names", names},
    {"offsets", offsets}, {"away", away},       {"stack", main_stack}, {NULL, NULL},
};

int main(int argc, char** argv) { return run_case(cases, argc, argv); }
