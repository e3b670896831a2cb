// Tokens that are cut out of a text before anything else happens to it: <s>, <|im_start|>, runs of blanks that a vocabulary adds.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/tokenizer/unicode.hpp>
#include <ptq/io/tokenizer/utf8.hpp>
#include <ptq/io/tokenizer/vocabulary.hpp>

namespace ptq::io {

struct AddedToken {
  std::string content;
  std::int32_t id = 0;
  bool single_word = false;  ///< only between non-word characters
  bool lstrip = false;       ///< takes white space on its left along
  bool rstrip = false;       ///< and on its right
  bool normalized = true;    ///< looked for after normalization instead of in the raw text
  bool special = false;      ///< left out when decoding without special tokens
};

namespace detail {

/// The character that ends before `at`.
[[nodiscard]] inline CodePoint code_point_before(std::string_view text, std::size_t at) {
  std::size_t begin = at;
  while (begin > 0 && (static_cast<unsigned char>(text[--begin]) & 0xC0U) == 0x80U) {
  }
  return code_point(text, begin);
}

}  // namespace detail

/// Finds added tokens: leftmost first, the longest at each place.
class AddedTokens {
 public:
  void add(const AddedToken& token, std::string_view content) {
    if (content.empty()) return;
    tokens_.insert_or_assign(std::string(content), token);
    auto& lengths = lengths_[static_cast<unsigned char>(content.front())];
    if (std::find(lengths.begin(), lengths.end(), content.size()) != lengths.end()) return;
    lengths.insert(std::upper_bound(lengths.begin(), lengths.end(), content.size(), std::greater<>{}), content.size());
  }

  /// Calls text(begin, end) for what lies between tokens (never empty) and token(id) for each token, from left to right.
  template <class OnText, class OnToken>
  void split(std::string_view source, OnText&& on_text, OnToken&& on_token) const {
    std::size_t done = 0;
    for (std::size_t at = 0; at < source.size();) {
      const AddedToken* token = nullptr;
      std::size_t end = at + 1;
      for (const std::size_t length : lengths_[static_cast<unsigned char>(source[at])]) {
        if (length > source.size() - at) continue;
        if (const auto found = tokens_.find(source.substr(at, length)); found != tokens_.end()) {
          token = &found->second;
          end = at + length;
          break;
        }
      }
      std::size_t begin = at;
      at = end;
      if (token == nullptr || (token->single_word && !stands_alone(source, begin, end))) continue;
      if (token->lstrip) begin = std::max(done, space_before(source, begin));
      if (token->rstrip) end = space_after(source, end);
      if (begin > done) on_text(done, begin);
      on_token(token->id);
      done = end;
      at = std::max(at, end);
    }
    if (done < source.size()) on_text(done, source.size());
  }

 private:
  [[nodiscard]] static bool stands_alone(std::string_view text, std::size_t begin, std::size_t end) {
    return (begin == 0 || !is_word_character(detail::code_point_before(text, begin).value)) &&
           (end == text.size() || !is_word_character(code_point(text, end).value));
  }
  [[nodiscard]] static std::size_t space_before(std::string_view text, std::size_t at) {
    while (at > 0) {
      const CodePoint point = detail::code_point_before(text, at);
      if (!is_white_space(point.value)) break;
      at -= point.length;
    }
    return at;
  }
  [[nodiscard]] static std::size_t space_after(std::string_view text, std::size_t at) {
    while (at < text.size() && is_white_space(code_point(text, at).value)) at += code_point(text, at).length;
    return at;
  }

  StringMap<AddedToken> tokens_;
  std::array<std::vector<std::size_t>, 256> lengths_{};  ///< of the tokens that begin with a byte, longest first
};

}  // namespace ptq::io
