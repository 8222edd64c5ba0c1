/* What a pull costs the thread that waits for it: reads each page of an array that has left this node once,
 * in an order that no prefetch guesses, and prints how long each read took, in nanoseconds.
 *
 * Arguments: PAGES (a power of two, several times the memory limit), LIMIT (pages; so many of the array may
 * still be here after filling it, and are left out), SAMPLES. */
#include "remote.h"

int main(int argc, char** argv) {
  if (argc != 4) give_up("usage: pull PAGES LIMIT SAMPLES");
  const size_t pages = strtoul(argv[1], NULL, 10), limit = strtoul(argv[2], NULL, 10);
  const size_t samples = strtoul(argv[3], NULL, 10), stride = stride_of(pages);
  uint32_t* took = malloc(samples * sizeof *took);
  unsigned char* array = filled(pages, 7);
  memset(took, 0, samples * sizeof *took); /* here, and used last */
  size_t count = 0;
  for (size_t i = 0, page = 0; i < pages && count < samples; i++, page = (page + stride) & (pages - 1)) {
    if (page + limit >= pages) continue;
    volatile unsigned char* word = array + page * PAGE;
    const uint64_t from = now_ns();
    const unsigned char seen = *word;
    took[count++] = (uint32_t)(now_ns() - from);
    if (seen != 7 || !is_right(array, page, 7)) give_up("a page came back wrong");
  }
  for (size_t i = 0; i < count; i++) printf("%u\n", took[i]);
  return 0;
}
