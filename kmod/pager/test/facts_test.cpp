// Tests of the compatibility facts, the checks behind `doctor` and the look at a program before it is run.
// Usage: facts_test DIRECTORY [SEED [ROUNDS]] prints one PASS or FAIL line per test and exits 1 if any
// failed; facts_test --facts and facts_test --doctor DIRECTORY print the JSON that the pager would;
// facts_test --program NAME prints what is to be said of a program.
#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "../src/facts.hpp"

namespace {

namespace fs = std::filesystem;
using elastic::ProgramProblem;

struct Failure {
  std::string what;
};

void check(bool holds, const std::string& what) {
  if (!holds) throw Failure{what};
}

void put(const std::string& path, const std::string& content, int mode) {
  fs::remove_all(path);
  std::ofstream(path, std::ios::binary) << content;
  chmod(path.c_str(), static_cast<mode_t>(mode));
}

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void expect(const std::string& path, int status, const std::string& part) {
  const std::optional<ProgramProblem> problem = elastic::check_program(path);
  const std::string got =
      problem ? std::to_string(problem->exit_status) + " " + problem->message : "no problem";
  if (status == 0) {
    check(!problem, path + ": " + got);
    return;
  }
  check(problem && problem->exit_status == status, path + ": " + got + ", wanted " + std::to_string(status));
  check(problem->message.find(part) != std::string::npos, got + " does not say: " + part);
  check(problem->message.find('\n') == std::string::npos, "more than one line: " + got);
}

// ---- check_program

std::string forged_elf(unsigned machine, unsigned char elf_class) {
  std::string bytes = bytes_of("/bin/true");
  Elf64_Ehdr header;
  std::memcpy(&header, bytes.data(), sizeof header);
  header.e_machine = static_cast<Elf64_Half>(machine);
  header.e_ident[EI_CLASS] = elf_class;
  std::memcpy(bytes.data(), &header, sizeof header);
  return bytes;
}

void test_formats(const std::string& dir, uint64_t, uint64_t) {
  expect("/bin/true", 0, "");
  expect(dir + "/missing", 127, "not found");
  expect(dir, 126, "is a directory");
  put(dir + "/plain", "#!/bin/sh\n", 0644);
  expect(dir + "/plain", 126, "Permission denied");
  put(dir + "/x86", forged_elf(EM_386, ELFCLASS32), 0755);
  expect(dir + "/x86", 125, "is a 32-bit program: elasticos stretches x86-64 programs only");
  put(dir + "/x32", forged_elf(EM_X86_64, ELFCLASS32), 0755);
  expect(dir + "/x32", 125, "is a 32-bit program");
  put(dir + "/arm", forged_elf(EM_AARCH64, ELFCLASS64), 0755);
  expect(dir + "/arm", 125, "another CPU architecture (64-bit ARM)");
  put(dir + "/odd", forged_elf(4711, ELFCLASS64), 0755);
  expect(dir + "/odd", 125, "CPU type 4711");
  put(dir + "/arm.sh", "#!" + dir + "/arm\n", 0755);
  expect(dir + "/arm.sh", 125, "another CPU architecture");
  for (const char* text : {"echo hello\n", "",
                           "\x7f"
                           "EL",
                           "\x7f"
                           "ELF",
                           "#!", "#! \n"}) {
    put(dir + "/text", text, 0755);
    expect(dir + "/text", 0, "");
    check(elastic::runs_by_shell(dir + "/text"), "execvp has the shell run it");
  }
  check(!elastic::runs_by_shell("/bin/true") && !elastic::runs_by_shell(dir + "/arm"),
        "the shell is not for these");
  put(dir + "/broken", "#! /no/such/interpreter -x\n", 0755);
  expect(dir + "/broken", 127, "its interpreter /no/such/interpreter is not found");
  std::string linkerless = bytes_of("/bin/true");
  const size_t at = linkerless.find("/lib64/ld-linux");
  check(at != std::string::npos, "/bin/true is dynamic");
  linkerless.replace(at, 6, "/nolib");
  put(dir + "/linkerless", linkerless, 0755);
  expect(dir + "/linkerless", 127, "its interpreter /nolib/ld-linux");
}

void test_privileges(const std::string& dir, uint64_t, uint64_t) {
  constexpr uid_t kNobody = 65534;
  const std::string path = dir + "/privileged";
  const auto put_of = [&](uid_t user, gid_t group, mode_t mode) {
    put(path, bytes_of("/bin/true"), 0755);
    return chown(path.c_str(), user, group) == 0 && chmod(path.c_str(), mode) == 0;
  };
  check(put_of(geteuid(), getegid(), 06755), "own");
  expect(path, 0, "");  // what one has already is not gained
  if (put_of(kNobody, getegid(), 04755))
    expect(path, 125, "is setuid: its privileges cannot be kept while traced; run it without elasticos");
  if (put_of(geteuid(), kNobody, 02755)) expect(path, 125, "is setgid");
  unlink(path.c_str());
  put(path, bytes_of("/bin/true"), 02745);
  expect(path, 0, "");  // setgid without group execute means mandatory locks, not a group
  put(path, "#!/bin/sh\n", 04755);
  expect(path, 0, "");  // the kernel ignores it on scripts
  put(path, bytes_of("/bin/true"), 0755);
  const unsigned char raw[20] = {1, 0, 0, 2, 0, 0x20};  // revision 2, effective: cap_net_raw
  if (setxattr(path.c_str(), "security.capability", raw, sizeof raw, 0) == 0) {
    expect(path, 0, "");  // root has them
    const std::filesystem::path before = std::filesystem::current_path();
    check(chmod(dir.c_str(), 0711) == 0 && chdir(dir.c_str()) == 0 && seteuid(kNobody) == 0, "as nobody");
    const auto problem = elastic::check_program("./privileged");
    check(seteuid(0) == 0 && chdir(before.c_str()) == 0, "as root again");
    check(problem && problem->message.starts_with("./privileged has file capabilities"), "capabilities");
  } else {
    std::printf("# file capabilities cannot be set here: %s\n", std::strerror(errno));
  }
}

// What execvp itself makes of `name`: what the program prints, or "errno N".
std::string by_execvp(const std::string& name) {
  int ends[2];
  check(pipe2(ends, O_CLOEXEC) == 0, "pipe");
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 1);
    close(2);
    char* const arguments[] = {const_cast<char*>(name.c_str()), nullptr};
    execvp(name.c_str(), arguments);
    dprintf(1, "errno %d", errno);
    _exit(1);
  }
  close(ends[1]);
  std::string text;
  char bytes[4096];
  for (ssize_t size; (size = read(ends[0], bytes, sizeof bytes)) > 0;)
    text.append(bytes, static_cast<size_t>(size));
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return text;
}

