// Names out of untrusted files, shown in errors.
#pragma once

#include <string>
#include <string_view>

namespace ptq::io {

/// A name out of an untrusted file, fit for a terminal: control characters as \\xNN.
[[nodiscard]] inline std::string printable(std::string_view name) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string shown;
  for (const char c : name) {
    const auto code = static_cast<unsigned char>(c);
    if (code >= 0x20 && code != 0x7f)
      shown += c;
    else
      ((shown += "\\x") += digits[code >> 4]) += digits[code & 15u];
  }
  return shown;
}

}  // namespace ptq::io
