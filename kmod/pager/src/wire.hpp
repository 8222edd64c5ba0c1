// Lane frames: the one header every frame between two pagers of an elastic process begins with, and the types
// that may follow it. TypeScript twin: kmod/lane-frames.ts; a property test keeps them equal.
//
// Why these fields from the first day (docs/architecture.md, "The lane header"): `epoch` fences a rolled-back
// past, `image` fences what belongs to the program before an exec, `sequence` and `ack` let a lost lane be
// resumed without a second owner, and a page's `version` and `last_written_cut` travel with it, so that a
// move neither forgets a write nor counts as one. All fields are little-endian; x86-64 is the only platform,
// so structs are copied as they lie.
#pragma once

#include <cstddef>
#include <cstdint>

namespace elastic {

constexpr uint32_t kWireMagic = 0x31504c45;  // "ELP1"
// Of the frames and all that is in them; raised whenever a layout or a meaning changes. Nodes with different
// ones take no part in each other's runs (facts), and no lane comes about between them.
constexpr uint32_t kProtocolVersion = 3;
constexpr uint32_t kMaxPayloadBytes = 2u << 20;
constexpr uint32_t kMaxPagesPerFrame = 256;

enum class FrameType : uint16_t {
  hello = 1,    // first frame each way; payload: HelloPayload. version 0: a fresh lane; else the connection
                // resumes a lost one of which this sequence came last, and the hello has no sequence itself
  get = 2,      // page, count; argument: which of them is needed; version: the least acceptable of that one
  pages = 3,    // answer to get: one PageMeta for each page asked for, then the data of those that carry it
  push = 4,     // unsolicited move of pages to the receiver: PageMeta array, then data
  map = 5,      // payload: RegionPayload
  drop = 6,     // page, count. argument 0: contents older than `version` end; 1: the mapping ends
  protect = 7,  // page, count; argument: PROT_ bits
  layout_ack = 8,   // argument: ticket. Home asks, behind map, drop and protect; the answer is the same frame
  jump = 9,         // argument: thread; page: where it faulted; version: start time, ns; payload: context
  back = 10,        // argument: thread; flags: reason; page: destination node; version: number of the
                    // system call, if it comes back for one; payload: context
  recall = 11,      // argument: thread: send it home
  thread_end = 12,  // argument: thread: its guest twin is to end
  file_get = 13,    // page, count: read-only file pages wanted (participants ask home)
  file_pages = 14,  // answer: PageMeta array, then data
  status = 15,      // payload: StatusPayload; every 100 ms, renews leases
  stats = 16,       // payload: the sender's Counters (stats.hpp)
  bye = 17,         // payload: reason as text; the sender leaves for good. argument 1: with pages of the run
  reset = 18,       // argument: new image number; everything of the old image is forgotten
  owner = 19,       // page, count, version, argument: node: a hint to home about who owns pages now
  give_back = 20,   // page 0. argument 0: this participant's pages are to go home, 1: it has none any more
  echo = 21,        // payload comes back as echo_reply with `argument` bytes (benchmarks)
  echo_reply = 22,
  setup = 23,  // home, once: how threads decide to jump; argument: --jump-every; payload: the policy's text
  // Reserved for checkpoints (docs/architecture.md, "The lane header"); received, ignored.
  cut = 24,  // marker, on both connections: what came before it belongs to cut `argument`
  ack = 25,  // its header's `ack`, for a connection on which nothing else goes that way: every 100 ms, and
             // after each 256 KiB; version: the last sequence received on the other connection of the lane
  last = ack,
};

constexpr uint16_t kFlagAckWanted = 1;

struct FrameHeader {
  uint32_t magic = kWireMagic;
  uint16_t type = 0;
  uint16_t flags = 0;
  uint32_t payload_bytes = 0;
  uint32_t epoch = 0;
  uint32_t image = 0;
  uint32_t count = 0;
  uint64_t sequence = 0;          // of this half of a lane and direction, from 1, no gaps
  uint64_t ack = 0;               // last sequence received there when this frame was queued
  uint64_t page = 0;              // virtual page number
  uint64_t version = 0;           // birth << 32 | moves
  uint32_t last_written_cut = 0;  // for page frames it is in PageMeta
  uint32_t argument = 0;
};
static_assert(sizeof(FrameHeader) == 64);

enum PageFlags : uint32_t {
  kPageData = 1,     // 4096 bytes follow in the data part
  kPageZero = 2,     // all zeros, no bytes follow; ownership moves as with data
  kPageMoved = 4,    // not here: `owner` is where it went, `version` what it had then
  kPageAbsent = 8,   // the asked node has never seen it or will not give it (only for prefetched pages)
  kPagePinned = 16,  // stays where it is: the asking thread has to go there
  // In a push from home: unwritten since the receiver gave it, so it comes without its bytes. The answer is
  // kPageMoved if the receiver still has them and is the owner from now on, or kPageAbsent.
  kPageOffered = 32,
};

// Flag of a GET of home: the pages will be read, copies are worth keeping. Of its answer: they are kept.
constexpr uint16_t kKeepsCopies = 1;
// Flag of a GET of a participant: only a hint says that the page is there. It is never waited for.
constexpr uint16_t kByHint = 2;

struct PageMeta {
  uint64_t page = 0;
  uint64_t version = 0;
  uint32_t last_written_cut = 0;
  uint16_t flags = 0;
  uint16_t owner = 0;
};
static_assert(sizeof(PageMeta) == 24);

struct HelloPayload {
  uint32_t protocol = kProtocolVersion;
  uint16_t node = 0;       // the sender's index in this elastic process
  uint16_t lane_kind = 0;  // 0 urgent, 1 bulk
  uint64_t process_id = 0;
  uint64_t lease_id = 0;
};
static_assert(sizeof(HelloPayload) == 24);

struct StatusPayload {
  uint64_t pages_resident = 0;
  uint64_t pages_limit = 0;
  uint64_t pages_spilled = 0;
  uint32_t threads_running = 0;
  uint32_t pages_taken = 0;  // that the receiver of this frame pushed here in this image, modulo 2^32
};
static_assert(sizeof(StatusPayload) == 32);

constexpr uint32_t kRegionElastic = 1;  // pages have one owner and move
constexpr uint32_t kRegionReplica = 2;  // read-only file pages, copied freely

struct RegionPayload {
  uint64_t start_page = 0;
  uint64_t page_count = 0;
  uint32_t prot = 0;  // PROT_ bits
  uint32_t kind = kRegionElastic;
  uint64_t birth_version = 0;
};
static_assert(sizeof(RegionPayload) == 32);

}  // namespace elastic
