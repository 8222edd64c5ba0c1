/*
 * Linear search over an array larger than the memory limit: several passes, each for a key whose place is
 * known, and one for a key that is not there. Arguments: pages of the array, passes.
 */
#include "check.h"

static uint64_t search(const uint64_t* array, uint64_t words, uint64_t key) {
  for (uint64_t i = 0; i < words; i++)
    if (array[i] == key) return i;
  return words;
}

int main(int argc, char** argv) {
  const uint64_t pages = number(argc, argv, 1, 6000), passes = number(argc, argv, 2, 4);
  const uint64_t words = pages * PAGE_WORDS;
  uint64_t* array = malloc(pages * PAGE_BYTES);
  if (array == NULL) fail("no memory");
  for (uint64_t i = 0; i < words; i++) array[i] = mix(i + 1); /* a bijection: every key is there once */
  for (uint64_t pass = 0; pass < passes; pass++) {
    const uint64_t place = words - 1 - mix(pass) % (words / 8);
    const uint64_t found = search(array, words, mix(place + 1));
    if (found != place) fail("pass %lu: key found at %lu, it is at %lu", pass, found, place);
    printf("pass %lu: found at %lu\n", pass, found);
  }
  if (search(array, words, mix(0)) != words) fail("found a key that is not there");
  puts("the last key is not there");
  return 0;
}
