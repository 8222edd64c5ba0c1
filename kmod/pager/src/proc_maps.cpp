// See proc_maps.hpp.
#include "proc_maps.hpp"

#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cinttypes>
#include <cstdio>

#include "proc_text.hpp"

namespace elastic {

namespace {
constexpr size_t kNameColumn = 73;  // show_vma_header_prefix() and seq_pad() on a 64-bit kernel
}  // namespace

std::vector<Mapping> read_maps(pid_t pid, Injector& injector) {
  std::vector<Mapping> maps;
  ProcLines lines(open_of_task(pid, "maps", O_RDONLY, &injector));
  if (!lines) fail_errno("cannot read the mappings of process %d", pid);
  while (const char* line = lines.next())
    if (auto mapping = parse_mapping(line)) maps.push_back(std::move(*mapping));
  return maps;
}

std::optional<Mapping> parse_mapping(const char* line) {
  Mapping mapping;
  char flags[8] = {}, device[32] = {};
  int name_at = 0;
  if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %" SCNx64 " %31s %" SCNu64 " %n", &mapping.start,
             &mapping.end, flags, &mapping.offset, device, &mapping.file.inode, &name_at) < 6)
    return std::nullopt;
  mapping.prot = (flags[0] == 'r' ? PROT_READ : 0) | (flags[1] == 'w' ? PROT_WRITE : 0) |
                 (flags[2] == 'x' ? PROT_EXEC : 0);
  mapping.is_private = flags[3] == 'p';
  mapping.file.device = device;
  mapping.file.path = line + name_at;
  return mapping;
}

FileName file_name(int fd) {
  FileName name;
  struct stat info {};
  if (fstat(fd, &info) != 0) return name;
  name.device = format("%02x:%02x", major(info.st_dev), minor(info.st_dev));
  name.inode = info.st_ino;
  char path[PATH_MAX];
  const ssize_t length = readlink(format("/proc/self/fd/%d", fd).c_str(), path, sizeof path);
  for (ssize_t i = 0; i < length; i++) {
    if (path[i] == '\n')
      name.path += "\\012";
    else
      name.path += path[i];
  }
  return name;
}

std::string maps_line(const Mapping& mapping) {
  std::string line =
      format("%08" PRIx64 "-%08" PRIx64 " %c%c%c%c %08" PRIx64 " %s %" PRIu64 " ", mapping.start, mapping.end,
             (mapping.prot & PROT_READ) != 0 ? 'r' : '-', (mapping.prot & PROT_WRITE) != 0 ? 'w' : '-',
             (mapping.prot & PROT_EXEC) != 0 ? 'x' : '-', mapping.is_private ? 'p' : 's', mapping.offset,
             mapping.file.device.c_str(), mapping.file.inode);
  if (!mapping.file.path.empty()) {
    if (line.size() < kNameColumn) line.resize(kNameColumn, ' ');
    line += mapping.file.path;
  }
  return line + '\n';
}

}  // namespace elastic
