/*
 * Timers and what they raise: alarm, timer_create with a signal, with a thread and with the processor time of
 * a thread, timerfd under poll, SIGCHLD of children, signals taken by sigwaitinfo and signalfd, handlers on
 * an alternate stack that leave by siglongjmp. The main thread walks over memory larger than the limit
 * meanwhile. Arguments: pages, signals of each kind.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ballast.h"

enum { STEP = 50, EVERY_NS = 2000000 };

static struct ballast ballast;
static uint64_t wanted;
static _Atomic uint64_t by_signal, by_thread, by_alarm, children;
static sigjmp_buf out;

static void on_timer(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)context;
  if (info->si_code != SI_TIMER || info->si_value.sival_int != 77)
    fail("a timer's signal says %d", info->si_code);
  atomic_fetch_add(&by_signal, 1);
}

static void on_timer_thread(union sigval value) {
  if (value.sival_int != 78) fail("a timer's thread got %d", value.sival_int);
  atomic_fetch_add(&by_thread, 1);
}

static void on_child(int signal) {
  (void)signal;
  int status;
  while (waitpid(-1, &status, WNOHANG) > 0) {
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 5) fail("a child ended with %#x", status);
    atomic_fetch_add(&children, 1);
  }
}

static void on_alarm(int signal) {
  (void)signal;
  atomic_fetch_add(&by_alarm, 1);
  siglongjmp(out, 1);
}

static void handle(int signal, void (*handler)(int), int flags) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
  if (sigaction(signal, &action, NULL) != 0) fail("sigaction");
}

static timer_t start_timer(clockid_t clock, struct sigevent* event) {
  timer_t timer;
  const struct itimerspec every = {{0, EVERY_NS}, {0, EVERY_NS}};
  if (timer_create(clock, event, &timer) != 0) fail("timer_create");
  if (timer_settime(timer, 0, &every, NULL) != 0) fail("timer_settime");
  return timer;
}

static void posix_timers(void) {
  struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
  sigaction(SIGRTMIN, &action, NULL);
  struct sigevent signal = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value = {77}};
  struct sigevent thread = {
      .sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_timer_thread, .sigev_value = {78}};
  const timer_t timers[] = {start_timer(CLOCK_MONOTONIC, &signal), start_timer(CLOCK_REALTIME, &thread),
                            start_timer(CLOCK_THREAD_CPUTIME_ID, &signal)};
  while (by_signal < wanted || by_thread < wanted) ballast_walk(&ballast, STEP);
  for (int i = 0; i < 3; i++) timer_delete(timers[i]);
}

static void timer_descriptor(void) {
  const int fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK);
  const struct itimerspec every = {{0, EVERY_NS}, {0, EVERY_NS}};
  if (fd < 0 || timerfd_settime(fd, 0, &every, NULL) != 0) fail("timerfd");
  for (uint64_t expired = 0, count = 0; expired < wanted; expired += count) {
    ballast_walk(&ballast, STEP);
    struct pollfd wait = {fd, POLLIN, 0};
    if (poll(&wait, 1, 10000) != 1) fail("a timer's descriptor is never ready");
    if (read(fd, &count, sizeof count) != sizeof count || count == 0) fail("reading a timer");
  }
  close(fd);
}

/* Leaves the handler by siglongjmp, out of a walk in which every page is in its old or in its new state. */
static void alarms(void) {
  handle(SIGVTALRM, on_alarm, SA_ONSTACK | SA_NODEFER);
  struct sigevent signal = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGVTALRM};
  const timer_t timer = start_timer(CLOCK_MONOTONIC, &signal);
  volatile uint64_t sum = 0;
  while (by_alarm < wanted)
    if (sigsetjmp(out, 1) == 0)
      for (uint64_t page = 0;; page = (page + 1) % ballast.pages) sum += ballast.words[page * PAGE_WORDS];
  const sigset_t set = {{1ul << (SIGVTALRM - 1)}};
  sigprocmask(SIG_BLOCK, &set, NULL);
  timer_delete(timer);
  handle(SIGVTALRM, SIG_IGN, 0);
  sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void one_alarm(void) {
  sigset_t set, before;
  sigemptyset(&set);
  sigaddset(&set, SIGALRM);
  sigprocmask(SIG_BLOCK, &set, &before);
  alarm(1);
  siginfo_t info;
  if (sigwaitinfo(&set, &info) != SIGALRM || info.si_code != SI_KERNEL) fail("sigwaitinfo");
  const int fd = signalfd(-1, &set, 0);
  struct signalfd_siginfo read_info;
  ballast_walk(&ballast, ballast.pages / 2);
  kill(getpid(), SIGALRM);
  if (read(fd, &read_info, sizeof read_info) != sizeof read_info || read_info.ssi_signo != SIGALRM)
    fail("signalfd");
  if (read_info.ssi_pid != (uint32_t)getpid()) fail("the signal came from %u", read_info.ssi_pid);
  close(fd);
  sigprocmask(SIG_SETMASK, &before, NULL);
}

static void child_signals(void) {
  handle(SIGCHLD, on_child, SA_RESTART | SA_ONSTACK);
  const uint64_t count = wanted / 4 + 1;
  for (uint64_t i = 0; i < count; i++) {
    const pid_t pid = fork();
    if (pid < 0) fail("fork");
    if (pid == 0) _exit(5);
    ballast_walk(&ballast, STEP);
  }
  while (children < count) ballast_walk(&ballast, STEP);
  handle(SIGCHLD, SIG_DFL, 0);
}

int main(int argc, char** argv) {
  ballast = ballast_make(number(argc, argv, 1, 3000));
  wanted = number(argc, argv, 2, 20);
  const stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
  sigaltstack(&stack, NULL);
  posix_timers();
  timer_descriptor();
  alarms();
  one_alarm();
  child_signals();
  ballast_walk(&ballast, ballast.pages);
  puts("timers: all right");
  return 0;
}
