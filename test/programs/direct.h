/*
 * For programs that read and write a file past the page cache while other memory takes theirs away. Needs
 * _GNU_SOURCE, and a file system that has direct I/O.
 */
#pragma once

#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "cases.h"

enum { CROWD_PAGES = 3000 };

static const char* path;
static uint64_t* crowd;

static inline int open_direct(void) {
  const int file = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);
  if (file < 0) fail("no direct I/O: %s", strerror(errno));
  return file;
}

static inline uint64_t* pages(size_t count) {
  return (uint64_t*)map(count * PAGE_BYTES, PROT_READ | PROT_WRITE, anonymous);
}

static inline uint64_t seed_of(uint64_t block) { return mix(block + 1); }

/* A thread: more memory than there is, so that something leaves all the time. */
static inline void* press(void* argument) {
  atomic_bool* const ends = argument;
  while (!atomic_load(ends))
    for (uint64_t i = 0; i < CROWD_PAGES && !atomic_load(ends); i++) crowd[i * PAGE_WORDS]++;
  return NULL;
}
