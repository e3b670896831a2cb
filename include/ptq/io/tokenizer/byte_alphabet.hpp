// The byte alphabet of GPT-2 (Radford et al. 2019): each byte becomes one printable character, so that byte-level BPE works on text.
// Printable Latin-1 bytes stand for themselves; the other 68 become U+0100, U+0101, … in order (a blank is U+0120).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <ptq/io/tokenizer/utf8.hpp>

namespace ptq::io {

/// The character of each byte.
[[nodiscard]] inline const std::array<char32_t, 256>& byte_characters() {
  static const std::array<char32_t, 256> table = [] {
    std::array<char32_t, 256> characters{};
    char32_t next = 0x100;
    for (std::size_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE);
      characters[b] = printable ? static_cast<char32_t>(b) : next++;
    }
    return characters;
  }();
  return table;
}

/// Every byte of `text` as its character.
[[nodiscard]] inline std::string bytes_to_characters(std::string_view text) {
  static const std::array<std::string, 256> encoded = [] {
    std::array<std::string, 256> table;
    for (std::size_t b = 0; b < 256; ++b) append_utf8(table[b], byte_characters()[b]);
    return table;
  }();
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  for (const char c : text) out += encoded[static_cast<unsigned char>(c)];
  return out;
}

/// The bytes that a token's characters stand for; a token with a character outside the alphabet (an added token) is returned as it is.
[[nodiscard]] inline std::string characters_to_bytes(std::string_view token) {
  static const std::array<std::int16_t, 0x144> inverse = [] {
    std::array<std::int16_t, 0x144> table{};
    table.fill(-1);
    for (std::size_t b = 0; b < 256; ++b) table[byte_characters()[b]] = static_cast<std::int16_t>(b);
    return table;
  }();
  std::string out;
  for (std::size_t at = 0; at < token.size();) {
    const CodePoint point = code_point(token, at);
    if (point.length == 0 || point.value >= inverse.size() || inverse[point.value] < 0) return std::string(token);
    out += static_cast<char>(inverse[point.value]);
    at += point.length;
  }
  return out;
}

}  // namespace ptq::io
