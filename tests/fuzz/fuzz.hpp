// What every fuzz target shares: an Error is the right answer to hostile bytes; any other exception, crash or sanitizer report is a defect.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <span>
#include <string_view>

#include <ptq/core/error.hpp>

namespace ptq::fuzz {

[[nodiscard]] inline std::span<const std::byte> bytes(const std::uint8_t* data, std::size_t size) {
  return std::as_bytes(std::span(data, size));
}
[[nodiscard]] inline std::string_view text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// Runs the reader; swallows what it may throw, checks that the message says something.
template <class Reader>
int reading(Reader reader) {
  try {
    reader();
  } catch (const Error& error) {
    if (std::string_view(error.what()).empty()) std::abort();
  }
  return 0;
}

/// A promise of the reader that must hold whenever it accepts.
inline void promise(bool kept, const char* what) {
  if (kept) return;
  std::cerr << "broken promise: " << what << std::endl;
  std::abort();
}

}  // namespace ptq::fuzz
