// Normalizers of tokenizer.json: what happens to a text before it is cut into words.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/io/tokenizer/byte_alphabet.hpp>
#include <ptq/io/tokenizer/regex.hpp>
#include <ptq/io/tokenizer/unicode.hpp>

namespace ptq::io {

/// Takes valid UTF-8, gives valid UTF-8.
using Normalizer = std::function<std::string(std::string_view)>;

namespace normalize {

[[nodiscard]] inline Normalizer identity() {
  return [](std::string_view text) { return std::string(text); };
}

[[nodiscard]] inline Normalizer sequence(std::vector<Normalizer> steps) {
  return [steps = std::move(steps)](std::string_view text) {
    std::string result(text);
    for (const Normalizer& step : steps) result = step(result);
    return result;
  };
}

/// Puts `prefix` before a text that is not empty.
[[nodiscard]] inline Normalizer prepend(std::string prefix) {
  return [prefix = std::move(prefix)](std::string_view text) { return text.empty() ? std::string() : prefix + std::string(text); };
}

[[nodiscard]] inline Normalizer replace(std::string what, std::string content) {
  return [what = std::move(what), content = std::move(content)](std::string_view text) {
    if (what.empty()) return std::string(text);
    std::string result;
    std::size_t begin = 0;
    for (std::size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, begin)) {
      result.append(text.substr(begin, at - begin)) += content;
      begin = at + what.size();
    }
    return result.append(text.substr(begin));
  };
}

[[nodiscard]] inline Normalizer replace(Regex pattern, std::string content) {
  return [pattern = std::move(pattern), content = std::move(content)](std::string_view text) {
    std::string result;
    std::size_t begin = 0;
    pattern.for_each_match(text, [&](std::size_t from, std::size_t to) {
      result.append(text.substr(begin, from - begin)) += content;
      begin = to;
    });
    return result.append(text.substr(begin));
  };
}

/// NFC, NFD, NFKC or NFKD by name; nullptr for another name.
[[nodiscard]] inline Normalizer unicode(std::string_view name) {
  const auto form = normalization_form(name);
  if (!form) return nullptr;
  return [form = *form](std::string_view text) { return normalized(text, form); };
}

/// Each byte as its character in GPT-2's alphabet.
[[nodiscard]] inline Normalizer byte_level() {
  return [](std::string_view text) { return bytes_to_characters(text); };
}

}  // namespace normalize

}  // namespace ptq::io
