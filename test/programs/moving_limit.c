/*
 * Walks over its memory until there is a file `done` in its directory, and once more: every page has to be as
 * it was left, however much of it may be here meanwhile. Arguments: pages.
 */
#include <unistd.h>

#include "ballast.h"

int main(int argc, char** argv) {
  const uint64_t pages = number(argc, argv, 1, 6000);
  struct ballast memory = ballast_make(pages);
  while (access("done", F_OK) != 0) ballast_walk(&memory, pages);
  ballast_walk(&memory, pages);
  printf("%lu pages\n", pages);
  return 0;
}
