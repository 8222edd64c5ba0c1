// The spill file of one pager: pages that found no room in any memory. An O_TMPFILE file (0600) in the data
// directory, so that a crash leaves nothing behind; written and read with O_DIRECT (a spilled page must not
// linger in the page cache: that is memory too), or buffered with write-out and POSIX_FADV_DONTNEED where the
// file system has no direct I/O. Slow work runs on worker threads; completions are announced through an
// eventfd.
//
// Every call may come from any thread, drain() from one at a time. A freed slot gives its blocks back to the
// disk within about a quarter of a second of idleness (spill_slots.hpp, spill_file.hpp), at the latest when
// 16 MiB of them have gathered. Limits: 512 KiB of pages being written, 256 KiB being read and 64 KiB for
// read_now(), which is all the page memory it has; no order between writes of different calls.
//
// A slot that was never written, or was freed, must not be read or freed (again): that is a bug and aborts.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace elastic {

enum class SpillError { none, full, io };  // full: the file's limit or ENOSPC/EDQUOT

class Spill {
 public:
  static constexpr uint64_t kBytesMax = 1ull << 38;  // the page table has 26 bits for a slot
  static constexpr size_t kBufferBytes = 768 << 10;  // of all buffers together, once it is in use

  // Creates the file. Signals are blocked in the workers. Throws std::system_error (EOPNOTSUPP with a message
  // that names the remedy if `directory` is on tmpfs/ramfs; EFBIG beyond kBytesMax; ENOENT, EACCES … as they
  // come).
  Spill(const std::string& directory, uint64_t bytes_max, int workers = 2);
  ~Spill();  // joins the workers; what is still queued is dropped and its `done` never runs

  int event_fd() const;  // readable when completions wait
  uint64_t slots_used() const;
  bool buffered() const;  // no direct I/O here: pages go through the page cache and are dropped from it

  // Queues a write of pages that lie one after another in `data` (4096 bytes each; copied before return into
  // one of a bounded set of aligned buffers). Gives each page a slot in `slots_out`. Returns full if no slot
  // or no buffer is to be had (buffers_busy() tells which); the caller tries later or elsewhere.
  // `done(error)` runs from drain(); on error the slots are free again when `done` returns (not the caller's
  // to free), and inside it buffered_page() still gives their bytes. At most 128 pages a call (what the
  // buffers hold); 16 to 64 are a good batch.
  SpillError write(std::span<const uint8_t> data, std::span<uint32_t> slots_out,
                   std::function<void(SpillError)> done);
  // Whether a write of so many pages would find buffers; if not, buffers_busy() holds until it would. Asked
  // before pages are protected and copied for a write that could not be taken.
  bool has_buffers(size_t pages);
  bool buffers_busy() const;      // the last write() found too few buffers, and still would: drain() helps
  size_t buffered_bytes() const;  // held in write buffers now; at most 512 KiB
  size_t reading_bytes() const;   // held in read buffers now; at most 256 KiB

  // The bytes of a slot whose write has not finished yet, or null: a fault on it needs no disk. Valid until
  // the next drain(), inside a `done` until that returns.
  const uint8_t* buffered_page(uint32_t slot) const;

  // Queues a read of slots into a buffer; `done(error, data)` runs from drain(), data in the order asked
  // (runs of neighbouring slots become one read). At most 64 slots a call; waits its turn while the read
  // buffers are taken. Slots may be freed as soon as this returns.
  void read(std::span<const uint32_t> slots, std::function<void(SpillError, std::span<const uint8_t>)> done);
  // The same, at once, in the calling thread (for the moment when there is nothing else to do), any number of
  // slots. Fastest into an `out` aligned to 4096: then no byte is copied. False on error.
  bool read_now(std::span<const uint32_t> slots, uint8_t* out);

  void free_slot(uint32_t slot);  // a slot whose write or read is still under way is freed when that is done
  void drain();                   // runs completions; call when event_fd() is readable

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace elastic
