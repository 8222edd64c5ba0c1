// Fills an array larger than the memory limit with words none of which is zero, then copies it to a file over
// and over: even pages straight from the array (the kernel touches them), odd ones by way of a small buffer
// (this thread touches them). Word i of the file is pattern(i) at every moment, however the program ends:
// a page of zeros that reached it shows.
//
// copier MEGABYTES FILE ROUNDS      ROUNDS 0: for ever. Prints "filled", then a line after each round.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { kPageBytes = 4096, kPageWords = kPageBytes / 8 };

static uint64_t pattern(uint64_t i) { return (i + 1) * 0x9e3779b97f4a7c15ull | 1; }

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const uint64_t pages = strtoull(argv[1], NULL, 10) << 8;
  const uint64_t rounds = strtoull(argv[3], NULL, 10);
  uint64_t* words = aligned_alloc(kPageBytes, pages * kPageBytes);
  const int file = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (words == NULL || file < 0) return 3;
  for (uint64_t i = 0; i < pages * kPageWords; i++) words[i] = pattern(i);
  puts("filled");
  fflush(stdout);
  static char buffer[kPageBytes];
  for (uint64_t round = 1; rounds == 0 || round <= rounds; round++) {
    if (lseek(file, 0, SEEK_SET) != 0) return 4;
    for (uint64_t page = 0; page < pages; page++) {
      const void* from = words + page * kPageWords;
      if (page % 2 == 1) from = memcpy(buffer, from, kPageBytes);
      if (write(file, from, kPageBytes) != kPageBytes) return 5;
    }
    printf("round %lu\n", (unsigned long)round);
    fflush(stdout);
  }
  return 0;
}
