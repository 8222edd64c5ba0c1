// Which file a program's name means, and whether that file can be stretched. Answers before anything is
// started, so that the user reads one line and not what a half-started program makes of it.
//
// The kernel's own rules are followed (fs/exec.c, fs/binfmt_script.c, fs/binfmt_elf.c) by looking, not by
// trying: an answer can be outdated by the time of the exec, which then fails with the kernel's own error.
// Not looked at: binfmt_misc (what it runs is another architecture's or another language's; the interpreter
// would do as a program).
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string_view>

#include "facts.hpp"
#include "util.hpp"

namespace elastic {

namespace {

constexpr size_t kHeadBytes = 256;   // BINPRM_BUF_SIZE: what the kernel reads to know a format
constexpr int kInterpretersMax = 5;  // exec_binprm() gives ELOOP beyond
constexpr size_t kProgramHeadersMax = 512;

// Of whoever executes a program: what it has already is not gained.
struct Rights {
  bool may_gain = true;  // false: it, or one before it, has given up gaining any
  uid_t user = 0;
  gid_t group = 0;
  std::string process = "self";  // in /proc
};

// What execve would answer for a file, and what it found.
struct Look {
  int error = 0;
  std::string file;                       // the last one looked at: the program, or its interpreter
  std::optional<ProgramProblem> refusal;  // it would run alone, but not stretched
};

int errno_for_file(const std::string& path, struct stat& status) {
  if (path.empty()) return ENOENT;
  if (stat(path.c_str(), &status) != 0) return errno;
  if (!S_ISREG(status.st_mode)) return EACCES;
  if (faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) != 0) return errno;
  struct statvfs mount {};
  if (statvfs(path.c_str(), &mount) == 0 && (mount.f_flag & ST_NOEXEC) != 0) return EACCES;
  return 0;
}

// The interpreter of "#! INTERPRETER [ARGUMENT]", or nothing: then the kernel says ENOEXEC.
std::optional<std::string> script_interpreter(std::string_view head) {
  const bool cut = head.size() == kHeadBytes;
  const size_t newline = head.find('\n');
  std::string_view line = head.substr(0, newline);
  line.remove_prefix(2);
  const size_t start = line.find_first_not_of(" \t");
  if (start == std::string_view::npos) return std::nullopt;
  line.remove_prefix(start);
  const size_t end = line.find_first_of(std::string_view(" \t\0", 3));
  if (end == std::string_view::npos && newline == std::string_view::npos && cut)
    return std::nullopt;  // name cut off
  if (end == 0) return std::nullopt;
  return std::string(line.substr(0, end));
}

const char* machine_name(unsigned machine) {
  switch (machine) {
    case EM_AARCH64: return "64-bit ARM";
    case EM_ARM: return "ARM";
    case EM_RISCV: return "RISC-V";
    case EM_PPC64: return "64-bit PowerPC";
    case EM_PPC: return "PowerPC";
    case EM_S390: return "IBM Z";
    case EM_MIPS: return "MIPS";
    case EM_LOONGARCH: return "LoongArch";
    case EM_SPARCV9: return "SPARC";
    default: return nullptr;
  }
}

constexpr const char* kOnly = ": elasticos stretches x86-64 programs only";

std::optional<ProgramProblem> architecture_problem(const std::string& path, const Elf64_Ehdr& header) {
  const bool swapped = header.e_ident[EI_DATA] == ELFDATA2MSB;
  const unsigned machine = swapped ? __builtin_bswap16(header.e_machine) : header.e_machine;
  if (machine != EM_X86_64 && machine != EM_386) {
    const char* name = machine_name(machine);
    const std::string what = name != nullptr ? name : "CPU type " + std::to_string(machine);
    return ProgramProblem{125, path + " is a program for another CPU architecture (" + what + ")" + kOnly +
                                   "; use its x86-64 build"};
  }
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || machine == EM_386) {
    return ProgramProblem{125, path + " is a 32-bit program" + kOnly + "; use its 64-bit build"};
  }
  return std::nullopt;
}

Rights rights_of(pid_t pid, bool may_gain) {
  Rights rights{may_gain, 0, 0, std::to_string(pid)};
  std::ifstream status("/proc/" + rights.process + "/status");
  uid_t real = 0;
  for (std::string line; std::getline(status, line);) {
    std::sscanf(line.c_str(), "Uid: %u %u", &real, &rights.user);
    std::sscanf(line.c_str(), "Gid: %u %u", &real, &rights.group);
  }
  return rights;
}

