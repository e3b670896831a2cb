// What a file says about one tensor, and the arithmetic of its size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

namespace ptq::io {

using Shape = std::vector<std::int64_t>;  ///< outermost dimension first; empty for a scalar

/// One tensor as a file describes it.
struct StoredTensor {
  std::string name{};
  std::string dtype{};  ///< as the file spells it: "BF16", "Q4_K"
  Shape shape{};
  std::uint64_t offset = 0;  ///< of its first byte, from the start of the file
  std::uint64_t bytes = 0;
};

[[nodiscard]] inline std::optional<std::uint64_t> times(std::uint64_t a, std::uint64_t b) noexcept {
  if (b != 0 && a > std::numeric_limits<std::uint64_t>::max() / b) return std::nullopt;
  return a * b;
}

/// Number of elements, or nothing when the product of the sizes (each at least 0) leaves 63 bits before a zero could rescue it.
[[nodiscard]] inline std::optional<std::uint64_t> element_count(const Shape& shape) noexcept {
  std::uint64_t count = 1;
  for (const std::int64_t size : shape) {
    if (size < 0) return std::nullopt;
    const auto product = times(count, static_cast<std::uint64_t>(size));
    if (!product || *product > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return std::nullopt;
    count = *product;
  }
  return count;
}

/// "[2, 3]"
[[nodiscard]] inline std::string text(const Shape& shape) {
  std::ostringstream out;
  out << '[';
  for (std::size_t i = 0; i < shape.size(); ++i) out << (i == 0 ? "" : ", ") << shape[i];
  out << ']';
  return std::move(out).str();
}

}  // namespace ptq::io