std::string by_us(const std::string& name) {
  std::optional<ProgramProblem> problem;
  const std::string path = elastic::find_program(name, problem);
  check(problem.has_value() == path.empty(), "a path or a problem");
  return problem ? "errno " + std::to_string(problem->exit_status) : path;
}

std::string comparable(const std::string& outcome) {
  if (outcome.rfind("errno ", 0) != 0) return outcome;
  const int error = std::atoi(outcome.c_str() + 6);
  return "errno " + std::to_string(error == ENOENT || error == ENOTDIR ? 127 : error < 125 ? 126 : error);
}

void test_chains(const std::string& dir, uint64_t, uint64_t) {
  std::string before = "/bin/echo";
  for (int depth = 1; depth <= 8; ++depth) {
    const std::string path = dir + "/chain" + std::to_string(depth);
    put(path, "#!" + before + "\n", 0755);
    before = path;
    const std::string real = comparable(by_execvp(path));
    const bool runs = real.rfind("errno", 0) != 0;
    const auto problem = elastic::check_program(path);
    check(runs == !problem, "a chain of " + std::to_string(depth) + " interpreters: " + real);
  }
  const std::string long_name = "/" + std::string(300, 'i');
  put(dir + "/cut", "#!" + long_name + "\n", 0755);
  check(elastic::runs_by_shell(dir + "/cut"), "an interpreter's name that is cut off is no interpreter");
  put(dir + "/spaces", "#! \t /bin/echo \t argument\n", 0755);
  expect(dir + "/spaces", 0, "");
}

