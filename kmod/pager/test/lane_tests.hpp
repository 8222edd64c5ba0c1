// The tests of the other lane test files, run by lane_test.cpp.
#pragma once

#include <functional>
#include <vector>

namespace elastic::test {

struct LaneTest {
  const char* name;
  std::function<void()> run;
};

std::vector<LaneTest> hostile_tests();
std::vector<LaneTest> tls_tests();

}  // namespace elastic::test
