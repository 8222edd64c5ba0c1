// `elasticos-pager engine-lockstep DIRECTORY`: one real Engine for each node of an elastic process, driven by
// lines of text, so that a test can compare them with their TypeScript twin (kmod/ownership). Lanes keep what
// is sent until a step delivers it, and time stands still between steps.
//
// Steps. PAGES are page numbers; nodes are indices, 0 is home.
//   n NODES STAY FIRST COUNT    a new world, with one region and home's lanes; STAY: no thread leaves home
//   u A B | x A B               the lane between two nodes comes up | is lost with all that was on it
//   a NODE PAGE r|w WORD        a thread reads or writes
//   d FROM TO u|b               the oldest frame of that connection arrives
//   i FROM TO TYPE FLAGS PAGE COUNT VERSION ARGUMENT {PAGE VERSION CUT FLAGS OWNER WORD}    a forged one does
//   e NODE TO|d PAGES           evicts to a node or to the disk
//   s NODE TO PAGES             sends ahead of a jump
//   g OWNER                     home asks for what that node owns
//   f FIRST END                 home forgets [FIRST, END)
//   p PAGE | q PAGE             home makes a page stay | lets it go
//   c NODE                      a lender gives up its copies
//   h NODE 0|1                  whether a thread runs there
//   k NODE OF {FIRST PAGES VERSION}    a node is told what another one says that it owns
//   t US                        it is that late
// Each step is answered by one line: ` NODE>…` for every frame and wish, in their order, ` NODE.PAGE=…` for
// every page that is not as before, ` NODE=…` for the counts of each node that the step was about. Home's
// failure ends the world; its line ends with `lost`.
#include "engine_lockstep.hpp"

#include <iostream>
#include <set>
#include <sstream>

#include "engine_lockstep_node.hpp"
#include "frame_check.hpp"

namespace elastic {

namespace {

constexpr uint64_t kStartUs = 1'000'000;

class World {
 public:
  explicit World(std::string directory) : directory_(std::move(directory)) {}
  // False: not understood.
  bool step(const std::string& line);

 private:
  using Words = std::istringstream;
  bool begin(Words& in);
  bool act(char kind, Words& in);
  bool lane(char kind, Words& in);
  bool move(char kind, Words& in);
  bool home(char kind, Words& in);
  bool deliver(Words& in);
  bool forge(Words& in);
  bool hint(Words& in);
  Member& member(uint16_t index);
  void arrive(Member& at, uint16_t from, const Sent& sent) {
    at.engine.on_frame(at.peer(from), {sent.header, sent.payload});
  }

