// The file that is to be executed (program_check.cpp): an ELF header, a script's first line, or neither.
#include <sys/mman.h>

#include <elf.h>

#include "../src/facts.hpp"
#include "../src/util.hpp"
#include "fuzz_kit.hpp"

using namespace elastic;

namespace {

std::vector<uint8_t> nearly_elf(fuzz::Input& in) {
  Elf64_Ehdr header{};
  memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_type = ET_DYN;
  header.e_machine = EM_X86_64;
  header.e_phoff = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = static_cast<uint16_t>(in.below(4));
  Elf64_Phdr part{};
  part.p_type = PT_INTERP;
  part.p_offset = in.rarely() ? in.take<uint64_t>() : sizeof header;
  part.p_filesz = in.rarely() ? in.take<uint64_t>() : in.below(40);
  std::vector<uint8_t> file(sizeof header + sizeof part);
  memcpy(file.data(), &header, sizeof header);
  memcpy(file.data() + sizeof header, &part, sizeof part);
  for (uint64_t changes = in.below(6); changes > 0; changes--)
    file[in.below(file.size())] = in.take<uint8_t>();
  if (in.rarely()) file.resize(in.below(file.size()));
  return file;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static const Fd file(memfd_create("program", 0));
  static const std::string path = "/proc/self/fd/" + std::to_string(file.get());
  fuzz::Input in(data, bytes);
  const bool elf = in.below(2) == 0;
  std::vector<uint8_t> contents = elf ? nearly_elf(in) : std::vector<uint8_t>{'#', '!'};
  const auto rest = in.rest();
  contents.insert(contents.end(), rest.begin(), rest.end());
  REQUIRE(ftruncate(file.get(), 0) == 0);
  REQUIRE(pwrite(file.get(), contents.data(), contents.size(), 0) == static_cast<ssize_t>(contents.size()));
  if (const auto problem = check_program(path))
    REQUIRE(problem->exit_status >= 125 && problem->exit_status <= 127 && !problem->message.empty());
  return 0;
}
