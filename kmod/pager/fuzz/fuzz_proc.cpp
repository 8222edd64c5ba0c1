// Texts of /proc (proc_text.cpp, proc_maps.cpp) with names that a program may give its files and itself: what
// the kernel says beside them is read right, and any other text is read without harm.
#include <sys/mman.h>
#include <unistd.h>

#include "../src/proc_maps.hpp"
#include "../src/proc_text.hpp"
#include "fuzz_kit.hpp"

using namespace elastic;

namespace {

// Of pieces that mean something in these texts, and of any bytes but zero and `never`.
std::string any_name(fuzz::Input& in, char never) {
  static const char* const kPieces[] = {")",
                                        " ",
                                        "(",
                                        "7",
                                        "-",
                                        "/",
                                        "R 1 2 3",
                                        "00400000-00500000 rw-p",
                                        "Seccomp_filters: 9",
                                        "/memfd:elastic",
                                        " (deleted)",
                                        "\\012",
                                        "\t"};
  std::string name;
  for (uint64_t left = in.below(6); left > 0; left--) name += kPieces[in.below(std::size(kPieces))];
  for (const uint8_t byte : in.take_bytes(in.below(40)))
    name += byte == 0 || byte == static_cast<uint8_t>(never) ? 'x' : static_cast<char>(byte);
  return name;
}

Mapping any_mapping(fuzz::Input& in) {
  Mapping mapping;
  mapping.start = in.take<uint32_t>();
  mapping.end = mapping.start + in.take<uint64_t>() % (1ull << 46);
  mapping.prot = static_cast<int>(in.below(8));
  mapping.is_private = in.below(2) == 0;
  mapping.offset = in.take<uint32_t>();
  mapping.file.device = "fd:01";
  mapping.file.inode = in.take<uint32_t>();
  if (in.below(4) != 0) mapping.file.path = "/" + any_name(in, '\n');
  if (in.rarely()) mapping.file.path.append(in.take<uint16_t>() % 5000, 'y');
  return mapping;
}

void require_same(const Mapping& read, const Mapping& right) {
  REQUIRE(read.start == right.start && read.end == right.end && read.offset == right.offset);
  REQUIRE(read.prot == right.prot && read.is_private == right.is_private);
  REQUIRE(read.file.device == right.file.device && read.file.inode == right.file.inode);
  REQUIRE(right.file.path.starts_with(read.file.path));
  REQUIRE(read.file.path == right.file.path || right.file.path.size() > 4096);
}

// A list of mappings comes back line by line, whatever the names are.
void read_list(fuzz::Input& in) {
  static const Fd file(memfd_create("maps", 0));
  std::vector<Mapping> maps(1 + in.below(4));
  std::string text;
  for (Mapping& mapping : maps) text += maps_line(mapping = any_mapping(in));
  REQUIRE(ftruncate(file.get(), 0) == 0);
  REQUIRE(pwrite(file.get(), text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()));
  ProcLines lines("/proc/self/fd/" + std::to_string(file.get()));
  for (const Mapping& mapping : maps) {
    const char* line = lines.next();
    REQUIRE(line != nullptr);
    const auto read = parse_mapping(line);
    REQUIRE(read);
    require_same(*read, mapping);
  }
  REQUIRE(lines.next() == nullptr);
}

void read_stat(fuzz::Input& in) {
  std::string text = "42 (" + any_name(in, 0) + ") S";
  uint64_t numbers[49];
  for (uint64_t& number : numbers) text += ' ' + std::to_string(number = in.take<uint16_t>());
  const ProcStat stat = parse_stat((text + '\n').c_str());
  REQUIRE(stat.state == 'S');
  for (size_t i = 0; i < std::size(numbers); i++) REQUIRE(stat.field[4 + i] == numbers[i]);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  fuzz::Input in(data, bytes);
  switch (in.below(8)) {
    case 0: read_list(in); break;
    case 1:
    case 2: read_stat(in); break;
    default: {
      const std::string text = any_name(in, 0) + any_name(in, 0);
      parse_stat(text.c_str());
      if (const auto mapping = parse_mapping(text.c_str())) REQUIRE(mapping->file.path.size() < text.size());
    }
  }
  return 0;
}
