// The value grammar of GGUF: numbers, strings and lists, read forward out of untrusted bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/dtype.hpp>
#include <ptq/io/gguf_metadata.hpp>

namespace ptq::io::detail {

/// Reads forward and never past the end; errors say which part was being read.
class GgufCursor {
 public:
  GgufCursor(std::span<const std::byte> file, std::string where) : file_(file), where_(std::move(where)) {}

  std::string part = "header";  ///< named in errors

  [[nodiscard]] std::uint64_t position() const noexcept { return position_; }
  [[nodiscard]] std::uint64_t left() const noexcept { return file_.size() - position_; }

  template <class Number>
  Number read() {
    need(sizeof(Number));
    const auto value = load_raw<Number>(file_.data() + position_);
    position_ += sizeof(Number);
    return value;
  }
  std::string read_string() {
    const auto length = read<std::uint64_t>();
    need(length);
    std::string value(reinterpret_cast<const char*>(file_.data() + position_), static_cast<std::size_t>(length));
    position_ += length;
    return value;
  }
  /// A count of things that take at least `each` bytes in the file.
  std::uint64_t read_count(std::uint64_t each, const char* what) {
    const auto count = read<std::uint64_t>();
    if (count > left() / each) fail(where_, ": ", part, ": ", count, ' ', what, " cannot lie in the ", left(), " bytes that are left");
    return count;
  }
  [[noreturn]] void stop(const std::string& why) const { fail(where_, ": ", part, ": ", why); }

 private:
  void need(std::uint64_t bytes) const {
    if (bytes > left())
      fail(where_, ": ", part, ": ", bytes, " bytes needed at ", position_, ", ", left(), " are left; the file is cut short");
  }

  std::span<const std::byte> file_;
  std::string where_;
  std::size_t position_ = 0;
};

enum class GgufKind : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

/// One number of a stored kind, handed to `use` as bool, int64, uint64 (only what int64 cannot hold) or double.
template <class Use>
void read_gguf_number(GgufCursor& in, GgufKind kind, Use use) {
  switch (kind) {
    case GgufKind::u8:
      return use(std::int64_t{in.read<std::uint8_t>()});
    case GgufKind::i8:
      return use(std::int64_t{in.read<std::int8_t>()});
    case GgufKind::u16:
      return use(std::int64_t{in.read<std::uint16_t>()});
    case GgufKind::i16:
      return use(std::int64_t{in.read<std::int16_t>()});
    case GgufKind::u32:
      return use(std::int64_t{in.read<std::uint32_t>()});
    case GgufKind::i32:
      return use(std::int64_t{in.read<std::int32_t>()});
    case GgufKind::i64:
      return use(in.read<std::int64_t>());
    case GgufKind::f32:
      return use(double{in.read<float>()});
    case GgufKind::f64:
      return use(in.read<double>());
    case GgufKind::boolean: {
      const auto value = in.read<std::uint8_t>();
      if (value > 1) in.stop(cat("a truth value is ", int{value}, ", not 0 or 1"));
      return use(value == 1);
    }
    case GgufKind::u64: {
      const auto value = in.read<std::uint64_t>();
      if (value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return use(static_cast<std::int64_t>(value));
      return use(value);
    }
    default:
      in.stop(cat("unknown value type ", static_cast<std::uint32_t>(kind)));
  }
}

inline std::uint64_t gguf_width(const GgufCursor& in, GgufKind kind) {
  constexpr std::uint64_t widths[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8};
  if (kind == GgufKind::array) in.stop("lists of lists are not supported");
  if (kind > GgufKind::f64) in.stop(cat("unknown value type ", static_cast<std::uint32_t>(kind)));
  return widths[static_cast<std::size_t>(kind)];
}

inline GgufValue read_gguf_array(GgufCursor& in) {
  const auto kind = static_cast<GgufKind>(in.read<std::uint32_t>());
  const std::uint64_t count = in.read_count(gguf_width(in, kind), "list entries");
  if (kind == GgufKind::string) {
    std::vector<std::string> list;
    list.reserve(static_cast<std::size_t>(count));
    for (std::uint64_t i = 0; i < count; ++i) list.push_back(in.read_string());
    return list;
  }
  std::vector<std::int64_t> whole;
  std::vector<double> real;
  const bool is_real = kind == GgufKind::f32 || kind == GgufKind::f64;
  is_real ? real.reserve(static_cast<std::size_t>(count)) : whole.reserve(static_cast<std::size_t>(count));
  for (std::uint64_t i = 0; i < count; ++i)
    read_gguf_number(in, kind, [&](auto value) {
      if constexpr (std::is_same_v<decltype(value), double>)
        real.push_back(value);
      else if constexpr (std::is_same_v<decltype(value), std::uint64_t>)
        in.stop("a list entry needs more than 63 bits");
      else
        whole.push_back(std::int64_t{value});
    });
  if (is_real) return real;
  return whole;
}

inline GgufValue read_gguf_value(GgufCursor& in) {
  const auto kind = static_cast<GgufKind>(in.read<std::uint32_t>());
  if (kind == GgufKind::string) return in.read_string();
  if (kind == GgufKind::array) return read_gguf_array(in);
  GgufValue value;
  read_gguf_number(in, kind, [&](auto number) { value = number; });
  return value;
}

}  // namespace ptq::io::detail