// Random directories and a random PATH: the same file is found as by execvp.
void test_lookup(const std::string& dir, uint64_t seed, uint64_t rounds) {
  std::mt19937_64 random(seed);
  const std::string before = std::getenv("PATH");
  const std::string home = fs::current_path();
  uint64_t found = 0;
  for (uint64_t round = 0; round < rounds; ++round) {
    const std::string root = dir + "/lookup";
    fs::remove_all(root);
    std::string path;
    for (int i = 0; i < 4; ++i) {
      const std::string place = root + "/" + std::to_string(i);
      fs::create_directories(place);
      const std::string file = place + "/prog";
      switch (random() % 9) {
        case 0: put(file, "#!/bin/sh\necho $0\n", 0755); break;
        case 1: put(file, "echo $0\n", 0755); break;
        case 2: put(file, "#!/bin/sh\necho $0\n", 0644); break;
        case 3: fs::create_directory(file); break;
        case 4: put(file, "#!/no/such/thing\n", 0755); break;
        case 5: fs::create_symlink("/no/such/target", file); break;
        case 6: put(place + "x", "", 0644); break;
        default: break;
      }
      const std::string entries[] = {
          place, place + "x", root + "/nowhere", "", "./" + std::to_string(i), place + "/prog"};
      path += (i > 0 ? ":" : "") + entries[random() % 3 == 0 ? random() % 6 : 0];
    }
    fs::current_path(root + "/" + std::to_string(random() % 4));
    setenv("PATH", path.c_str(), 1);
    const std::string names[] = {"prog", "./prog", root + "/1/prog", "", "nothing"};
    const std::string name = names[random() % 2 == 0 ? random() % 5 : 0];
    const std::string ours = by_us(name);
    std::string real = comparable(by_execvp(name));
    if (!real.empty() && real.back() == '\n') real.pop_back();
    setenv("PATH", before.c_str(), 1);
    fs::current_path(home);
    check(ours == real, "PATH=" + path + " " + name + ": execvp " + real + ", we " + ours);
    if (ours.rfind("errno", 0) != 0) ++found;
  }
  unsetenv("PATH");
  const std::string standard = by_us("true");
  setenv("PATH", before.c_str(), 1);
  check(standard == "/bin/true", "without PATH the standard path is searched: " + standard);
  std::printf("# %llu look-ups, %llu found\n", static_cast<unsigned long long>(rounds),
              static_cast<unsigned long long>(found));
}

// ---- facts and checks

void test_facts(const std::string&, uint64_t, uint64_t) {
  const std::string json = elastic::facts_json();
  for (const char* part : {"\"protocolVersion\":3", "\"arch\":\"x86_64\"", "\"pageSize\":4096",
                           "\"xcr0\":\"0x", "\"cpuFeatures\":[\"sse3\"", "\"cx16\"", "\"kernel\":\""}) {
    check(json.find(part) != std::string::npos, std::string(part) + " is not in " + json);
  }
  check(json == elastic::facts_json(), "the same each time");
  const std::string info = bytes_of("/proc/cpuinfo");
  const std::string flags =
      " " + info.substr(info.find("flags"), info.find('\n', info.find("flags")) - info.find("flags")) + " ";
  for (const char* name :
       {"avx", "avx2", "avx512f", "avx512_bf16", "bmi1", "erms", "fsrm", "rdrand", "fsgsbase", "xsavec",
        "amx_tile", "gfni", "vaes", "rdtscp", "abm", "ospke", "avx_vnni", "sha_ni", "rdpid"}) {
    const bool seen = flags.find(std::string(" ") + name + " ") != std::string::npos;
    check(seen == (json.find("\"" + std::string(name) + "\"") != std::string::npos),
          std::string(name) + " as in /proc/cpuinfo");
  }
}