Rights own_rights() { return {!cannot_gain(), geteuid(), getegid()}; }

// Whether the user namespace of whoever executes has this user or group: else the kernel ignores the bit.
bool is_known(const Rights& rights, const char* map, uint64_t id) {
  std::ifstream lines("/proc/" + rights.process + "/" + map);
  uint64_t inside = 0, outside = 0, count = 0;
  while (lines >> inside >> outside >> count)
    if (id >= outside && id - outside < count) return true;
  return false;
}

// What the program would gain by its file and lose under a tracer. Nothing is gained on a nosuid mount.
std::optional<ProgramProblem> privilege_problem(const std::string& path, const struct stat& status,
                                                const Rights& rights) {
  struct statvfs mount {};
  if (!rights.may_gain) return std::nullopt;
  if (statvfs(path.c_str(), &mount) == 0 && (mount.f_flag & ST_NOSUID) != 0) return std::nullopt;
  const char* what = nullptr;
  if ((status.st_mode & S_ISUID) != 0 && status.st_uid != rights.user &&
      is_known(rights, "uid_map", status.st_uid)) {
    what = "is setuid";
  } else if ((status.st_mode & S_ISGID) != 0 && (status.st_mode & S_IXGRP) != 0 &&
             status.st_gid != rights.group && is_known(rights, "gid_map", status.st_gid)) {
    what = "is setgid";
  } else if (rights.user != 0 && getxattr(path.c_str(), "security.capability", nullptr, 0) > 0) {
    what = "has file capabilities";
  }
  if (what == nullptr) return std::nullopt;
  return ProgramProblem{
      125, path + " " + what + ": its privileges cannot be kept while traced; run it without elasticos"};
}

// The dynamic linker an x86-64 ELF file asks for; empty: static. False: the file is not what it says.
bool elf_interpreter(int fd, const Elf64_Ehdr& header, std::string& interpreter) {
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0 || header.e_phnum > kProgramHeadersMax)
    return false;
  for (size_t i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr part;
    const off_t at = static_cast<off_t>(header.e_phoff + i * sizeof part);
    if (pread(fd, &part, sizeof part, at) != static_cast<ssize_t>(sizeof part)) return false;
    if (part.p_type != PT_INTERP) continue;
    if (part.p_filesz < 2 || part.p_filesz > 4096) return false;
    interpreter.resize(part.p_filesz);
    const ssize_t size = static_cast<ssize_t>(part.p_filesz);
    if (pread(fd, interpreter.data(), part.p_filesz, static_cast<off_t>(part.p_offset)) != size) return false;
    if (interpreter.back() != 0) return false;
    interpreter.resize(std::strlen(interpreter.c_str()));
    return true;
  }
  return true;
}

void look_at_elf(int fd, const struct stat& status, const Rights& rights, std::string_view head, Look& look) {
  Elf64_Ehdr header{};
  std::memcpy(&header, head.data(), std::min(head.size(), sizeof header));
  if (head.size() < sizeof(Elf32_Ehdr)) {
    look.error = ENOEXEC;
    return;
  }
  look.refusal = architecture_problem(look.file, header);
  if (look.refusal) return;
  std::string interpreter;
  const bool known_type = header.e_type == ET_EXEC || header.e_type == ET_DYN;
  if (head.size() < sizeof header || !known_type || !elf_interpreter(fd, header, interpreter)) {
    look.error = ENOEXEC;
    return;
  }
  look.refusal = privilege_problem(look.file, status, rights);
  struct stat linker {};
  if (!interpreter.empty()) look.error = errno_for_file(interpreter, linker);
  if (look.error != 0) look.file = interpreter;
}

