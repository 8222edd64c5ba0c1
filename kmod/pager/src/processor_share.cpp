// See processor_share.hpp.
#include "processor_share.hpp"

#include <algorithm>

namespace elastic {

namespace {
// What comes in this time is the most that can be saved up.
constexpr uint64_t kSavedUs = 200'000;
}  // namespace

bool ProcessorShare::spent(uint64_t now_us, uint64_t used_us) {
  const uint64_t passed = now_us - looked_us_;
  looked_us_ = now_us;
  if (thousandths_ == 0) return false;
  const auto most = static_cast<int64_t>(kSavedUs * thousandths_ / 1000);
  left_us_ += static_cast<int64_t>(passed * thousandths_ / 1000) - static_cast<int64_t>(used_us);
  left_us_ = std::min(left_us_, most);
  return left_us_ < 0;
}

}  // namespace elastic
