// Properties and normal forms of Unicode characters. The one door to utf8proc.
#pragma once

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <ptq/core/error.hpp>

namespace ptq::io {

/// The property White_Space.
[[nodiscard]] inline bool is_white_space(char32_t c) {
  return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/// What \w stands for: letters, marks, decimal digits, connecting punctuation, joiners.
[[nodiscard]] inline bool is_word_character(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
             (c >= 0x1F130 && c <= 0x1F189);  // joiners, letters in circles and squares
  }
}

/// General categories Nd, Nl and No.
[[nodiscard]] inline bool is_number(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO;
}

/// Normalization forms (Unicode Standard Annex 15).
enum class NormalizationForm { nfc, nfd, nfkc, nfkd };

[[nodiscard]] inline std::optional<NormalizationForm> normalization_form(std::string_view name) {
  if (name == "NFC") return NormalizationForm::nfc;
  if (name == "NFD") return NormalizationForm::nfd;
  if (name == "NFKC") return NormalizationForm::nfkc;
  if (name == "NFKD") return NormalizationForm::nfkd;
  return std::nullopt;
}

/// Valid UTF-8 in that form.
[[nodiscard]] inline std::string normalized(std::string_view text, NormalizationForm form) {
  const bool ascii = std::none_of(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0x80U) != 0; });
  if (ascii) return std::string(text);
  const bool compose = form == NormalizationForm::nfc || form == NormalizationForm::nfkc;
  const bool compatible = form == NormalizationForm::nfkc || form == NormalizationForm::nfkd;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                                                      (compatible ? UTF8PROC_COMPAT : 0));
  utf8proc_uint8_t* raw = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()), &raw, options);
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(raw, std::free);
  if (size < 0) fail("a text could not be normalized: ", utf8proc_errmsg(size));
  return std::string(reinterpret_cast<const char*>(raw), static_cast<std::size_t>(size));
}

}  // namespace ptq::io
