/* Reads memory that is all on other nodes from its beginning to its end; each page that comes sends one away.
 * Prints nanoseconds for each window of so many pages.
 *
 * Arguments: PAGES, LIMIT (pages: so many are written afterwards, so that nothing of the array is left here),
 * WINDOW, PASSES. */
#include "remote.h"

int main(int argc, char** argv) {
  if (argc != 5) give_up("usage: scan PAGES LIMIT WINDOW PASSES");
  const size_t pages = strtoul(argv[1], NULL, 10), limit = strtoul(argv[2], NULL, 10);
  const size_t window = strtoul(argv[3], NULL, 10), passes = strtoul(argv[4], NULL, 10);
  uint64_t* took = malloc(passes * (pages / window + 1) * sizeof *took);
  unsigned char* array = filled(pages, 5);
  unsigned char* other = filled(limit + limit / 4, 3);
  size_t count = 0, wrong = 0;
  memset(took, 0, passes * (pages / window + 1) * sizeof *took);
  for (size_t pass = 0; pass < passes; pass++)
    for (size_t first = 0; first + window <= pages; first += window) {
      const uint64_t from = now_ns();
      for (size_t page = first; page < first + window; page++) wrong += !is_right(array, page, 5);
      took[count++] = now_ns() - from;
    }
  if (wrong != 0 || other[0] != 3) give_up("a page came back wrong");
  for (size_t i = 0; i < count; i++) printf("%lu\n", took[i]);
  return 0;
}
