// /proc/PID/maps, read line by line, and its lines written as the kernel writes them.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "injector.hpp"
#include "regions.hpp"

namespace elastic {

struct Mapping {
  uint64_t start = 0, end = 0;  // addresses
  int prot = 0;
  bool is_private = false;
  uint64_t offset = 0;  // of `start` in the file, bytes
  FileName file;
  bool anonymous() const { return file.inode == 0; }
};

std::optional<Mapping> parse_mapping(const char* line);

// Of a stopped or running process whose injector is at hand; throws Failure.
std::vector<Mapping> read_maps(pid_t pid, Injector& injector);

// The name of an open file.
FileName file_name(int fd);

std::string maps_line(const Mapping& mapping);

}  // namespace elastic
