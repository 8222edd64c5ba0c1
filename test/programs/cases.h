/*
 * A program of several cases, one of which it runs: what they share. Every case prints the same under
 * elasticos as without. Needs _GNU_SOURCE.
 */
#pragma once

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "check.h"

static const int anonymous = MAP_PRIVATE | MAP_ANONYMOUS;

static inline char* map(size_t bytes, int protection, int flags) {
  char* const at = mmap(NULL, bytes, protection, flags, -1, 0);
  if (at == MAP_FAILED) fail("no memory");
  return at;
}

static inline void expect_error(const char* what, int failed, int error) {
  if (!failed || errno != error) fail("%s: %s", what, failed ? strerror(errno) : "done");
}

struct test_case {
  const char* name;
  void (*run)(void);
};

/* The one that the first argument names. The list ends with an empty one. */
static inline int run_case(const struct test_case* list, int argc, char** argv) {
  for (; list->name != NULL; list++)
    if (argc > 1 && strcmp(argv[1], list->name) == 0) {
      list->run();
      puts("done");
      return 0;
    }
  fail("no such case");
}
