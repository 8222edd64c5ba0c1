/* Programs that fit in memory, so that what is left to see is the price of being traced and mapped
 * differently: cpu N      arithmetic on a table that stays in the processor's cache, N rounds malloc N   N
 * rounds of allocating, writing and freeing blocks of 16 bytes to 256 KiB io N       N rounds of a 64-byte
 * read, a 64-byte write and a stat Prints the nanoseconds of the work itself, without the program's start. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "remote.h"

static uint64_t state = 88172645463325252ull;

static uint64_t next(void) { /* Marsaglia's xorshift64 */
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

static uint64_t cpu(size_t rounds) {
  static uint64_t table[4096];
  for (size_t i = 0; i < rounds; i++) table[next() & 4095] += next() * 2654435761u;
  uint64_t sum = 0;
  for (size_t i = 0; i < 4096; i++) sum += table[i];
  return sum;
}

static uint64_t blocks(size_t rounds) {
  static unsigned char* kept[512];
  uint64_t sum = 0;
  for (size_t i = 0; i < rounds; i++) {
    const size_t at = next() % 512, bytes = 16ul << (next() % 15);
    if (kept[at] != NULL) sum += kept[at][0];
    free(kept[at]);
    kept[at] = malloc(bytes);
    if (kept[at] == NULL) give_up("no memory");
    memset(kept[at], (int)i, bytes < 512 ? bytes : 512);
    kept[at][bytes - 1] = 1;
  }
  return sum;
}

static uint64_t io(size_t rounds) {
  char name[] = "/tmp/elasticos-bench-XXXXXX";
  const int fd = mkstemp(name);
  unsigned char block[64] = {0};
  struct stat status;
  uint64_t sum = 0;
  if (fd < 0 || ftruncate(fd, 1 << 16) != 0) give_up("no temporary file");
  for (size_t i = 0; i < rounds; i++) {
    const off_t at = (off_t)(next() % 1024 * 64);
    if (pread(fd, block, sizeof block, at) != sizeof block) give_up("read failed");
    block[0]++;
    if (pwrite(fd, block, sizeof block, at) != sizeof block) give_up("write failed");
    if (stat(name, &status) != 0) give_up("stat failed");
    sum += (uint64_t)status.st_size;
  }
  unlink(name);
  return sum;
}

int main(int argc, char** argv) {
  if (argc != 3) give_up("usage: fits cpu|malloc|io N");
  const size_t rounds = strtoul(argv[2], NULL, 10);
  const uint64_t from = now_ns();
  const uint64_t sum = argv[1][0] == 'c' ? cpu(rounds) : argv[1][0] == 'm' ? blocks(rounds) : io(rounds);
  const uint64_t took = now_ns() - from;
  fprintf(stderr, "sum %lu\n", sum);
  printf("%lu\n", took);
  return 0;
}