void test_checks(const std::string& dir, uint64_t, uint64_t) {
  const auto checks = elastic::run_checks(dir);
  check(checks.size() == 13, "thirteen checks");
  for (const elastic::Check& one : checks) {
    check(!one.name.empty() && !one.detail.empty(), "a check says what it found: " + one.name);
    check(one.detail != "the probe died" && one.detail.find("no answer") == std::string::npos,
          one.name + ": " + one.detail);
    if (!one.ok) std::printf("# %s: %s (%s)\n", one.name.c_str(), one.detail.c_str(), one.remedy.c_str());
  }
  const auto on_tmpfs = elastic::run_checks("/dev/shm").back();
  check(!on_tmpfs.ok && on_tmpfs.needed && on_tmpfs.remedy.find("--data DIR") != std::string::npos,
        "tmpfs is refused");
  const auto nowhere = elastic::run_checks(dir + "/nowhere").back();
  check(!nowhere.ok && nowhere.remedy.find("mkdir") != std::string::npos,
        "a missing directory: " + nowhere.detail);
  check(elastic::run_checks("").size() == 12, "without a directory it is not checked");
  const std::string json = elastic::checks_json({{"a\"b\\", true, false, "line\nbreak\x01", ""}});
  check(json ==
            "[{\"name\":\"a\\\"b\\\\\",\"ok\":true,\"needed\":false,\"detail\":\"line\\u000abreak\\u0001\","
            "\"remedy\":\"\"}]",
        "escaped: " + json);
}

int run_tests(const std::string& given, uint64_t seed, uint64_t rounds) {
  std::printf("# seed %llu\n", static_cast<unsigned long long>(seed));
  const std::string dir = fs::absolute(given).string() + "/facts-test-" + std::to_string(getpid());
  fs::create_directories(dir);
  struct Test {
    const char* name;
    void (*body)(const std::string&, uint64_t, uint64_t);
  };
  const Test tests[] = {{"formats", test_formats}, {"privileges", test_privileges}, {"chains", test_chains},
                        {"lookup", test_lookup},   {"facts", test_facts},           {"checks", test_checks}};
  int failures = 0;
  for (const Test& test : tests) {
    try {
      test.body(dir, seed, rounds);
      std::printf("PASS %s\n", test.name);
    } catch (const Failure& failure) {
      ++failures;
      std::printf("FAIL %s: %s\n", test.name, failure.what.c_str());
    } catch (const std::exception& error) {
      ++failures;
      std::printf("FAIL %s: %s\n", test.name, error.what());
    }
  }
  fs::remove_all(dir);
  return failures == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::string first = argc > 1 ? argv[1] : "";
  if (first == "--facts") {
    std::puts(elastic::facts_json().c_str());
  } else if (first == "--doctor") {
    std::puts(elastic::checks_json(elastic::run_checks(argc > 2 ? argv[2] : "")).c_str());
  } else if (first == "--program" && argc == 3) {
    std::optional<ProgramProblem> problem;
    const std::string path = elastic::find_program(argv[2], problem);
    if (!problem) problem = elastic::check_program(path);
    std::printf("%d %s\n", problem ? problem->exit_status : 0,
                problem ? problem->message.c_str() : path.c_str());
  } else if (!first.empty()) {
    const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 0) : std::random_device{}();
    return run_tests(first, seed, argc > 3 ? std::strtoull(argv[3], nullptr, 0) : 200);
  } else {
    std::fprintf(stderr, "usage: facts_test DIRECTORY [SEED [ROUNDS]]\n");
    return 2;
  }
  return 0;
}
