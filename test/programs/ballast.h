/*
 * Memory that a program walks over beside what it is about, so that the latter's pages are pushed away and
 * the walker moves. Each page says how often it was visited.
 */
#pragma once

#include "check.h"

struct ballast {
  uint64_t *words, pages, visits;
};

static inline struct ballast ballast_make(uint64_t pages) {
  const struct ballast made = {aligned_alloc(PAGE_BYTES, pages * PAGE_BYTES), pages, 0};
  if (made.words == NULL) fail("no memory for %lu pages", pages);
  for (uint64_t page = 0; page < pages; page++)
    for (uint64_t word = 0; word < PAGE_WORDS; word++) made.words[page * PAGE_WORDS + word] = mix(page);
  return made;
}

/* Visits the next `count` pages, round and round. */
static inline void ballast_walk(struct ballast* ballast, uint64_t count) {
  for (; count > 0; count--, ballast->visits++) {
    const uint64_t page = ballast->visits % ballast->pages, round = ballast->visits / ballast->pages;
    uint64_t* word = ballast->words + page * PAGE_WORDS + round % PAGE_WORDS;
    const uint64_t before = mix(page) + round / PAGE_WORDS;
    if (*word != before) fail("ballast: page %lu in round %lu is %#lx, not %#lx", page, round, *word, before);
    *word += 1;
  }
}
