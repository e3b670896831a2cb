// How texts are named on the command line: NAME|FILE[:NxL], N samples or windows of L tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <ptq/core/error.hpp>
#include <ptq/core/text.hpp>

namespace ptq::io {

struct TextSpec {
  std::string source;                    ///< a name or a path
  std::optional<std::int64_t> count{};   ///< N
  std::optional<std::int64_t> length{};  ///< L, in tokens
};

/// "books_valid:16x512" is {books_valid, 16, 512}; without a suffix the counts stay open. What follows the last colon is the counts,
/// unless it holds a dot or a slash as paths do. Refuses zero, signs, one token, and counts beyond 2^30.
[[nodiscard]] inline TextSpec parse_text_spec(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  const std::string_view suffix = colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
  if (colon == std::string_view::npos || suffix.find_first_of("./") != std::string_view::npos) {
    if (text.empty()) refuse("a text has no name");
    return {std::string(text)};
  }
  const std::size_t x = suffix.find('x');
  if (x == std::string_view::npos || colon == 0) refuse("text '", text, "': write NAME or NAME:NxL, such as wikitext2:8x512");
  const std::string what = cat("text '", text, "'");
  TextSpec spec{std::string(text.substr(0, colon))};
  spec.count = parse_integer<std::int64_t>(suffix.substr(0, x), what, 1, 1 << 30);
  spec.length = parse_integer<std::int64_t>(suffix.substr(x + 1), what, 2, 1 << 30);
  return spec;
}

}  // namespace ptq::io
