// A text for calibration or evaluation: rows, and how they are joined.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/digest.hpp>
#include <ptq/core/error.hpp>

namespace ptq::io {

struct Text {
  std::string name;                 ///< as the user gave it
  std::filesystem::path path{};     ///< the file it came from
  std::vector<std::string> rows{};  ///< lines, sentences or documents
  std::string separator{};          ///< between rows
  bool documents = false;           ///< rows are independent documents (C4): crops lie inside one
  std::string digest{};             ///< SHA-256 of the joined text
  std::string remark{};             ///< worth telling the user

  /// Rows first ≤ i < last, joined.
  [[nodiscard]] std::string joined(std::size_t first, std::size_t last) const {
    std::string text;
    for (std::size_t i = first; i < last; ++i) {
      if (i > first) text += separator;
      text += rows[i];
    }
    return text;
  }
  [[nodiscard]] std::string joined() const { return joined(0, rows.size()); }
};

/// Completes a text by its digest.
[[nodiscard]] inline Text digested(Text text) {
  Sha256 digest;
  for (std::size_t i = 0; i < text.rows.size(); ++i)
    digest.update(i > 0 ? std::string_view(text.separator) : std::string_view()).update(text.rows[i]);
  text.digest = digest.hex();
  return text;
}

namespace rows {

/// Lines without their ends; joined by "\n" they are the text again.
[[nodiscard]] inline std::vector<std::string> lines(std::string_view text) {
  std::vector<std::string> result;
  for (std::size_t begin = 0;;) {
    const std::size_t end = text.find('\n', begin);
    result.emplace_back(text.substr(begin, end - begin));
    if (end == std::string_view::npos) return result;
    begin = end + 1;
  }
}

[[nodiscard]] inline bool blank(std::string_view line) { return line.find_first_not_of(" \t\n\v\f\r") == std::string_view::npos; }

/// Rows of the WikiText-2 data set from the raw file: a blank line is an empty row, any other line a row with its line feed.
[[nodiscard]] inline std::vector<std::string> wikitext_raw(std::string_view text) {
  std::vector<std::string> result = lines(text.ends_with('\n') ? text.substr(0, text.size() - 1) : text);
  for (std::string& line : result) line = blank(line) ? "" : line + '\n';
  return result;
}

/// The same rows from the text already joined by "\n\n". Empty when the text is not of that form.
[[nodiscard]] inline std::vector<std::string> wikitext_joined(std::string_view text) {
  std::vector<std::string> result;
  for (std::size_t at = 0;;) {
    std::size_t end = at;
    if (at < text.size() && text[at] != '\n') {
      end = text.find('\n', at);
      if (end == std::string_view::npos) return {};
      ++end;
    }
    result.emplace_back(text.substr(at, end - at));
    if (end == text.size()) return result;
    if (text.substr(end, 2) != "\n\n") return {};
    at = end + 2;
  }
}

/// Sentences of the Penn Treebank files: white space at both ends of a line goes.
[[nodiscard]] inline std::vector<std::string> stripped(std::string_view text) {
  std::vector<std::string> result = lines(text.ends_with('\n') ? text.substr(0, text.size() - 1) : text);
  for (std::string& line : result) {
    constexpr std::string_view space = " \t\v\f\r";
    const std::size_t begin = line.find_first_not_of(space);
    line = begin == std::string::npos ? "" : line.substr(begin, line.find_last_not_of(space) - begin + 1);
  }
  return result;
}

}  // namespace rows

}  // namespace ptq::io
