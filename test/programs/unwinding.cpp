// Ways out of deep stacks: C++ exceptions through frames with destructors, rethrown, carried to another
// thread and caught there; setjmp and longjmp over as many frames; all of them while memory larger than the
// limit is walked over. Arguments: pages, rounds.
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int kDepth = 300;
constexpr size_t kPageWords = 512;
int alive = 0;

[[noreturn]] void fail(const std::string& what) {
  std::printf("WRONG: %s\n", what.c_str());
  std::fflush(stdout);
  std::_Exit(1);
}

// A page of memory with contents, beside each frame.
struct Local {
  explicit Local(int depth) : words(kPageWords, static_cast<uint64_t>(depth)) { alive++; }
  ~Local() {
    for (const uint64_t word : words)
      if (word != words.front()) fail("an object has changed before its end");
    alive--;
  }
  Local(const Local&) = delete;
  Local& operator=(const Local&) = delete;
  std::vector<uint64_t> words;
};

struct Depth : std::runtime_error {
  Depth(int at, std::vector<uint64_t> more)
      : std::runtime_error("depth"), depth(at), contents(std::move(more)) {}
  int depth;
  std::vector<uint64_t> contents;
};

void touch(std::vector<uint64_t>& array, size_t& at, uint64_t count) {
  for (; count > 0; count--, at = (at + kPageWords) % array.size()) array[at]++;
}

// Throws at the bottom; each hundredth frame catches and throws on.
int descend(int depth, std::vector<uint64_t>& array, size_t& at) {
  const Local local(depth);
  touch(array, at, 3);
  if (depth == 0) throw Depth(depth, std::vector<uint64_t>(kPageWords, 7));
  if (depth % 100 != 0) return descend(depth - 1, array, at) + static_cast<int>(local.words[0]);
  try {
    return descend(depth - 1, array, at) + 1;
  } catch (Depth& thrown) {
    thrown.depth += depth;
    throw;
  }
}

void exceptions(std::vector<uint64_t>& array, size_t& at) {
  try {
    descend(kDepth, array, at);
    fail("nothing was thrown");
  } catch (const std::runtime_error& caught) {
    const auto& thrown = dynamic_cast<const Depth&>(caught);
    if (thrown.depth != 100 + 200 + 300 || thrown.contents != std::vector<uint64_t>(kPageWords, 7))
      fail("what was caught is not what was thrown");
  }
  if (alive != 0) fail("objects are left over");
}

void from_a_thread(std::vector<uint64_t>& array, size_t& at) {
  std::exception_ptr carried;
  std::thread([&] {
    try {
      descend(kDepth, array, at);
    } catch (...) {
      carried = std::current_exception();
    }
  }).join();
  try {
    std::rethrow_exception(carried);
  } catch (const Depth& thrown) {
    if (thrown.depth != 600 || thrown.contents.size() != kPageWords) fail("a carried exception has changed");
  }
}

std::jmp_buf out;

int leave(int depth) {
  if (depth == 0) std::longjmp(out, 4711);
  return depth;
}

[[gnu::noinline]] int plunge(int depth, std::vector<uint64_t>& array, size_t& at) {
  volatile char frame[2048];
  for (size_t i = 0; i < sizeof frame; i++) frame[i] = static_cast<char>(depth);
  touch(array, at, 3);
  if (leave(depth) < 0) return 0;
  return plunge(depth - 1, array, at) + frame[17];
}

void long_jumps(std::vector<uint64_t>& array, size_t& at) {
  volatile uint64_t marker = 0x1234567890abcdef;
  const int value = setjmp(out);
  if (value == 0) plunge(kDepth * 4, array, at);
  if (value != 4711 || marker != 0x1234567890abcdef) fail("longjmp");
}

}  // namespace

int main(int argc, char** argv) {
  const size_t pages = argc > 1 ? std::stoul(argv[1]) : 3000;
  const int rounds = argc > 2 ? std::stoi(argv[2]) : 10;
  std::vector<uint64_t> array(pages * kPageWords);
  size_t at = 0;
  for (int round = 0; round < rounds; round++) {
    exceptions(array, at);
    from_a_thread(array, at);
    long_jumps(array, at);
  }
  uint64_t sum = 0;
  for (const uint64_t word : array) sum += word;
  if (sum != static_cast<uint64_t>(rounds) * 3 * (2 * (kDepth + 1) + kDepth * 4 + 1))
    fail("the walk lost steps");
  std::printf("unwinding: all right, %llu steps\n", static_cast<unsigned long long>(sum));
  return 0;
}
