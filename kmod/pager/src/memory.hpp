// One node's share of the elastic memory, and the address space it is mapped into: the userfaultfd back end
// of the elastic page table port.
//
// All elastic pages of a node lie in one memfd at file offset = virtual address. Without an address space (a
// node that only lends memory) pages are written to and read from the file; once a process is attached (the
// application at home, the shell elsewhere) the ranges are mapped there and faults arrive on its userfaultfd.
// Limits: this class knows nothing of owners; the caller's table says which pages are here.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "injector.hpp"
#include "uffd.hpp"
#include "util.hpp"

namespace elastic {

struct PageRun {
  uint64_t page = 0;
  uint64_t count = 0;
};

class Memory {
 public:
  Memory();
  int file() const { return file_.get(); }

  // `file_number` is the injector's descriptor number of this node's memfd.
  void attach(Injector injector, Uffd uffd, int file_number);
  void detach();  // the process is gone; contents stay
  void reset();   // exec: detached, and a fresh, empty memfd
  bool attached() const { return static_cast<bool>(uffd_); }
  Injector& injector() { return injector_; }
  Uffd& uffd() { return uffd_; }

  // Mappings; 0 or -errno as the kernel's call. Page numbers. `exclusive`: fails with -EEXIST if something is
  // there.
  //
  // Between the mapping and its registration a thread that touches it gets a page of zeros without any event:
  // map() is for ranges that no thread may use meanwhile, or whose pages are all in the file. map_closed()
  // raises SIGSEGV meanwhile, which guest threads survive: they go home.
  int map(uint64_t page, uint64_t count, int prot, bool exclusive = false);
  int map_closed(uint64_t page, uint64_t count, int prot);
  int unmap(uint64_t page, uint64_t count);
  int protect(uint64_t page, uint64_t count, int prot);

  // What the program gives back stays mapped for a while, *vacant*: to the program and the kernel it is as
  // unmapped, because it is empty, so that whoever touches it waits in a fault, and the caller then really
  // unmaps it (unmap_vacant) and wakes him. What a heap grows by, or an allocator maps at the same place
  // again, so costs no call. There is one such range; what is not next to it takes its place. Whatever else
  // tells mapped memory from unmapped (mincore, a fork, a call by its own hand) must come after
  // unmap_vacant().
  //
  // vacate: it is mapped with kVacantProt, and its contents have been dropped. grow: as map() with
  // kVacantProt, exclusive, of what follows memory that is mapped so; more than asked for becomes vacant.
  static constexpr int kVacantProt = PROT_READ | PROT_WRITE;
  void vacate(uint64_t page, uint64_t count);
  int grow(uint64_t page, uint64_t count);
  void unmap_vacant();
  bool is_vacant(uint64_t page) const { return page - vacant_.page < vacant_.count; }

  // Contents. place: the pages become present and waiting threads run on; with a mapped range it is atomic
  // towards the application. take: copies out and drops; `protect` first, when threads may be running (no
  // write is lost: a writer then waits in a fault).
  // `write_protected`: the first write to each of them then waits in a fault.
  void place(uint64_t page, const uint8_t* data, uint64_t count, bool write_protected = false);
  void place_zero(uint64_t page, uint64_t count);
  void read(uint64_t page, uint8_t* out, uint64_t count);
  void take(uint64_t page, uint8_t* out, uint64_t count, bool protect);
  void drop(uint64_t page, uint64_t count);
  void wake(uint64_t page, uint64_t count);
  void unprotect(uint64_t page, uint64_t count);

  // Pages of [first, end) whose translation is present, i.e. used since the last forget_use() (PAGEMAP_SCAN,
  // or pagemap bit 63 where that does not exist).
  void scan_used(uint64_t first, uint64_t end, const std::function<void(PageRun)>& found);
  // Drops translations (not contents) so that the next use shows again. The range must be elastic throughout.
  void forget_use(uint64_t page, uint64_t count);
  // Pages of [first, end) written since they were last write-protected by this function or protect_written().
  void scan_written(uint64_t first, uint64_t end, const std::function<void(PageRun)>& found);
  void protect_written(uint64_t page, uint64_t count);

 private:
  void scan(uint64_t first, uint64_t end, uint64_t category, const std::function<void(PageRun)>& found);
  void scan_by_pagemap(uint64_t first, uint64_t end, uint64_t category,
                       const std::function<void(PageRun)>& found);
  bool take_vacant(uint64_t page, uint64_t count);
  bool overlaps_vacant(uint64_t page, uint64_t count) const {
    return page < vacant_.page + vacant_.count && vacant_.page < page + count;
  }
  Fd file_;
  PageRun vacant_{};
  Injector injector_;
  Uffd uffd_;
  int file_number_ = -1;
  Fd pagemap_;
  bool scan_ioctl_ = true;
};

}  // namespace elastic
