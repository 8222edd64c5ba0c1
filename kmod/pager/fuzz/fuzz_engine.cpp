// The ownership engine between its own node's threads and another node: sequences of faults, frames and calls
// in any order, on home and on a participant. What has to hold all the while: a page is given away only by
// who has it, each time under a newer version, with the bytes that it came with; and it is here as long as it
// was not given away. What is offered without its bytes is what the other end has kept.
#include <unordered_map>

#include "../test/engine_test_kit.hpp"
#include "../src/frame_check.hpp"
#include "fuzz_kit.hpp"

using namespace elastic;

namespace {

constexpr uint64_t kPages = 48, kOtherNode = 1;

// What is known of a page from what was said about it.
struct Known {
  bool here = false;
  uint64_t version = 0;  // the newest that was seen
  uint64_t word = 0;     // its first eight bytes
};

class World {
 public:
  // `first`: of the pages that are spoken of.
  World(uint16_t self, uint64_t first)
      : scene_(self, self == kHome ? kOtherNode : kHome, directory()), self_(self), first_(first) {
    scene_.join();
    node_ = scene_.lanes.find(scene_.other_index);
    node_->lease.pages_max = 1 << 20;
    node_->lease.expires_us = ~0ull;
  }
  void run(fuzz::Input& in);

 private:
  static std::string directory() {
    const char* given = getenv("FUZZ_DIRECTORY");  // the spill refuses file systems in memory
    return given != nullptr ? given : ".";
  }
  void restart();
  void step(fuzz::Input& in);
  void local_step(fuzz::Input& in, uint64_t page);
  void say_pages(fuzz::Input& in, FrameType type, uint64_t page);
  void say(FrameType type, FrameHeader header, const std::vector<uint8_t>& payload = {});
  void came(const PageMeta& meta, uint64_t word);
  void hear();
  void hear_frame(const Frame& frame);
  void offer_step(fuzz::Input& in, uint64_t page);
  void answered(const PageMeta& meta);
  void hear_offer(const PageMeta& meta);
  void write(uint64_t page);
  void left(const PageMeta& meta, const uint8_t* data);
  void check();
  uint64_t newer_version(fuzz::Input& in, uint64_t page);

