// One node of engine_lockstep.cpp: a real Engine with its table, memory and spill, on lanes that lead
// nowhere.
#pragma once

#include <poll.h>

#include <cinttypes>
#include <deque>
#include <map>

#include "engine.hpp"

namespace elastic {

// What the steps need of an Engine beyond its interface.
class EngineLockstep {
 public:
  static void evict(Engine& engine, Spill& spill, Node* to, std::vector<uint64_t> pages) {
    std::erase_if(pages, [&](uint64_t page) { return !engine.may_leave(page, now_us()); });
    if (pages.empty()) return;
    engine.offer(pages);
    if (pages.empty()) return;
    if (to != nullptr) return engine.push(*to, pages, true);
    if (!engine.spill_pages(pages)) throw Failure("the spill did not take the pages");
    while (spill.buffered_bytes() > 0) {
      pollfd written{spill.event_fd(), POLLIN, 0};
      poll(&written, 1, 1000);
      spill.drain();
    }
  }
  static void print_counts(const Engine& e) {
    std::printf("%" PRIu64 ",%" PRId64 ",%" PRIu64 ",%zu,%" PRId64 ",%d", e.table_.resident(), e.expected_,
                e.copied_, e.deferred_.size(), e.offered_, e.copies_pay_);
  }
};

// Small enough that first touches are not filled in blocks, and large enough that nobody is short of room: at
// home the buffers of the disk take half of it, once it is in use.
constexpr uint64_t kPagesLimit = 126, kPagesMax = 60;
constexpr uint64_t kSpillBytes = 1 << 20;

struct Sent {
  FrameHeader header;
  std::vector<uint8_t> payload;
};

inline void print_frame(const Sent& sent) {
  const FrameHeader& h = sent.header;
  std::printf("%u:%u:%" PRIu64 ":%u:%" PRIu64 ":%u", h.type, h.flags, h.page, h.count, h.version, h.argument);
  const auto type = static_cast<FrameType>(h.type);
  if (type != FrameType::pages && type != FrameType::push) return;
  const uint8_t* data = sent.payload.data() + h.count * sizeof(PageMeta);
  for (uint32_t i = 0; i < h.count; i++) {
    PageMeta meta;
    memcpy(&meta, sent.payload.data() + i * sizeof meta, sizeof meta);
    uint64_t word = 0;
    if (meta.flags == kPageData) {
      memcpy(&word, data, sizeof word);
      data += kPageBytes;
    }
    std::printf("/%" PRIu64 ":%" PRIu64 ":%u:%u:%u:%" PRIu64, meta.page, meta.version, meta.last_written_cut,
                meta.flags, meta.owner, word);
  }
}

// Lanes that take everything and give it to nobody.
struct KeptLanes : Lanes {
  using Lanes::Lanes;
  bool send(Node& node, FrameType type, FrameHeader header, std::span<const iovec> parts,
            bool bulk) override {
    if (!node.up) return false;
    header.type = static_cast<uint16_t>(type);
    Sent sent{header, {}};
    for (const iovec& part : parts) {
      const auto* bytes = static_cast<const uint8_t*>(part.iov_base);
      sent.payload.insert(sent.payload.end(), bytes, bytes + part.iov_len);
    }
    sent.header.payload_bytes = static_cast<uint32_t>(sent.payload.size());
    std::printf(" %u>%u%c:", self, node.index, bulk ? 'b' : 'u');
    print_frame(sent);
    queues[node.index][bulk].push_back(std::move(sent));
    return false;  // no connection, hence no sequence to note
  }
  bool bulk_has_room(const Node&, size_t) const override { return true; }
  uint16_t self = 0;
  std::map<uint16_t, std::array<std::deque<Sent>, 2>> queues;
};

// A page as the twin sees it.
struct Seen {
  uint64_t version = 0, word = 0;
  uint32_t state = 0, where = 0, cut = 0, flags = 0;
  bool operator==(const Seen&) const = default;
};

struct Member : EngineHost, LaneEvents {
  Member(uint16_t index, bool stays, const Region& mapped, const std::string& directory)
      : self(index),
        stay(stays),
        region(mapped),
        spill(directory, kSpillBytes, 1),
        lanes(loop, 1, index, *this, counters),
        engine(loop, memory, table, regions, lanes, spill, *this, {index, kPagesLimit}, counters),
        seen(mapped.end - mapped.start) {
    lanes.self = index;
    regions.insert(mapped);
  }
  void connect(uint16_t other) {
    if (lanes.find(other) != nullptr) throw Failure("this lane is up already");
    Node node;
    node.index = other;
    node.lease.expires_us = ~0ull;
    Node& added = lanes.add(std::move(node));
    added.up = added.synced = true;
  }
  void disconnect(uint16_t other) {
    Node& node = peer(other);
    node.up = false;
    engine.on_node_down(node);
    lanes.queues.erase(other);
    lanes.remove(other, "");
  }
  Node& peer(uint16_t other) {
    Node* node = lanes.find(other);
    if (node == nullptr) throw Failure("this lane is not up");
    return *node;
  }
  void access(uint64_t page, bool write, uint64_t word);
  Seen look(uint64_t page) const;
  void print_changes();

