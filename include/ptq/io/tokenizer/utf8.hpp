// UTF-8 (RFC 3629): checking, walking and writing code points. Overlong forms, surrogates and values above U+10FFFF are invalid.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <ptq/core/error.hpp>

namespace ptq::io {

/// The code point that starts at `at`, and how many bytes it takes; length 0 marks an invalid sequence.
struct CodePoint {
  char32_t value = 0;
  std::size_t length = 0;
};

[[nodiscard]] inline CodePoint code_point(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  if (at >= text.size()) return {};
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() - at < length) return {};
  char32_t value = lead & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80U) return {};
    value = (value << 6U) | (byte(i) & 0x3FU);
  }
  constexpr char32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (value < smallest[length] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return {};
  return {value, length};
}

/// Bytes of the character at `at` in text known to be valid.
[[nodiscard]] inline std::size_t character_length(std::string_view text, std::size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/// Offset of the first invalid byte, or npos.
[[nodiscard]] inline std::size_t first_invalid_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const std::size_t length = code_point(text, at).length;
    if (length == 0) return at;
    at += length;
  }
  return std::string_view::npos;
}

/// Fails unless the text is valid UTF-8; `what` names it.
inline void require_utf8(std::string_view text, std::string_view what) {
  const std::size_t at = first_invalid_utf8(text);
  if (at == std::string_view::npos) return;
  std::size_t line = 1;
  for (const char c : text.substr(0, at)) line += c == '\n' ? 1U : 0U;
  fail(what, ": byte ", at, " (line ", line, ") is not UTF-8; convert the text to UTF-8 first");
}

inline void append_utf8(std::string& out, char32_t c) {
  const auto tail = [&](unsigned shift) { out += static_cast<char>(0x80U | ((c >> shift) & 0x3FU)); };
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0U | (c >> 6U)), tail(0);
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0U | (c >> 12U)), tail(6), tail(0);
  } else {
    out += static_cast<char>(0xF0U | (c >> 18U)), tail(12), tail(6), tail(0);
  }
}

/// The text with each maximal invalid part replaced by U+FFFD (Unicode 15, section 3.9: substitution of maximal subparts).
[[nodiscard]] inline std::string lossy_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    if (const CodePoint point = code_point(text, at); point.length != 0) {
      out.append(text.substr(at, point.length));
      at += point.length;
      continue;
    }
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char lead = byte(at);
    std::size_t end = at + 1;  // extend over continuation bytes that a valid character could have here
    if (lead >= 0xC2 && lead <= 0xF4) {
      const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
      const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
      const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
      if (end < text.size() && byte(end) >= low && byte(end) <= high) {
        ++end;
        while (end < text.size() && end - at < length && (byte(end) & 0xC0U) == 0x80U) ++end;
      }
    }
    out += "\xEF\xBF\xBD";
    at = end;
  }
  return out;
}

}  // namespace ptq::io
