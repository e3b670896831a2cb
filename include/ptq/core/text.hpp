// Numbers and words of options, parsed strictly: the whole text or an error that names the option.
#pragma once

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <vector>

#include <ptq/core/error.hpp>

namespace ptq {

/// A whole integer within [low, high]; anything else ("1e3", "7x", "99999999999999999999") is refused, naming `what`.
template <class T>
requires std::is_integral_v<T>
[[nodiscard]] T parse_integer(std::string_view text, const std::string& what, T low = std::numeric_limits<T>::lowest(),
                              T high = std::numeric_limits<T>::max()) {
  T value{};
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || end != text.data() + text.size() || value < low || value > high)
    refuse(what, ": '", text, "' is not a whole number from ", +low, " to ", +high);
  return value;
}

/// A finite number; "nan", "inf" and trailing characters are refused, naming `what`.
[[nodiscard]] inline double parse_number(std::string_view text, const std::string& what) {
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || end != text.data() + text.size() || !std::isfinite(value))
    refuse(what, ": '", text, "' is not a finite number");
  return value;
}

[[nodiscard]] inline bool parse_bool(std::string_view text, const std::string& what) {
  if (text == "true") return true;
  if (text == "false") return false;
  refuse(what, ": '", text, "' is neither true nor false");
}

/// The shortest text that reads back as the same number.
[[nodiscard]] inline std::string number_text(double value) {
  std::array<char, 32> buffer{};
  const auto [end, code] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  return code == std::errc{} ? std::string(buffer.data(), end) : std::string("?");
}

[[nodiscard]] inline std::vector<std::string> split(std::string_view text, char at) {
  std::vector<std::string> parts;
  for (size_t begin = 0;;) {
    const size_t end = text.find(at, begin);
    parts.emplace_back(text.substr(begin, end - begin));
    if (end == std::string_view::npos) return parts;
    begin = end + 1;
  }
}

/// Shell-like match: '*' any run of characters, '?' one character.
[[nodiscard]] inline bool glob_match(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0, star = std::string_view::npos, mark = 0;
  while (n < name.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n]) && pattern[p] != '*') {
      ++p, ++n;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++, mark = n;
    } else if (star != std::string_view::npos) {
      p = star + 1, n = ++mark;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace ptq
