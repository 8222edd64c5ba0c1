// How much processor time the guests of one participant may use: a share of one processor's time, in
// thousandths, that an agent lends and changes as other leases come and go. Whoever uses more stands still
// until it is made up for, so that over a second or so it is the share, however many threads there are and
// whatever the machine lets a user limit. A token bucket; pure.
#pragma once

#include <cstdint>

namespace elastic {

class ProcessorShare {
 public:
  void set(uint64_t thousandths) { thousandths_ = thousandths; }  // 0: no bound
  // `used_us`: processor time used since the last look. Whether the guests are to stand still until the next.
  bool spent(uint64_t now_us, uint64_t used_us);

 private:
  uint64_t thousandths_ = 0;
  uint64_t looked_us_ = 0;
  int64_t left_us_ = 0;
};

}  // namespace elastic
