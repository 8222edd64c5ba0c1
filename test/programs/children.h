/* For programs with children: their ends. */
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

/* It has ended with this status of waitpid. */
static inline void expect_status(pid_t pid, int wanted, const char* what) {
  int status = 0;
  if (pid < 0 || waitpid(pid, &status, 0) != pid) fail("%s: no child", what);
  if (status != wanted) fail("%s: a child ended with %#x", what, status);
}

static inline void expect_right(pid_t pid, const char* what) { expect_status(pid, 0, what); }
