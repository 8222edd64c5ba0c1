/*
 * A process that executes itself: the second image, which needs more memory than the limit, is started by the
 * first after it filled some pages, and the third by a thread of the second (which takes over the leader's
 * id). Each image must start with memory of its own, and its arguments and environment. Arguments: pages,
 * stage.
 */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "check.h"

static uint64_t fresh[PAGE_WORDS * 256];
static char *self, *pages_text;

static void execute(char* stage) {
  char* const arguments[] = {self, pages_text, stage, "a last argument", NULL};
  char* const environment[] = {"STAGE_BEFORE=yes", "LC_ALL=C", NULL};
  execve("/proc/self/exe", arguments, environment);
  fail("execve");
}

static void* execute_from_thread(void* stage) {
  execute(stage);
  return NULL;
}

int main(int argc, char** argv) {
  const uint64_t pages = number(argc, argv, 1, 3000), stage = number(argc, argv, 2, 1);
  self = argv[0];
  pages_text = argc > 1 ? argv[1] : "3000";
  verify_zero(fresh, 256, "static memory of a new image");
  fill(fresh, 256, stage);
  if (stage > 1) {
    const char* before = getenv("STAGE_BEFORE");
    if (argc != 4 || strcmp(argv[3], "a last argument") != 0) fail("stage %lu: arguments lost", stage);
    if (before == NULL || strcmp(before, "yes") != 0) fail("stage %lu: environment lost", stage);
  }
  const uint64_t own = stage == 1 ? 100 : pages;
  uint64_t* array = malloc(own * PAGE_BYTES);
  if (array == NULL) fail("no memory");
  for (uint64_t pass = 0; pass < 2; pass++) {
    fill(array, own, stage * 100 + pass);
    verify(array, own, stage * 100 + pass, "array");
  }
  verify(fresh, 256, stage, "static memory");
  printf("image %lu: all right\n", stage);
  fflush(stdout);
  if (stage == 1) execute("2");
  if (stage == 2) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, execute_from_thread, "3") != 0) fail("no thread");
    pthread_join(thread, NULL);
  }
  return 0;
}
