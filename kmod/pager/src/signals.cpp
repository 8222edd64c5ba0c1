// See signals.hpp.
#include "signals.hpp"

namespace elastic {

namespace {
constexpr SignalSet bit(int signal) { return SignalSet{1} << (signal - 1); }
// Not ends of a process, or not to be ignored: an ignored SIGCHLD would take children's ends away.
constexpr SignalSet kLeftAlone = bit(SIGKILL) | bit(SIGSTOP) | bit(SIGCHLD) | bit(SIGCONT);
}  // namespace

SignalSet outlive_signals() {
  SignalSet ignored = 0;
  for (int signal = 1; signal <= 64; signal++) {
    struct sigaction before {};
    if ((kLeftAlone & bit(signal)) != 0 || sigaction(signal, nullptr, &before) != 0) continue;
    if (before.sa_handler == SIG_IGN) ignored |= bit(signal);
    ::signal(signal, SIG_IGN);
  }
  return ignored;
}

void restore_signals(SignalSet ignored) {
  for (int signal = 1; signal <= 64; signal++)
    if ((kLeftAlone & bit(signal)) == 0) ::signal(signal, (ignored & bit(signal)) != 0 ? SIG_IGN : SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

}  // namespace elastic
