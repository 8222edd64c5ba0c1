// The pager's command line. It is started by the agent and by `run`, never by hand, so errors are terse.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "util.hpp"

namespace elastic {

class Options {
 public:
  // `--name value` pairs up to `--`; what follows are `rest()`. Throws Failure for anything else, and for a
  // name that is not in `known`.
  Options(int argc, char** argv, const std::vector<std::string>& known);
  std::string text(const std::string& name) const;  // throws Failure if absent
  std::string text_or(const std::string& name, const std::string& otherwise) const;
  uint64_t number(const std::string& name) const;
  uint64_t number_or(const std::string& name, uint64_t otherwise) const;
  const std::vector<std::string>& rest() const { return rest_; }

 private:
  std::map<std::string, std::string> values_;
  std::vector<std::string> rest_;
};

}  // namespace elastic
