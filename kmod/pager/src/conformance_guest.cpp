// The program that runs under the conformance mode: threads that load, store and make system calls on
// command. A command is 24 bytes (kind, address, argument), a reply 16 (outcome, value); the first reply of a
// thread is its thread id.
//
// A thread's context may be set back to an earlier load or store. That works because all that such an
// instruction and what follows it need is in registers or the same for every command.
#include <fcntl.h>
#include <setjmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <thread>
#include <vector>

#include "conformance.hpp"

namespace elastic {

namespace {

struct Command {
  uint64_t kind, address, argument;
};
struct Reply {
  uint64_t outcome, value;
};
constexpr uint64_t kDone = 1, kSegmentationFault = 2;
constexpr uint64_t kRead = 0, kWrite = 1, kSystemCallRead = 2, kCount = 3;

thread_local sigjmp_buf recovery;

void on_segv(int) { siglongjmp(recovery, 1); }

Reply read_by_system_call(const volatile uint8_t* at) {
  int ends[2];
  uint8_t byte = 0;
  if (pipe(ends) != 0) return {kSegmentationFault, 0};
  const bool passed = write(ends[1], const_cast<const uint8_t*>(at), 1) == 1 && read(ends[0], &byte, 1) == 1;
  close(ends[0]);
  close(ends[1]);
  return passed ? Reply{kDone, byte} : Reply{kSegmentationFault, 0};
}

[[gnu::noinline]] Reply execute(uint64_t kind, uint64_t address, uint64_t argument) {
  if (kind == kRead) return {kDone, *reinterpret_cast<const volatile uint8_t*>(address)};
  if (kind == kSystemCallRead) return read_by_system_call(reinterpret_cast<const volatile uint8_t*>(address));
  if (kind == kWrite) {
    *reinterpret_cast<volatile uint8_t*>(address) = static_cast<uint8_t>(argument);
    return {kDone, 0};
  }
  auto* word = reinterpret_cast<volatile uint64_t*>(address);
  for (uint64_t i = 0; kind == kCount && i < argument; i++) {
    uint64_t value = *word;
    asm volatile("" : "+r"(value));  // a load and a store, not one instruction
    *word = value + 1;
  }
  return {kDone, 0};
}

void serve(int commands, int replies) {
  Reply reply{static_cast<uint64_t>(syscall(SYS_gettid)), 0};
  for (;;) {
    if (write(replies, &reply, sizeof reply) != sizeof reply) _exit(0);
    Command command;
    if (read(commands, &command, sizeof command) != sizeof command) _exit(0);
    if (sigsetjmp(recovery, 1) == 0) {
      reply = execute(command.kind, command.address, command.argument);
    } else {
      reply = {kSegmentationFault, 0};
    }
  }
}

}  // namespace

int conformance_guest(int argc, char** argv) {
  struct sigaction action {};
  action.sa_handler = on_segv;
  sigaction(SIGSEGV, &action, nullptr);
  std::vector<std::thread> threads;
  for (int i = 0; i + 1 < argc; i += 2) threads.emplace_back(serve, atoi(argv[i]), atoi(argv[i + 1]));
  for (std::thread& thread : threads) thread.join();
  return 0;
}

}  // namespace elastic
