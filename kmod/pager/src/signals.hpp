// Signals that a process group gets as one: `run`, pager, injector and program are one, so that job control
// works, but such a signal is meant for the program.
#pragma once

#include <csignal>
#include <cstdint>

namespace elastic {

using SignalSet = uint64_t;  // bit n - 1 for signal n

// No signal that can be ignored ends this process from here on. Returns those that it ignored before, which
// is what a program that is started from here expects to inherit.
SignalSet outlive_signals();
// In a new process that becomes somebody else's program: nothing blocked, nothing ignored but `ignored`.
void restore_signals(SignalSet ignored);

// Those that `run` hands on (agent/cli/run/signals.ts). This process keeps them blocked, reads them from a
// signalfd, and so knows which of them have reached the whole group.
constexpr int kHandedOn[] = {SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGWINCH};

}  // namespace elastic
