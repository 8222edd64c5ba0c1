// See options.hpp.
#include "options.hpp"

#include <algorithm>
#include <charconv>

namespace elastic {

Options::Options(int argc, char** argv, const std::vector<std::string>& known) {
  int at = 0;
  for (; at < argc; at++) {
    const std::string name = argv[at];
    if (name == "--") {
      rest_.assign(argv + at + 1, argv + argc);
      return;
    }
    if (!name.starts_with("--") || std::find(known.begin(), known.end(), name.substr(2)) == known.end())
      throw Failure("elasticos-pager: unknown option " + name);
    if (at + 1 >= argc) throw Failure("elasticos-pager: " + name + " wants a value");
    values_[name.substr(2)] = argv[++at];
  }
}

std::string Options::text(const std::string& name) const {
  const auto it = values_.find(name);
  if (it == values_.end()) throw Failure("elasticos-pager: --" + name + " is missing");
  return it->second;
}

std::string Options::text_or(const std::string& name, const std::string& otherwise) const {
  const auto it = values_.find(name);
  return it == values_.end() ? otherwise : it->second;
}

uint64_t Options::number(const std::string& name) const {
  const std::string value = text(name);
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size())
    throw Failure("elasticos-pager: --" + name + " wants a number");
  return number;
}

uint64_t Options::number_or(const std::string& name, uint64_t otherwise) const {
  return values_.contains(name) ? number(name) : otherwise;
}

}  // namespace elastic
