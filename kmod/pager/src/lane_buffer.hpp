// A growable first-in first-out run of bytes that always lies in one piece, so that frames and records are
// looked at where they lie and the kernel takes them in one call.
//
// Why not a ring: a ring splits frames at its end, and OpenSSL and UFFDIO_COPY both want contiguous bytes.
// The bytes are moved to the front only when half as many have been consumed there, so each byte is moved at
// most twice on average; in the steady state the queue empties often and nothing is moved or allocated at
// all. Limits: the capacity stays below twice the largest amount ever held at once; shrink() gives it back.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>

namespace elastic {

class ByteQueue {
 public:
  explicit ByteQueue(size_t capacity = 0) { grow(capacity); }

  const uint8_t* data() const { return bytes_.get() + head_; }
  size_t size() const { return tail_ - head_; }
  bool empty() const { return head_ == tail_; }

  // Room for at least `bytes` more; valid until the next call that is not commit(). free_bytes() says how
  // much.
  uint8_t* reserve(size_t bytes) {
    if (capacity_ - tail_ < bytes) make_room(bytes);
    return bytes_.get() + tail_;
  }
  size_t free_bytes() const { return capacity_ - tail_; }
  size_t capacity() const { return capacity_; }
  void commit(size_t bytes) { tail_ += bytes; }
  void uncommit(size_t bytes) { tail_ -= bytes; }  // takes back the newest

  void append(const void* from, size_t bytes) {
    if (bytes == 0) return;
    std::memcpy(reserve(bytes), from, bytes);
    tail_ += bytes;
  }
  void consume(size_t bytes) {
    head_ += bytes;
    if (head_ == tail_) head_ = tail_ = 0;
  }
  void clear() { head_ = tail_ = 0; }

  // Gives memory back when the queue is empty and holds more than `keep` bytes of capacity.
  void shrink(size_t keep) {
    if (!empty() || capacity_ <= keep) return;
    bytes_.reset();
    capacity_ = 0;
    grow(keep);
  }

 private:
  void make_room(size_t bytes) {
    const size_t held = size();
    if (head_ >= held / 2 && capacity_ - held >= bytes) {
      std::memmove(bytes_.get(), data(), held);
      head_ = 0;
      tail_ = held;
      return;
    }
    grow(std::max(held + bytes, capacity_ + capacity_ / 4));
  }

  void grow(size_t capacity) {
    if (capacity == 0) return;
    auto larger = std::make_unique_for_overwrite<uint8_t[]>(capacity);
    const size_t held = size();
    if (held > 0) std::memcpy(larger.get(), data(), held);
    bytes_ = std::move(larger);
    capacity_ = capacity;
    head_ = 0;
    tail_ = held;
  }

  std::unique_ptr<uint8_t[]> bytes_;
  size_t capacity_ = 0;
  size_t head_ = 0;
  size_t tail_ = 0;
};

}  // namespace elastic
