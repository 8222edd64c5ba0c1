// The tests of lane_hostile_test.cpp, run by lane_test.cpp.
#pragma once

#include <functional>
#include <vector>

namespace elastic::test {

struct HostileTest {
  const char* name;
  std::function<void()> run;
};

std::vector<HostileTest> hostile_tests();

}  // namespace elastic::test
