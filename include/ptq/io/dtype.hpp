// Element types of stored tensors, and their values as float. Bytes are little-endian and need no alignment.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string_view>

#include <ptq/core/error.hpp>

namespace ptq::io {

static_assert(std::endian::native == std::endian::little, "stored tensors are little-endian; this machine is not");

/// Types named by safetensors. Those of 4 and 6 bits, F8_*FNUZ and C64 are known by size only.
enum class DType {
  boolean,
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  u64,
  i64,
  f16,
  bf16,
  f32,
  f64,
  f8_e4m3,
  f8_e5m2,
  f8_e8m0,  // with values
  f4,
  f6_e2m3,
  f6_e3m2,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  c64  // size only
};

struct DTypeInfo {
  DType type;
  std::string_view name;  ///< as safetensors spells it
  unsigned bits;
};

inline constexpr std::array<DTypeInfo, 22> dtypes{{
    {DType::boolean, "BOOL", 8},
    {DType::u8, "U8", 8},
    {DType::i8, "I8", 8},
    {DType::u16, "U16", 16},
    {DType::i16, "I16", 16},
    {DType::u32, "U32", 32},
    {DType::i32, "I32", 32},
    {DType::u64, "U64", 64},
    {DType::i64, "I64", 64},
    {DType::f16, "F16", 16},
    {DType::bf16, "BF16", 16},
    {DType::f32, "F32", 32},
    {DType::f64, "F64", 64},
    {DType::f8_e4m3, "F8_E4M3", 8},
    {DType::f8_e5m2, "F8_E5M2", 8},
    {DType::f8_e8m0, "F8_E8M0", 8},
    {DType::f4, "F4", 4},
    {DType::f6_e2m3, "F6_E2M3", 6},
    {DType::f6_e3m2, "F6_E3M2", 6},
    {DType::f8_e4m3fnuz, "F8_E4M3FNUZ", 8},
    {DType::f8_e5m2fnuz, "F8_E5M2FNUZ", 8},
    {DType::c64, "C64", 64},
}};

[[nodiscard]] constexpr std::string_view name(DType type) noexcept { return dtypes[static_cast<std::size_t>(type)].name; }
[[nodiscard]] constexpr unsigned bits(DType type) noexcept { return dtypes[static_cast<std::size_t>(type)].bits; }

/// The type of that name, or nothing.
[[nodiscard]] constexpr std::optional<DType> dtype_named(std::string_view text) noexcept {
  for (const DTypeInfo& info : dtypes)
    if (info.name == text) return info.type;
  return std::nullopt;
}

/// IEEE 754 binary16 (5 exponent bits, bias 15) as float, exactly.
[[nodiscard]] constexpr float float_of_half(std::uint16_t half) noexcept {
  const std::uint32_t sign = (half & 0x8000u) << 16, magnitude = half & 0x7fffu;
  const std::uint32_t normal = (magnitude << 13) + (112u << 23);  // rebias 15 to 127
  const std::uint32_t special = (magnitude << 13) | 0x7f800000u;  // infinity, NaN
  // A subnormal m * 2^-24 is (2^-14 + m * 2^-24) - 2^-14; both terms are normal floats.
  const float small = std::bit_cast<float>((113u << 23) + (magnitude << 13)) - std::bit_cast<float>(113u << 23);
  const std::uint32_t value = magnitude >= 0x7c00u ? special : (magnitude < 0x0400u ? std::bit_cast<std::uint32_t>(small) : normal);
  return std::bit_cast<float>(value | sign);
}

/// bfloat16 is the upper half of a float.
[[nodiscard]] constexpr float float_of_bfloat16(std::uint16_t bits) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// OCP E4M3 (FN): bias 7, no infinity, NaN only at 0x7f and 0xff.
[[nodiscard]] constexpr float float_of_e4m3(std::uint8_t code) noexcept {
  const std::uint32_t sign = (code & 0x80u) << 24, magnitude = code & 0x7fu;
  if (magnitude == 0x7fu) return std::numeric_limits<float>::quiet_NaN();
  const float value = magnitude < 8u ? static_cast<float>(magnitude) / 512.0f : std::bit_cast<float>((magnitude << 20) + (120u << 23));
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign);
}