  // EngineHost
  bool leave_for(const FaultEvent&, uint16_t) override { return false; }
  void on_local_fault(const FaultEvent&) override {}
  bool threads_here() const override { return threads; }
  bool threads_may_run() const override { return threads; }
  bool threads_stay() const override { return stay; }
  bool fill_from_backing(uint64_t, uint8_t*) override { return false; }
  void must_go_home(uint64_t page) override { std::printf(" %u>go-home:%" PRIu64, self, page); }
  void want_lane(uint16_t node) override { std::printf(" %u>want-lane:%u", self, node); }
  void out_of_room(uint64_t) override { throw Failure("there is no room"); }
  void tell_room() override {}
  // LaneEvents: of lanes without connections.
  void on_up(Node&) override {}
  void on_down(Node&, const std::string&) override {}
  void on_frame(Node&, const Frame&, bool) override {}
  void on_refused(const std::string&) override {}
  void on_drained(Node&) override {}

  uint16_t self;
  bool stay, threads = true;
  Region region;
  Loop loop;
  Counters counters;
  Memory memory;
  PageTable table;
  RegionMap regions;
  Spill spill;
  KeptLanes lanes;
  Engine engine;
  std::vector<Seen> seen;
};

// As a thread does it: a write to a protected page faults first, and may have to wait.
inline void Member::access(uint64_t page, bool write, uint64_t word) {
  FaultEvent fault;
  fault.page = page;
  fault.tid = 1;
  fault.write = write;
  const PageEntry& e = table.peek(page);
  fault.write_protected = e.state() == PageState::resident && write && e.copy_at() != 0;
  if (e.state() != PageState::resident || fault.write_protected) engine.on_fault(fault);
  if (!write || e.state() != PageState::resident || e.copy_at() != 0) return;
  if (pwrite(memory.file(), &word, sizeof word, static_cast<off_t>(address_of(page))) != sizeof word)
    fail_errno("writing a page");
}

inline Seen Member::look(uint64_t page) const {
  const PageEntry& e = table.peek(page);
  const PageState state = e.state();
  const bool in_flight = state == PageState::in_flight;
  const bool elsewhere = in_flight || state == PageState::remote || state == PageState::copied;
  Seen now;
  now.version = e.version;
  now.state = static_cast<uint32_t>(state);
  now.where = elsewhere ? static_cast<uint32_t>(e.where) : e.copy_at();
  now.cut = static_cast<uint32_t>(e.last_written_cut);
  const bool flags[] = {e.pinned != 0, e.deferred != 0, e.watched != 0, in_flight && e.prefetched,
                        e.offered()};
  for (size_t i = 0; i < std::size(flags); i++) now.flags |= static_cast<uint32_t>(flags[i]) << i;
  if (state != PageState::resident && state != PageState::copied) return now;
  if (pread(memory.file(), &now.word, sizeof now.word, static_cast<off_t>(address_of(page))) !=
      sizeof now.word)
    fail_errno("reading a page");
  return now;
}

inline void Member::print_changes() {
  for (uint64_t page = region.start; page < region.end; page++) {
    const Seen now = look(page);
    Seen& before = seen[page - region.start];
    if (now == before) continue;
    before = now;
    std::printf(" %u.%" PRIu64 "=%u,%" PRIu64 ",%u,%u,%u,%" PRIu64, self, page, now.state, now.version,
                now.where, now.cut, now.flags, now.word);
  }
  std::printf(" %u=", self);
  EngineLockstep::print_counts(engine);
  if (self != kHome) return;
  for (const auto& [index, node] : lanes.all()) std::printf(",%u:%" PRIu64, index, node->pages_owned_hint);
}

}  // namespace elastic
