// Normalizers of tokenizer.json: what happens to a text before it is cut into words. The one door to utf8proc.
#pragma once

#include <utf8proc.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/tokenizer/byte_alphabet.hpp>
#include <ptq/io/tokenizer/regex.hpp>

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

/// Unicode normalization form NFC, NFD, NFKC or NFKD (Unicode Standard Annex 15); nullptr for another name.
[[nodiscard]] inline Normalizer unicode(std::string_view form) {
  unsigned options = 0;
  if (form == "NFC" || form == "NFKC") options = UTF8PROC_COMPOSE;
  if (form == "NFD" || form == "NFKD") options = UTF8PROC_DECOMPOSE;
  if (options == 0) return nullptr;
  if (form.starts_with("NFK")) options |= UTF8PROC_COMPAT;
  options |= UTF8PROC_STABLE;
  return [options](std::string_view text) {
    const bool ascii = std::none_of(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0x80U) != 0; });
    if (ascii) return std::string(text);
    utf8proc_uint8_t* raw = nullptr;
    const utf8proc_ssize_t size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                               static_cast<utf8proc_ssize_t>(text.size()), &raw, static_cast<utf8proc_option_t>(options));
    const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(raw, std::free);
    if (size < 0) fail("a text could not be normalized: ", utf8proc_errmsg(size));
    return std::string(reinterpret_cast<const char*>(raw), static_cast<std::size_t>(size));
  };
}

/// Each byte as its character in GPT-2's alphabet.
[[nodiscard]] inline Normalizer byte_level() {
  return [](std::string_view text) { return bytes_to_characters(text); };
}

}  // namespace normalize

}  // namespace ptq::io
