// Whether a text is used for calibration and evaluation at once.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_set>

#include <ptq/core/error.hpp>
#include <ptq/io/corpus/text.hpp>

namespace ptq::io {

namespace detail {

/// Calls line(text) for the lines of a text that are long enough to be told apart.
template <class Line>
void for_each_long_line(const Text& text, Line&& line) {
  for (const std::string& row : text.rows)
    for (std::size_t begin = 0; begin < row.size();) {
      const std::size_t end = std::min(row.find('\n', begin), row.size());
      std::string_view part = std::string_view(row).substr(begin, end - begin);
      while (part.ends_with(' ')) part.remove_suffix(1);
      while (part.starts_with(' ')) part.remove_prefix(1);
      if (part.size() >= 40) line(part);
      begin = end + 1;
    }
}

}  // namespace detail

/// Why the two must not be used together, or nothing. They overlap when they are one file or one content, when the shorter lies in the
/// longer, or when a tenth of the evaluation text's lines (of 40 bytes and more) occur in the calibration text.
[[nodiscard]] inline std::optional<std::string> overlap(const Text& calibration, const Text& evaluation) {
  const std::string both = cat("'", calibration.name, "' (calibration) and '", evaluation.name, "' (evaluation)");
  if (calibration.digest == evaluation.digest) return cat(both, " are the same text");
  std::error_code ignored;
  if (!calibration.path.empty() && std::filesystem::equivalent(calibration.path, evaluation.path, ignored))
    return cat(both, " are the same file");

  std::unordered_set<std::string_view> known;
  detail::for_each_long_line(calibration, [&](std::string_view line) { known.insert(line); });
  std::size_t lines = 0, shared = 0;
  detail::for_each_long_line(evaluation, [&](std::string_view line) { ++lines, shared += known.count(line); });
  if (shared > 0 && shared * 10 >= lines) return cat(both, " share ", shared, " of ", lines, " lines");

  if (calibration.documents || evaluation.documents) return std::nullopt;
  const std::string a = calibration.joined(), b = evaluation.joined();
  const std::string &longer = a.size() >= b.size() ? a : b, &shorter = a.size() >= b.size() ? b : a;
  if (std::search(longer.begin(), longer.end(), std::boyer_moore_searcher(shorter.begin(), shorter.end())) != longer.end())
    return cat("of ", both, " one contains the other");
  return std::nullopt;
}

}  // namespace ptq::io
