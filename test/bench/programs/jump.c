/* Jumps, as many as asked for: touches pages of an array that is on another node, and after each touch makes
 * a system call, which brings the thread home again. Run with --jump-every 1; the pagers time the jumps
 * (jumpUs), because a thread that asks for the time goes home for it.
 *
 * Arguments: PAGES (a power of two), LIMIT (pages), TOUCHES. */
#include <sys/syscall.h>
#include <unistd.h>

#include "remote.h"

int main(int argc, char** argv) {
  if (argc != 4) give_up("usage: jump PAGES LIMIT TOUCHES");
  const size_t pages = strtoul(argv[1], NULL, 10), limit = strtoul(argv[2], NULL, 10);
  const size_t touches = strtoul(argv[3], NULL, 10), stride = stride_of(pages);
  unsigned char* array = filled(pages, 9);
  size_t done = 0, wrong = 0;
  for (size_t i = 0, page = 0; i < pages && done < touches; i++, page = (page + stride) & (pages - 1)) {
    if (page + limit >= pages) continue;
    wrong += !is_right(array, page, 9);
    done++;
    syscall(SYS_getppid);
  }
  printf("%zu wrong of %zu\n", wrong, done);
  return wrong != 0;
}
