/* A stretched program that has time: fills PAGES pages, then writes one of them every 100 ms until it is
 * ended.
 *
 * Arguments: PAGES. */
#include "remote.h"

int main(int argc, char** argv) {
  if (argc != 2) give_up("usage: linger PAGES");
  const size_t pages = strtoul(argv[1], NULL, 10);
  volatile unsigned char* array = filled(pages, 5);
  const struct timespec pause = {.tv_nsec = 100 * 1000 * 1000};
  for (size_t page = 0;; page = (page + 7) % pages) {
    array[page * 4096]++;
    nanosleep(&pause, NULL);
  }
}
