// The record layer of an established lane (lane_tls.cpp, lane_record.cpp): records that verify and say
// anything, and records that do not, in any pieces. What was sealed as data comes out unchanged; the rest
// ends the connection.
#include "../src/lane_tls.hpp"
#include "fuzz_kit.hpp"

namespace elastic {

// One end after its handshake, with keys that both sides know.
struct RecordFuzz {
  static constexpr TrafficSecret kSecret{1, 2, 3};
  RecordFuzz() : end("7", LaneKey{}) {}
  void restart() {
    end.established_ = true;
    end.opening_.start(kSecret, false);
    end.sealing_.start(kSecret, true);
    end.problem_.clear();
    end.empty_records_ = 0;
    end.update_asked_ = false;
    end.incoming_.clear();
    end.outgoing_.clear();
    writer.start(kSecret, true);
  }
  TlsEnd end;
  RecordKeys writer;
};

}  // namespace elastic

using namespace elastic;

namespace {

struct Sent {
  ByteQueue stream;
  std::vector<uint8_t> data;  // what of it has to come out, if all of it is good
};

void add_record(fuzz::Input& in, RecordKeys& writer, Sent& sent) {
  fuzz::judged();
  static const uint8_t kUpdate[5] = {24, 0, 0, 1, 0}, kClose[2] = {1, 0};
  switch (in.below(8)) {
    case 0: writer.seal(RecordType::handshake, kUpdate, sizeof kUpdate, sent.stream); return writer.update();
    case 1: writer.seal(RecordType::alert, kClose, sizeof kClose, sent.stream); return;
    case 2: {
      const auto taken = in.take_bytes(in.below(8));
      std::vector<uint8_t> bytes(taken.begin(), taken.end());
      bytes.push_back(in.take<uint8_t>());
      writer.seal(static_cast<RecordType>(bytes.back()), bytes.data(), bytes.size() - 1, sent.stream);
      while (!bytes.empty() && bytes.back() == 0) bytes.pop_back();  // padding: the type stands before it
      if (!bytes.empty() && bytes.back() == static_cast<uint8_t>(RecordType::data))
        sent.data.insert(sent.data.end(), bytes.begin(), bytes.end() - 1);
      return;
    }
    case 3: {
      const auto bytes = in.take_bytes(in.below(40));
      return sent.stream.append(bytes.data(), bytes.size());
    }
    default: {
      const auto bytes = in.take_bytes(in.below(64));
      writer.seal(RecordType::data, bytes.data(), bytes.size(), sent.stream);
      sent.data.insert(sent.data.end(), bytes.begin(), bytes.end());
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static RecordFuzz fuzzed;
  fuzzed.restart();
  fuzz::Input in(data, bytes);
  Sent sent;
  for (uint64_t records = 1 + in.below(6); records > 0; records--) add_record(in, fuzzed.writer, sent);
  std::vector<uint8_t> stream(sent.stream.data(), sent.stream.data() + sent.stream.size());
  const bool spoilt = in.below(3) == 0 && !stream.empty();
  if (spoilt) stream[in.take<uint16_t>() % stream.size()] ^= static_cast<uint8_t>(1 + in.below(255));
  ByteQueue plain;
  TlsEnd::Step step = TlsEnd::Step::want_more;
  for (size_t at = 0; at < stream.size() && step == TlsEnd::Step::want_more;) {
    const size_t part = std::min<size_t>(stream.size() - at, 1 + in.take<uint16_t>() % 300);
    fuzzed.end.incoming().append(stream.data() + at, part);
    at += part;
    do step = fuzzed.end.read(plain);
    while (step == TlsEnd::Step::done);
  }
  if (step == TlsEnd::Step::failed) REQUIRE(!fuzzed.end.problem().empty());
  if (!spoilt) {
    const size_t known = std::min(plain.size(), sent.data.size());
    REQUIRE(known == 0 || memcmp(plain.data(), sent.data.data(), known) == 0);
  }
  return 0;
}
