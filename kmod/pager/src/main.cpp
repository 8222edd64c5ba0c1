// elasticos-pager: one process per elastic process and node. Modes: home and peer (the pager proper), facts
// and doctor (what this machine is and can do), and lock-step modes that tests drive.
#include <fcntl.h>
#include <malloc.h>

#include <cstdio>

#include "conformance.hpp"
#include "engine_lockstep.hpp"
#include "facts.hpp"
#include "frame_lockstep.hpp"
#include "home.hpp"
#include "options.hpp"
#include "peer.hpp"
#include "policy.hpp"

namespace elastic {
namespace {

int run_home(int argc, char** argv) {
  const Options options(argc, argv,
                        {"id", "socket", "memory-pages", "spill-dir", "spill-max-bytes", "policy",
                         "jump-every", "run-fd", "name"});
  HomeOptions home;
  home.id = options.text("id");
  home.socket_path = options.text("socket");
  home.memory_pages = options.number("memory-pages");
  home.spill_dir = options.text("spill-dir");
  home.spill_bytes_max = options.number_or("spill-max-bytes", Spill::kBytesMax);
  home.policy = options.text_or("policy", "always-pull");
  home.jump_every = options.number_or("jump-every", 0);
  home.run_fd =
      static_cast<int>(options.number_or("run-fd", 0)) == 0 ? -1 : static_cast<int>(options.number("run-fd"));
  home.node_name = options.text_or("name", "home");
  home.ignored = outlive_signals();
  home.file_sizes = raise_file_size_limit();
  home.arguments = options.rest();
  if (home.arguments.empty()) throw Failure("elasticos-pager: no program given");
  // A Home that cannot be made closes its channel; this one is left to say why.
  Fd run_channel(home.run_fd < 0 ? -1 : fcntl(home.run_fd, F_DUPFD_CLOEXEC, 3));
  const auto refuse = [&](const ProgramProblem& problem) {
    const int kind = problem.exit_status == 127 ? 4 : problem.exit_status == 126 ? 3 : 2;
    Loop loop;
    Control control(
        loop, "", run_channel.release(), [](const auto&, bool, const auto&) {}, nullptr);
    control.to_all({ControlType::exited, {kind, problem.exit_status, 0}, {problem.message}});
    control.last_words(1000);
    if (home.run_fd < 0) fprintf(stderr, "%s\n", problem.message.c_str());
    return problem.exit_status;
  };
  try {
    std::optional<ProgramProblem> problem;
    home.program_path = find_program(home.arguments[0], problem);
    if (!problem) problem = check_program(home.program_path);
    if (problem) return refuse(*problem);
    Home pager(home);
    run_channel.reset();
    const Ending ending = pager.run();
    if (home.run_fd < 0 && !ending.message.empty()) fprintf(stderr, "%s\n", ending.message.c_str());
    return ending.kind == 0 ? ending.code : 128 + ending.code;
  } catch (const Failure& failure) {
    return refuse({failure.exit_status(), failure.what()});
  }
}

int run_peer(int argc, char** argv) {
  const Options options(
      argc, argv, {"id", "socket", "node", "name", "listen", "memory-pages", "spill-dir", "spill-max-bytes"});
  raise_file_size_limit();
  PeerOptions peer;
  peer.id = options.text("id");
  peer.socket_path = options.text("socket");
  peer.node = static_cast<uint16_t>(options.number("node"));
  peer.node_name = options.text("name");
  peer.listen_host = options.text("listen");
  peer.memory_pages = options.number("memory-pages");
  peer.spill_dir = options.text("spill-dir");
  peer.spill_bytes_max = options.number_or("spill-max-bytes", Spill::kBytesMax);
  return Peer(peer).run();
}

int dispatch(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "home") return run_home(argc - 2, argv + 2);
  if (mode == "peer") return run_peer(argc - 2, argv + 2);
  if (mode == "facts") return puts(facts_json().c_str()) < 0;
  if (mode == "doctor") {
    const Options options(argc - 2, argv + 2, {"spill-dir"});
    raise_file_size_limit();
    return puts(checks_json(run_checks(options.text_or("spill-dir", ""))).c_str()) < 0;
  }
  if (mode == "policy-lockstep") return policy_lockstep(argc - 2, argv + 2);
  if (mode == "frame-lockstep") return frame_lockstep(argc - 2, argv + 2);
  if (mode == "engine-lockstep") return engine_lockstep(argc - 2, argv + 2);
  if (mode == "control-shapes") return fputs(control_shapes().c_str(), stdout) < 0;
  if (mode == "conformance") return conformance(argc - 2, argv + 2);
  if (mode == "conformance-guest") return conformance_guest(argc - 2, argv + 2);
  throw Failure("elasticos-pager: started by elasticos; modes are home, peer, facts, doctor");
}

}  // namespace
}  // namespace elastic

int main(int argc, char** argv) {
  // What queues give back is to leave this process: glibc would keep ever larger blocks.
  mallopt(M_MMAP_THRESHOLD, 128 << 10);
  mallopt(M_TRIM_THRESHOLD, 256 << 10);
  try {
    return elastic::dispatch(argc, argv);
  } catch (const elastic::Failure& failure) {
    fprintf(stderr, "%s\n", failure.what());
    return failure.exit_status();
  }
}
