// Tests of the page table's order (table.hpp) against a list, of what it takes of memory, and of the summary
// of where its pages are (page_summary.hpp), and what it says of its own (owned_summary.hpp).
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "../src/owned_summary.hpp"
#include "../src/page_summary.hpp"
#include "../src/table.hpp"

namespace elastic::test {
namespace {

constexpr uint64_t kFirst = 0x555555554;  // as programs are placed

#define CHECK(condition)                                                         \
  do {                                                                           \
    if (!(condition)) {                                                          \
      std::printf("%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                              \
    }                                                                            \
  } while (false)

uint64_t anonymous_bytes() {
  std::ifstream file("/proc/self/smaps_rollup");
  for (std::string word; file >> word;)
    if (word == "Anonymous:") {
      uint64_t kib = 0;
      file >> kib;
      return kib << 10;
    }
  return 0;
}

void take_away(PageTable& table, uint64_t page) {
  table.remove(page);
  table.entry(page).set_state(PageState::remote);
}

void test_memory() {
  constexpr uint64_t kPages = 1 << 20, kSlack = 1 << 20;
  PageTable table;
  const uint64_t before = anonymous_bytes();
  for (uint64_t page = kFirst; page < kFirst + kPages; page++) table.insert_front(page);
  CHECK(before > 0 && anonymous_bytes() - before <= kPages * (16 + 12) + kSlack);
  for (uint64_t page = kFirst; page < kFirst + kPages; page++) take_away(table, page);
  for (uint64_t page = kFirst; page < kFirst + kPages; page++) table.insert_front(page);
  CHECK(table.resident() == kPages && anonymous_bytes() - before <= kPages * (16 + 12) + kSlack);
  table.clear();
  CHECK(table.last() == 0 && anonymous_bytes() - before <= kSlack);
}

// Rounds that a resident page has left; none afterwards.
unsigned rounds(PageTable& table, uint64_t page) {
  unsigned count = 0;
  while (table.spare(table.peek(page).where)) count++;
  return count;
}

// One that is back within as many departures as there are pages has two rounds, however many came before.
void test_ghosts() {
  constexpr uint64_t kPages = 800;
  PageTable table;
  for (uint64_t i = 0; i < kPages; i++) table.insert_front(kFirst + i);
  uint64_t next = kFirst + kPages;
  const auto others = [&](uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
      take_away(table, table.page_at(table.last()));
      table.insert_front(next++);
    }
  };
  for (int round = 0; round < 300; round++) {
    const uint64_t page = next - 1;
    CHECK(rounds(table, page) == 0);
    take_away(table, page);
    others(kPages / 2);
    table.insert_front(page);
    CHECK(rounds(table, page) == 2);
    take_away(table, page);
    others(2 * kPages);
    table.insert_front(page);
    CHECK(rounds(table, page) == 0);
    take_away(table, page);
    table.insert_front(next++);
    table.insert_front(next++);
  }
}

void put(PageTable& table, uint64_t page, PageState state, uint64_t where) {
  PageEntry& e = table.entry(page);
  e.set_state(state);
  e.where = where;
}

std::string summary_of(PageTable& table, size_t slices_min) {
  PageSummary summary;
  size_t slices = 1;
  while (!summary.look_on(table)) slices++;
  CHECK(slices >= slices_min);
  return summary.json({{0, "a"}, {2, "b"}});
}

void test_summary() {
  PageTable table;
  CHECK(summary_of(table, 1) ==
        "{\"nodes\":[{\"node\":\"a\",\"resident\":0,\"spilled\":0,\"remote\":0,\"inFlight\":0},"
        "{\"node\":\"b\",\"resident\":0,\"spilled\":0,\"remote\":0,\"inFlight\":0}],"
        "\"ranges\":[],\"leftOut\":{\"ranges\":0,\"pages\":0}}");
  for (uint64_t page = 510; page < 515; page++) table.insert_front(page);  // over the edge of a chunk
  for (uint64_t page = 515; page < 518; page++) put(table, page, PageState::spilled, 9);
  put(table, 518, PageState::remote, 2);
  put(table, 519, PageState::in_flight, 2);
  put(table, 521, PageState::remote, 2);
  put(table, 522, PageState::remote, 5);  // a node that has left since
  CHECK(summary_of(table, 1) ==
        "{\"nodes\":[{\"node\":\"a\",\"resident\":5,\"spilled\":3,\"remote\":0,\"inFlight\":0},"
        "{\"node\":\"b\",\"resident\":0,\"spilled\":0,\"remote\":2,\"inFlight\":1}],"
        "\"ranges\":[[510,5,0,0],[515,3,0,1],[518,2,1,0],[521,1,1,0]],"
        "\"leftOut\":{\"ranges\":0,\"pages\":0}}");
  table.clear();
  constexpr uint64_t kRanges = 100'000;  // every second page; a few larger ones among them are kept
  for (uint64_t i = 0; i < kRanges; i++) put(table, kFirst + 2 * i, PageState::remote, 2);
  for (const uint64_t i : {7ul, 40'000ul}) put(table, kFirst + 2 * i + 1, PageState::remote, 2);
  const std::string text = summary_of(table, 10);
  CHECK(text.find("\"remote\":100002") != std::string::npos);
  for (const uint64_t i : {7ul, 40'000ul})
    CHECK(text.find("[" + std::to_string(kFirst + 2 * i) + ",3,1,0]") != std::string::npos);
  const uint64_t left = kRanges - 2 - PageSummary::kRangesMax;
  CHECK(text.ends_with("\"leftOut\":{\"ranges\":" + std::to_string(left) +
                       ",\"pages\":" + std::to_string(left) + "}}"));
}

std::string owned_in(PageTable& table) {
  OwnedSummary owned;
  while (!owned.look_on(table))
    ;
  std::string text;
  for (const auto& [first, pages, version] : owned.ranges())
    text += format("%lu+%lu@%lu ", first, pages, version);
  return text;
}

void test_owned() {
  PageTable table;
  CHECK(owned_in(table).empty());
  for (uint64_t page = 510; page < 515; page++) table.insert_front(page);  // over the edge of a chunk
  for (uint64_t page = 510; page < 515; page++) table.entry(page).version = 600 - page;
  put(table, 515, PageState::spilled, 9);
  table.entry(515).version = 88;
  put(table, 516, PageState::remote, 2);
  table.insert_front(517);
  table.insert_front(518);
  table.entry(518).replica = 1;
  put(table, 519, PageState::in_flight, 2);
  put(table, 520, PageState::copied, 0);
  CHECK(owned_in(table) == "510+6@86 517+1@0 ");
  table.clear();
  for (uint64_t i = 0; i < 20'000; i++) table.insert_front(kFirst + 2 * i);
  for (const uint64_t i : {7ul, 15'000ul}) table.insert_front(kFirst + 2 * i + 1);
  const std::string text = owned_in(table);
  CHECK(std::count(text.begin(), text.end(), '@') == static_cast<int64_t>(kOwnedRangesMax));
  for (const uint64_t i : {7ul, 15'000ul})
    CHECK(text.find(format("%lu+3@0 ", kFirst + 2 * i)) != std::string::npos);
}

struct Model {
  uint64_t page;
  unsigned uses;
};

// Against a vector, the first to leave first.
void test_order() {
  PageTable table;
  std::vector<Model> model;
  uint64_t state = 1;
  const auto random = [&](uint64_t below) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (state >> 33) % below;
  };
  const auto to_the_end = [&](auto at) { std::rotate(at, at + 1, model.end()); };
  uint64_t fresh = kFirst;
  for (int step = 0; step < 20'000; step++) {
    const uint64_t choice = random(8);
    if (model.size() < 20 || choice < 2) {
      table.insert_front(fresh, random(2) == 0);
      model.push_back({fresh++, 0});
      continue;
    }
    const auto at = model.begin() + static_cast<long>(random(model.size()));
    const uint64_t index = table.peek(at->page).where;
    switch (choice) {
      case 2:
      case 3:
        take_away(table, at->page);
        model.erase(at);
        break;
      case 4:
        table.mark_used(at->page);
        at->uses = std::min(3u, at->uses + 1);
        break;
      case 5: table.scan_on(random(3), [](uint64_t, uint64_t) {}); break;
      case 6:
        CHECK(table.spare(index) == (at->uses > 0));
        if (at->uses == 0) break;
        at->uses--;
        to_the_end(at);
        break;
      default: table.pass(index); to_the_end(at);
    }
    uint64_t index_now = table.last();
    for (const Model& each : model) {
      CHECK(table.page_at(index_now) == each.page && table.peek(each.page).where == index_now);
      index_now = table.before(index_now);
    }
    CHECK(index_now == 0 && table.resident() == model.size());
  }
}

// In parts of any size, a scan comes by every touched chunk once; a page that it found in use is so until the
// next one has come by and not found it.
void test_scans() {
  constexpr uint64_t kChunks = 200, kChunkPages = 512;
  PageTable table;
  std::vector<bool> in_use(kChunks);
  const auto page_of_chunk = [](uint64_t i) {
    return (kFirst / kChunkPages + i * (1 + i % 3)) * kChunkPages;
  };
  std::vector<uint64_t> pages;
  for (uint64_t i = 0; i < kChunks; i++) pages.push_back(page_of_chunk(i));
  std::sort(pages.begin(), pages.end());
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  for (const uint64_t page : pages) table.insert_front(page, false);
  CHECK(table.touched_chunks() == pages.size());
  uint64_t state = 7;
  size_t next = 0;
  for (int part = 0; part < 2000; part++) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    const uint64_t chunks = (state >> 33) % 9;
    size_t visited = 0;
    table.scan_on(chunks, [&](uint64_t first, uint64_t end) {
      CHECK(next < pages.size() && first == pages[next] && end == first + kChunkPages);
      in_use[next] = (state >> (next % 30)) & 1;
      if (in_use[next]) table.mark_used(first);
      next++;
      visited++;
    });
    CHECK(visited == std::min<size_t>(chunks, visited) && (visited == chunks || next == pages.size()));
    for (size_t i = 0; i < pages.size(); i++) CHECK(table.is_idle(pages[i]) == !in_use[i]);
    if (visited < chunks) next = 0;
  }
}

}  // namespace
}  // namespace elastic::test

int main() {
  elastic::test::test_memory();
  elastic::test::test_ghosts();
  elastic::test::test_summary();
  elastic::test::test_owned();
  elastic::test::test_order();
  elastic::test::test_scans();
  std::puts("all table tests passed");
}