// Looks at a file as execve does, through its interpreters.
Look look_at(const std::string& path, const Rights& rights = own_rights()) {
  Look look;
  look.file = path;
  for (int depth = 0; depth <= kInterpretersMax; ++depth) {
    struct stat status {};
    look.error = errno_for_file(look.file, status);
    if (look.error != 0) return look;
    // A program may be executable and not readable; then its format is the kernel's secret until the exec.
    const Fd fd(open(look.file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd) {
      look.refusal = privilege_problem(look.file, status, rights);
      return look;
    }
    char bytes[kHeadBytes];
    const ssize_t size = pread(fd.get(), bytes, sizeof bytes, 0);
    if (size < 0) {
      look.error = errno;
      return look;
    }
    const std::string_view head(bytes, static_cast<size_t>(size));
    if (head.substr(0, SELFMAG) == ELFMAG) {
      look_at_elf(fd.get(), status, rights, head, look);
      return look;
    }
    std::optional<std::string> interpreter;
    if (head.substr(0, 2) == "#!") interpreter = script_interpreter(head);
    if (!interpreter) {
      look.error = ENOEXEC;
      return look;
    }
    look.file = *interpreter;
  }
  look.error = ELOOP;
  return look;
}

// What execvp makes of a failed execve: these let it go on to the next directory of PATH (glibc execvpe.c).
bool goes_on(int error) {
  return error == EACCES || error == ENOENT || error == ESTALE || error == ENOTDIR || error == ENODEV ||
         error == ETIMEDOUT;
}

ProgramProblem problem_of(const std::string& name, const Look& look) {
  struct stat status {};
  if (look.error == ENOENT || look.error == ENOTDIR) {
    if (look.file == name || look.file.empty()) return {127, name + ": not found; check the name"};
    return {127, name + ": its interpreter " + look.file + " is not found; install it"};
  }
  if (stat(look.file.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) {
    return {126, look.file + ": is a directory, not a program; give a program in it"};
  }
  if (look.file == name) {
    const std::string remedy =
        look.error == EACCES ? "; run `chmod +x " + name + "`, or check its directory" : "";
    return {126, name + ": cannot be executed: " + std::strerror(look.error) + remedy};
  }
  return {126, name + ": its interpreter " + look.file + " cannot be executed: " + std::strerror(look.error)};
}

std::string search_path() {
  const char* path = std::getenv("PATH");
  if (path != nullptr) return path;
  std::string standard(confstr(_CS_PATH, nullptr, 0), '\0');
  confstr(_CS_PATH, standard.data(), standard.size());
  standard.resize(std::strlen(standard.c_str()));
  return standard;
}

}  // namespace

std::optional<ProgramProblem> check_program(const std::string& path) {
  Look look = look_at(path);
  if (look.error == ENOEXEC) {
    if (path == "/bin/sh") return ProgramProblem{126, path + ": not a program"};
    return check_program("/bin/sh");
  }
  if (look.refusal) return look.refusal;
  if (look.error != 0) return problem_of(path, look);
  return std::nullopt;
}

bool cannot_gain() { return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1; }

std::optional<ProgramProblem> check_executed(pid_t pid, bool may_gain) {
  const std::string link = "/proc/" + std::to_string(pid) + "/exe";
  // The exec has succeeded: whatever cannot be found or read from here is no problem of the program.
  std::optional<ProgramProblem> problem = look_at(link, rights_of(pid, may_gain)).refusal;
  char name[PATH_MAX];
  const ssize_t length = readlink(link.c_str(), name, sizeof name);
  if (problem && length > 0 && problem->message.starts_with(link))
    problem->message.replace(0, link.size(), std::string(name, static_cast<size_t>(length)));
  return problem;
}

bool runs_by_shell(const std::string& path) {
  const Look look = look_at(path);
  return look.error == ENOEXEC && !look.refusal;
}

std::string find_program(const std::string& name, std::optional<ProgramProblem>& problem) {
  problem.reset();
  if (name.empty() || name.find('/') != std::string::npos) {
    const Look look = look_at(name);
    if (look.error != 0 && look.error != ENOEXEC)
      problem = problem_of(name.empty() ? "(empty name)" : name, look);
    return problem ? std::string() : name;
  }
  const std::string path = search_path();
  std::optional<ProgramProblem> denied;  // EACCES, which execvp remembers above all
  std::optional<ProgramProblem> broken;  // there, but its interpreter is not
  for (size_t start = 0; start <= path.size();) {
    const size_t end = std::min(path.find(':', start), path.size());
    const std::string directory = path.substr(start, end - start);
    const std::string candidate = directory.empty() ? name : directory + "/" + name;
    start = end + 1;
    const Look look = look_at(candidate);
    if (look.error == 0 || look.error == ENOEXEC) return candidate;
    if (look.error == EACCES && !denied) denied = problem_of(candidate, look);
    if (look.error == ENOENT && look.file != candidate && !broken) broken = problem_of(candidate, look);
    if (!goes_on(look.error)) {
      problem = problem_of(candidate, look);
      return {};
    }
  }
  problem = denied ? denied : broken;
  if (!problem) problem = ProgramProblem{127, name + ": not found in PATH; check the name, or give its path"};
  return {};
}

}  // namespace elastic
