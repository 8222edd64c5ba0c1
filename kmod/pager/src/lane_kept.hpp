// The frames of one direction of a lane as plain bytes, from send() until the other side has acknowledged
// them:
//
//     acknowledged, freed | sent, not acknowledged | to be sent
//                       begin                    sent          end
//
// Why plain: a connection that replaces a lost one has keys of its own. Records are made from these bytes as
// the kernel takes them, so that what is kept is the send queue itself and costs no copy of its own.
//
// Why pieces and not one run of bytes: in a steady stream it never is empty, and would have to be moved to
// the front over and over. Limits: none here; who sends looks at bytes(). Released pieces are used again, so
// nothing is allocated in the steady state.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "wire.hpp"

namespace elastic {

class KeptFrames {
 public:
  size_t bytes() const { return end_ - begin_; }
  size_t unsent_bytes() const { return end_ - sent_; }
  size_t capacity() const { return (pieces_.size() + spare_.size()) * kPieceBytes; }
  uint64_t released() const { return released_; }  // sequence of the last frame that was let go

  void append(const void* from, size_t bytes) {
    auto* next = static_cast<const uint8_t*>(from);
    while (bytes > 0) {
      if (end_ == pieces_.size() * kPieceBytes) add_piece();
      const size_t at = end_ % kPieceBytes;
      const size_t part = std::min(bytes, kPieceBytes - at);
      std::memcpy(pieces_.back().get() + at, next, part);
      end_ += part;
      next += part;
      bytes -= part;
    }
  }

  // What is to be sent next, as far as it lies in one piece and is no more than `bytes_max`.
  std::span<const uint8_t> unsent(size_t bytes_max) const {
    if (sent_ == end_) return {};
    const size_t at = sent_ % kPieceBytes;
    return {pieces_[sent_ / kPieceBytes].get() + at, std::min({bytes_max, end_ - sent_, kPieceBytes - at})};
  }
  void sent(size_t bytes) { sent_ += bytes; }
  void send_again() { sent_ = begin_; }

  // Lets go of all frames up to this one. False if it has not been sent as a whole.
  bool release(uint64_t sequence) {
    while (released_ < sequence && sent_ - begin_ >= sizeof(FrameHeader)) {
      const size_t frame_bytes = sizeof(FrameHeader) + header_at(begin_).payload_bytes;
      if (sent_ - begin_ < frame_bytes) break;
      begin_ += frame_bytes;
      released_++;
    }
    drop_released_pieces();
    return sequence <= released_;
  }

 private:
  static constexpr size_t kPieceBytes = 64 << 10;
  static constexpr size_t kSparePieces = 1;
  using Piece = std::unique_ptr<uint8_t[]>;

  FrameHeader header_at(size_t position) const {
    FrameHeader header;
    const size_t at = position % kPieceBytes;
    const size_t part = std::min(sizeof header, kPieceBytes - at);
    std::memcpy(&header, pieces_[position / kPieceBytes].get() + at, part);
    if (part < sizeof header)
      std::memcpy(reinterpret_cast<uint8_t*>(&header) + part, pieces_[position / kPieceBytes + 1].get(),
                  sizeof header - part);
    return header;
  }

  void add_piece() {
    if (spare_.empty()) spare_.push_back(std::make_unique_for_overwrite<uint8_t[]>(kPieceBytes));
    pieces_.push_back(std::move(spare_.back()));
    spare_.pop_back();
  }

  void drop_released_pieces() {
    while (begin_ >= kPieceBytes) {
      if (spare_.size() < kSparePieces) spare_.push_back(std::move(pieces_.front()));
      pieces_.pop_front();
      begin_ -= kPieceBytes;
      sent_ -= kPieceBytes;
      end_ -= kPieceBytes;
    }
    if (begin_ == end_) begin_ = sent_ = end_ = 0;  // the same bytes again, which are in the cache
  }

  std::deque<Piece> pieces_;  // positions below count from the first byte of the first piece
  std::vector<Piece> spare_;
  size_t begin_ = 0, sent_ = 0, end_ = 0;
  uint64_t released_ = 0;
};

}  // namespace elastic