  std::string directory_;
  std::vector<std::unique_ptr<Member>> members_;
  std::set<uint16_t> touched_;
};

Member& World::member(uint16_t index) {
  if (index >= members_.size()) throw Failure(format("there is no node %u", index));
  touched_.insert(index);
  return *members_[index];
}

bool World::begin(Words& in) {
  uint16_t nodes = 0;
  bool stay = false;
  Region region;
  uint64_t pages = 0;
  if (!(in >> nodes >> stay >> region.start >> pages) || nodes > kNodesMax || pages > kPagesMax) return false;
  region.end = region.start + pages;
  region.prot = 3;
  stop_clock(kStartUs);
  members_.clear();
  for (uint16_t i = 0; i < nodes; i++)
    members_.push_back(std::make_unique<Member>(i, stay && i == kHome, region, directory_));
  for (uint16_t i = 1; i < nodes; i++) {
    member(i).connect(kHome);
    member(kHome).connect(i);
  }
  return true;
}

bool World::lane(char kind, Words& in) {
  uint16_t a = 0, b = 0;
  if (!(in >> a >> b)) return false;
  for (const auto& [at, other] : {std::pair(a, b), std::pair(b, a)})
    kind == 'u' ? member(at).connect(other) : member(at).disconnect(other);
  return true;
}

bool World::move(char kind, Words& in) {
  uint16_t index = 0;
  std::string to;
  if (!(in >> index >> to)) return false;
  std::vector<uint64_t> pages;
  for (uint64_t page = 0; in >> page;) pages.push_back(page);
  Member& from = member(index);
  Node* target =
      to == "d" ? nullptr : &from.peer(static_cast<uint16_t>(std::strtoul(to.c_str(), nullptr, 10)));
  if (kind == 'e')
    EngineLockstep::evict(from.engine, from.spill, target, pages);
  else
    from.engine.ship_with_jump(*target, pages);
  from.engine.drop_shipped();
  return true;
}

bool World::home(char kind, Words& in) {
  uint64_t first = 0, end = 0;
  if (!(in >> first) || (kind == 'f' && !(in >> end))) return false;
  Engine& engine = member(kHome).engine;
  switch (kind) {
    case 'f': engine.forget(first, end); break;
    case 'g': engine.fetch_from(static_cast<uint16_t>(first)); break;
    case 'p': engine.make_resident({first}, true, [] {}); break;
    default: engine.unpin(first);
  }
  return true;
}

bool World::deliver(Words& in) {
  uint16_t from = 0, to = 0;
  char connection = 0;
  if (!(in >> from >> to >> connection)) return false;
  if (from >= members_.size()) return false;
  auto& queue = members_[from]->lanes.queues[to][connection == 'b'];
  if (queue.empty()) return false;
  const Sent sent = std::move(queue.front());
  queue.pop_front();
  arrive(member(to), from, sent);
  return true;
}

bool World::forge(Words& in) {
  uint16_t from = 0, to = 0;
  Sent sent;
  FrameHeader& h = sent.header;
  if (!(in >> from >> to >> h.type >> h.flags >> h.page >> h.count >> h.version >> h.argument)) return false;
  std::vector<uint8_t> data;
  PageMeta meta;
  uint64_t word = 0;
  while (in >> meta.page >> meta.version >> meta.last_written_cut >> meta.flags >> meta.owner >> word) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(&meta);
    sent.payload.insert(sent.payload.end(), bytes, bytes + sizeof meta);
    if (meta.flags != kPageData) continue;
    data.resize(data.size() + kPageBytes);
    memcpy(data.data() + data.size() - kPageBytes, &word, sizeof word);
  }
  sent.payload.insert(sent.payload.end(), data.begin(), data.end());
  h.payload_bytes = static_cast<uint32_t>(sent.payload.size());
  if (frame_problem(h, sent.payload)) return false;
  arrive(member(to), from, sent);
  return true;
}

bool World::hint(Words& in) {
  uint16_t at = 0, of = 0;
  if (!(in >> at >> of)) return false;
  std::vector<OwnedRange> ranges;
  for (OwnedRange range; in >> range.first >> range.pages >> range.version;) ranges.push_back(range);
  const auto checked = unpack_owned(pack_owned(ranges));
  if (!checked) return false;
  member(at).engine.set_hints(of, *checked);
  return true;
}

bool World::act(char kind, Words& in) {
  uint64_t number = 0, page = 0, word = 0;
  char access = 0;
  switch (kind) {
    case 'n': return begin(in);
    case 'u':
    case 'x': return lane(kind, in);
    case 'e':
    case 's': return move(kind, in);
    case 'd': return deliver(in);
    case 'i': return forge(in);
    case 'a':
      if (!(in >> number >> page >> access >> word)) return false;
      member(static_cast<uint16_t>(number)).access(page, access == 'w', word);
      return true;
    case 'c':
      if (!(in >> number)) return false;
      member(static_cast<uint16_t>(number)).engine.discard_copies();
      return true;
    case 'h':
      if (!(in >> number >> page)) return false;
      member(static_cast<uint16_t>(number)).threads = page != 0;
      return true;
    case 'k': return hint(in);
    case 't':
      if (!(in >> number)) return false;
      stop_clock(number);
      for (uint16_t i = 0; i < members_.size(); i++) member(i).loop.run_once(0);
      return true;
    default: return home(kind, in);
  }
}

bool World::step(const std::string& line) {
  Words in(line);
  char kind = 0;
  in >> kind;
  touched_.clear();
  try {
    if (!act(kind, in)) return false;
    for (const uint16_t index : touched_) members_[index]->print_changes();
    std::printf("\n");
  } catch (const Failure& failure) {
    const bool lost = strcmp(failure.what(), "a page belongs to a node that is gone") == 0;
    std::printf(" %s\n", lost ? "lost" : failure.what());
  }
  return true;
}

}  // namespace

int engine_lockstep(int argc, char** argv) {
  if (argc != 1) {
    std::fprintf(stderr, "engine-lockstep DIRECTORY\n");
    return 2;
  }
  World world(argv[0]);
  for (std::string line; std::getline(std::cin, line);) {
    if (world.step(line)) continue;
    std::fprintf(stderr, "engine-lockstep: not a step: %s\n", line.c_str());
    return 2;
  }
  return 0;
}

}  // namespace elastic