/// OCP E5M2 is the upper half of a binary16.
[[nodiscard]] constexpr float float_of_e5m2(std::uint8_t code) noexcept { return float_of_half(static_cast<std::uint16_t>(code << 8)); }

/// OCP E8M0: 2^(e - 127), 0xff is NaN.
[[nodiscard]] constexpr float float_of_e8m0(std::uint8_t code) noexcept {
  if (code == 0xffu) return std::numeric_limits<float>::quiet_NaN();
  return std::bit_cast<float>(code == 0 ? 0x00400000u : static_cast<std::uint32_t>(code) << 23);
}

/// Reads one little-endian number at any address.
template <class Number>
[[nodiscard]] inline Number load_raw(const std::byte* from) noexcept {
  Number value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

namespace detail {
template <class Raw, class Convert>
void convert_all(const std::byte* from, std::span<float> to, Convert convert) {
  float* const out = to.data();
  const std::size_t count = to.size();
  for (std::size_t i = 0; i < count; ++i) out[i] = convert(load_raw<Raw>(from + i * sizeof(Raw)));
}
}  // namespace detail

/// Converts stored elements to float. `from` holds exactly to.size() elements; integers and F64 round to nearest.
/// Throws for the types known by size only.
inline void to_float(DType type, std::span<const std::byte> from, std::span<float> to) {
  if (type > DType::f8_e8m0)
    fail("elements of type ", name(type), " have no conversion to float; supported are BOOL, U8 to U64, I8 to I64, F16, BF16, F32, F64, ",
         "F8_E4M3, F8_E5M2 and F8_E8M0");
  if (from.size() * 8 != to.size() * bits(type)) fail("to_float: ", from.size(), " bytes for ", to.size(), " elements of ", name(type));
  const auto cast = [](auto value) { return static_cast<float>(value); };
  const std::byte* const data = from.data();
  switch (type) {
    case DType::boolean:
      return detail::convert_all<std::uint8_t>(data, to, [](std::uint8_t v) { return v != 0 ? 1.0f : 0.0f; });
    case DType::u8:
      return detail::convert_all<std::uint8_t>(data, to, cast);
    case DType::i8:
      return detail::convert_all<std::int8_t>(data, to, cast);
    case DType::u16:
      return detail::convert_all<std::uint16_t>(data, to, cast);
    case DType::i16:
      return detail::convert_all<std::int16_t>(data, to, cast);
    case DType::u32:
      return detail::convert_all<std::uint32_t>(data, to, cast);
    case DType::i32:
      return detail::convert_all<std::int32_t>(data, to, cast);
    case DType::u64:
      return detail::convert_all<std::uint64_t>(data, to, cast);
    case DType::i64:
      return detail::convert_all<std::int64_t>(data, to, cast);
    case DType::f16:
      return detail::convert_all<std::uint16_t>(data, to, float_of_half);
    case DType::bf16:
      return detail::convert_all<std::uint16_t>(data, to, float_of_bfloat16);
    case DType::f32:
      return detail::convert_all<float>(data, to, cast);
    case DType::f64:
      return detail::convert_all<double>(data, to, cast);
    case DType::f8_e4m3:
      return detail::convert_all<std::uint8_t>(data, to, float_of_e4m3);
    case DType::f8_e5m2:
      return detail::convert_all<std::uint8_t>(data, to, float_of_e5m2);
    case DType::f8_e8m0:
      return detail::convert_all<std::uint8_t>(data, to, float_of_e8m0);
    default:
      return;
  }
}

}  // namespace ptq::io