  test::Scene scene_;
  uint16_t self_;
  uint64_t first_;
  Node* node_;
  std::unordered_map<uint64_t, Known> known_;
  std::unordered_map<uint64_t, Known> copies_;  // what the other end, or a lender here, has kept
  uint64_t words_ = 1;
};

void World::restart() {
  hear();
  scene_.engine.reset();
  scene_.memory.reset();
  scene_.regions.clear();
  scene_.regions.insert(test::region(first_, kPages, 3, RegionKind::elastic));
  scene_.engine.set_limit(4096);
  node_->synced = true;
  node_->status.pages_limit = 1 << 20;  // more than it can be sent
  known_.clear();
  copies_.clear();
  scene_.host.stay = self_ == kHome;
  for (uint64_t page = first_; page < first_ + kPages; page++) known_[page].here = self_ == kHome;
}

// Mostly what the next owner would say, sometimes old, sometimes of another life.
uint64_t World::newer_version(fuzz::Input& in, uint64_t page) {
  const uint64_t now = scene_.table.peek(page).version;
  switch (in.below(6)) {
    case 0: return now > 0 ? now - 1 : 0;
    case 1: return now;
    case 2: return self_ == kHome ? now + 1 : ((now >> 32) + 1) << 32;  // births are home's to give
    default: return now + 1 + in.below(3);
  }
}

void World::say(FrameType type, FrameHeader header, const std::vector<uint8_t>& payload) {
  header.type = static_cast<uint16_t>(type);
  header.epoch = header.image = 1;
  header.payload_bytes = static_cast<uint32_t>(payload.size());
  if (frame_problem(header, payload)) return;
  scene_.on_frame(*node_, {header, payload}, false);
}

// The rule of docs/architecture.md, "Ownership".
void World::came(const PageMeta& meta, uint64_t word) {
  Known& known = known_[meta.page];
  const PageEntry& e = scene_.table.peek(meta.page);
  if (meta.version <= e.version) return;
  if (self_ == kHome && e.state() != PageState::remote && e.state() != PageState::in_flight) return;
  known = {true, meta.version, word};
}

void World::say_pages(fuzz::Input& in, FrameType type, uint64_t page) {
  FrameHeader header;
  header.count = static_cast<uint32_t>(std::min<uint64_t>(1 + in.below(4), first_ + kPages - page));
  // A GET that waits is served within the frame, and may take what the frame's next pages were judged by.
  for (uint64_t i = first_; i < first_ + kPages; i++)
    if (scene_.table.peek(i).deferred) header.count = 1;
  std::vector<PageMeta> metas(header.count);
  std::vector<uint8_t> data;
  if (type == FrameType::pages && in.below(2) == 0) header.flags = kKeepsCopies;
  for (uint32_t i = 0; i < header.count; i++) {
    const uint64_t kind = in.below(type == FrameType::push ? 2 : 8);
    PageMeta& meta = metas[i];
    meta = {page + i, newer_version(in, page + i), 0, kPageZero, 0};
    if (kind > 4) {  // an answer without the page
      meta.flags = static_cast<uint16_t>(kPageMoved << (kind - 5));
      meta.owner = static_cast<uint16_t>(in.below(4));
      answered(meta);
      continue;
    }
    const uint64_t word = kind == 0 ? 0 : words_++;
    if (word != 0) {
      meta.flags = kPageData;
      data.resize(data.size() + kPageBytes, 0);
      memcpy(data.data() + data.size() - kPageBytes, &word, sizeof word);
    }
    came(meta, word);
    if (header.flags == kKeepsCopies && word != 0 && known_[meta.page].word == word)
      copies_[meta.page] = known_[meta.page];
  }
  std::vector<uint8_t> payload(metas.size() * sizeof(PageMeta));
  memcpy(payload.data(), metas.data(), payload.size());
  payload.insert(payload.end(), data.begin(), data.end());
  say(type, header, payload);
}

void World::local_step(fuzz::Input& in, uint64_t page) {
  switch (in.below(9)) {
    case 8: return write(page);
    case 0:
      if (self_ != kHome) return;
      for (uint64_t i = page; i < std::min(page + 4, first_ + kPages); i++)
        known_[i] = {true, scene_.table.peek(i).version, 0};
      return scene_.engine.forget(page, std::min(page + 4, first_ + kPages));
    case 1: scene_.engine.make_resident({page, page ^ 1}, in.below(2) == 0, [] {}); return;
    case 2: scene_.engine.unpin(page); return;
    case 3: scene_.engine.set_limit(in.below(2) == 0 ? 20 : 4096); return;
    case 4: scene_.engine.reclaim_ahead(); return;
    case 5:
      scene_.engine.ship_with_jump(*node_, {page, page ^ 1, page ^ 2});
      scene_.engine.drop_shipped();
      return;
    default: scene_.fault(page);
  }
}

void World::step(fuzz::Input& in) {
  const uint64_t page = first_ + in.below(kPages);
  FrameHeader header;
  header.page = page;
  header.count = static_cast<uint32_t>(1 + in.below(4));
  header.version = newer_version(in, page);
  switch (in.below(9)) {
    case 8: return offer_step(in, page);
    case 0:
    case 1:
      if (in.below(2) == 0) header.flags = kKeepsCopies;
      header.version = in.rarely() ? header.version : scene_.table.peek(page).version;
      header.argument = static_cast<uint32_t>(in.below(header.count + 1));
      return say(FrameType::get, header);
    case 2: return say_pages(in, FrameType::push, page);
    case 3: return say_pages(in, FrameType::pages, page);
    case 4: header.argument = static_cast<uint32_t>(in.below(3)); return say(FrameType::owner, header);
    case 5:
      if (self_ == kHome) return;  // home takes no such frame
      say(FrameType::drop, header);
      hear();  // a GET that waited may have taken some of them before their turn
      for (uint64_t i = page; i < std::min(page + header.count, first_ + kPages); i++)
        if (scene_.table.peek(i).state() == PageState::untouched) known_[i].here = false;
      return;
    default: local_step(in, page);
  }
}

// A thread writes to a page; where that is protected it first faults, and may have to wait.
void World::write(uint64_t page) {
  if (self_ != kHome || scene_.table.peek(page).state() != PageState::resident) return;
  if (scene_.table.peek(page).copy_at() != 0) {
    FaultEvent event;
    event.page = page;
    event.tid = 1;
    event.write = event.write_protected = true;
    scene_.engine.on_fault(event);
    if (scene_.table.peek(page).copy_at() != 0) return;
  }
  known_[page].word = words_++;
  REQUIRE(pwrite(scene_.memory.file(), &known_[page].word, sizeof(uint64_t),
                 static_cast<off_t>(address_of(page))) == sizeof(uint64_t));
}

void World::offer_step(fuzz::Input& in, uint64_t page) {
  FrameHeader header;
  header.page = page;
  header.count = 1;
  PageMeta meta{page, in.rarely() ? newer_version(in, page) : scene_.table.peek(page).version + 1, 0, 0, 0};
  if (self_ != kHome) {
    meta.flags = kPageOffered;
  } else {
    meta.flags = in.below(2) == 0 ? kPageMoved : kPageAbsent;
    meta.owner = kOtherNode;
    answered(meta);
  }
  const auto* bytes = reinterpret_cast<const uint8_t*>(&meta);
  say(self_ == kHome ? FrameType::pages : FrameType::push, header,
      std::vector<uint8_t>(bytes, bytes + sizeof meta));
}

// What home is about to hear of a page that it may have offered.
void World::answered(const PageMeta& meta) {
  const PageEntry& e = scene_.table.peek(meta.page);
  const bool taken = self_ == kHome && e.offered() && meta.flags == kPageMoved && meta.owner == kOtherNode &&
                     meta.version == e.version + 1;
  if (!taken) return;
  REQUIRE(copies_[meta.page].word == known_[meta.page].word);
  known_[meta.page].here = false;
  known_[meta.page].version = meta.version;
}

// An offer of home, or the answer of a lender that has taken one.
void World::hear_offer(const PageMeta& meta) {
  Known& known = known_[meta.page];
  const Known& copy = copies_[meta.page];
  REQUIRE(copy.version + 1 == meta.version);
  if (self_ == kHome) {
    REQUIRE(known.here && known.word == copy.word);
  } else {
    REQUIRE(!known.here);
    known = {true, meta.version, copy.word};
  }
}

void World::left(const PageMeta& meta, const uint8_t* data) {
  Known& known = known_[meta.page];
  uint64_t word = 0;
  if (data != nullptr) memcpy(&word, data, sizeof word);
  REQUIRE(known.here);
  REQUIRE(meta.version > known.version);
  REQUIRE(word == known.word);
  known = {false, meta.version, word};
}

// Everything that the engine has said meanwhile.
void World::hear() {
  for (const bool bulk : {false, true}) {
    Lane& ours = bulk ? *node_->bulk : *node_->urgent;
    Lane& theirs = bulk ? *scene_.bulk : *scene_.urgent;
    while (theirs.sequence_received() < ours.sequence_sent()) {
      ours.flush();
      theirs.on_event(EPOLLIN | EPOLLOUT);
      Frame frame;
      while (theirs.next_frame(frame)) hear_frame(frame);
      REQUIRE(theirs.status() == LaneIo::ok && ours.status() == LaneIo::ok);
    }
  }
}

void World::hear_frame(const Frame& frame) {
  const auto type = static_cast<FrameType>(frame.header.type);
  if (type != FrameType::pages && type != FrameType::push) return;
  const uint8_t* data = frame.payload.data() + frame.header.count * sizeof(PageMeta);
  for (uint32_t i = 0; i < frame.header.count; i++) {
    PageMeta meta;
    memcpy(&meta, frame.payload.data() + i * sizeof meta, sizeof meta);
    const bool taken = self_ != kHome && meta.flags == kPageMoved && meta.owner == self_;
    if (meta.flags == kPageOffered || taken) hear_offer(meta);
    if (meta.flags == kPageData || meta.flags == kPageZero)
      left(meta, meta.flags == kPageData ? data : nullptr);
    if (self_ != kHome && meta.flags == kPageData && frame.header.flags == kKeepsCopies)
      copies_[meta.page] = known_[meta.page];
    if (meta.flags == kPageData) data += kPageBytes;
  }
}

void World::check() {
  uint64_t resident = 0;
  for (uint64_t page = first_; page < first_ + kPages; page++) {
    const PageState state = scene_.table.peek(page).state();
    const Known& known = known_[page];
    const bool here = state == PageState::resident || state == PageState::spilled ||
                      (state == PageState::untouched && self_ == kHome);
    REQUIRE(here == known.here);
    if (state != PageState::resident) continue;
    resident++;
    uint64_t word = 0;
    REQUIRE(pread(scene_.memory.file(), &word, sizeof word, static_cast<off_t>(address_of(page))) ==
            sizeof word);
    REQUIRE(word == known.word);
  }
  REQUIRE(resident == scene_.table.resident());
}

void World::run(fuzz::Input& in) {
  restart();
  while (!in.empty()) {
    fuzz::judged();
    try {
      step(in);
    } catch (const Failure& failure) {  // the run would end here, with this line
      REQUIRE(strlen(failure.what()) > 0 && strstr(failure.what(), "bug") == nullptr);
      hear();
      return;
    }
    hear();
    check();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static World home(kHome, test::kPage), lowest(2, 0), highest(2, kPageNumberEnd - kPages);
  fuzz::Input in(data, bytes);
  World* const worlds[] = {&home, &home, &lowest, &highest};
  worlds[in.below(4)]->run(in);
  return 0;
}
