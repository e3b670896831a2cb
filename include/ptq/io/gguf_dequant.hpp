// Values of ggml's block formats. Each function decodes one block; d and m are binary16, codes unsigned, nibbles low first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include <ptq/core/error.hpp>
#include <ptq/io/dtype.hpp>
#include <ptq/io/gguf_types.hpp>

namespace ptq::io {

namespace detail {

[[nodiscard]] inline unsigned byte_at(const std::byte* from, std::size_t i) noexcept { return std::to_integer<unsigned>(from[i]); }
[[nodiscard]] inline float half_at(const std::byte* from) noexcept { return float_of_half(load_raw<std::uint16_t>(from)); }
[[nodiscard]] inline int signed_at(const std::byte* from, std::size_t i) noexcept { return static_cast<std::int8_t>(from[i]); }

/// w_j = d code_j + m over 32 elements. Byte j holds element j in its low nibble and j + 16 in its high one; bit j of `fifth` is
/// element j's fifth bit (0 where codes have four).
inline void decode_nibbles(const std::byte* nibbles, std::uint32_t fifth, float d, float m, float* out) noexcept {
  for (unsigned j = 0; j < 16; ++j) {
    const unsigned byte = byte_at(nibbles, j);
    const unsigned low = (byte & 15u) | ((fifth >> j & 1u) << 4), high = (byte >> 4) | ((fifth >> (j + 16) & 1u) << 4);
    out[j] = d * static_cast<float>(low) + m;
    out[j + 16] = d * static_cast<float>(high) + m;
  }
}

/// w_j = d (code_j - zero): the difference is exact, so there is one rounding.
inline void decode_centred(const std::byte* nibbles, std::uint32_t fifth, float d, int zero, float* out) noexcept {
  for (unsigned j = 0; j < 16; ++j) {
    const unsigned byte = byte_at(nibbles, j);
    const unsigned low = (byte & 15u) | ((fifth >> j & 1u) << 4), high = (byte >> 4) | ((fifth >> (j + 16) & 1u) << 4);
    out[j] = d * static_cast<float>(static_cast<int>(low) - zero);
    out[j + 16] = d * static_cast<float>(static_cast<int>(high) - zero);
  }
}

inline void decode_q4_0(const std::byte* block, float* out) noexcept { decode_centred(block + 2, 0, half_at(block), 8, out); }
inline void decode_q4_1(const std::byte* block, float* out) noexcept {
  decode_nibbles(block + 4, 0, half_at(block), half_at(block + 2), out);
}
inline void decode_q5_0(const std::byte* block, float* out) noexcept {
  decode_centred(block + 6, load_raw<std::uint32_t>(block + 2), half_at(block), 16, out);
}
inline void decode_q5_1(const std::byte* block, float* out) noexcept {
  decode_nibbles(block + 8, load_raw<std::uint32_t>(block + 4), half_at(block), half_at(block + 2), out);
}
inline void decode_q8_0(const std::byte* block, float* out) noexcept {
  const float d = half_at(block);
  for (std::size_t j = 0; j < 32; ++j) out[j] = d * static_cast<float>(signed_at(block + 2, j));
}

/// Six-bit scale and minimum of sub-block j of 8, out of 12 bytes.
struct ScaleMin {
  float scale, min;
};
[[nodiscard]] inline ScaleMin scale_min(const std::byte* s, std::size_t j) noexcept {
  unsigned scale = 0, min = 0;
  if (j < 4) {
    scale = byte_at(s, j) & 63u;
    min = byte_at(s, j + 4) & 63u;
  } else {
    scale = (byte_at(s, j + 4) & 15u) | ((byte_at(s, j - 4) >> 6) << 4);
    min = (byte_at(s, j + 4) >> 4) | ((byte_at(s, j) >> 6) << 4);
  }
  return {static_cast<float>(scale), static_cast<float>(min)};
}

/// w = d scale_j code - dmin min_j over 8 sub-blocks j of 32: nibbles 32 bytes for two sub-blocks; bit j of fifth[i] is the fifth bit of
/// element 32 j + i (null where codes have four).
inline void decode_k(float d, float dmin, const std::byte* scales, const std::byte* fifth, const std::byte* nibbles, float* out) noexcept {
  for (std::size_t j = 0; j < 8; ++j) {
    const ScaleMin s = scale_min(scales, j);
    const float step = d * s.scale, offset = dmin * s.min;
    for (std::size_t i = 0; i < 32; ++i) {
      const unsigned byte = byte_at(nibbles + 32 * (j / 2), i), nibble = j % 2 == 0 ? byte & 15u : byte >> 4;
      const unsigned top = fifth == nullptr ? 0u : (byte_at(fifth, i) >> j & 1u) << 4;
      out[32 * j + i] = step * static_cast<float>(nibble | top) - offset;
    }
  }
}
inline void decode_q4_k(const std::byte* block, float* out) noexcept {
  decode_k(half_at(block), half_at(block + 2), block + 4, nullptr, block + 16, out);
}
inline void decode_q5_k(const std::byte* block, float* out) noexcept {
  decode_k(half_at(block), half_at(block + 2), block + 4, block + 16, block + 48, out);
}

/// w = d sc[element / 16] (code - 32): low four bits in `ql` (128 bytes), top two in `qh` (64 bytes), two halves of 128 elements.
inline void decode_q6_k(const std::byte* block, float* out) noexcept {
  const std::byte *ql = block, *qh = block + 128, *sc = block + 192;
  const float d = half_at(block + 208);
  for (std::size_t half = 0; half < 2; ++half)
    for (std::size_t quarter = 0; quarter < 4; ++quarter)
      for (std::size_t l = 0; l < 32; ++l) {
        const unsigned low = byte_at(ql, 64 * half + 32 * (quarter % 2) + l) >> (quarter < 2 ? 0 : 4) & 15u;
        const unsigned high = byte_at(qh, 32 * half + l) >> (2 * quarter) & 3u;
        const std::size_t element = 128 * half + 32 * quarter + l;
        out[element] = d * static_cast<float>(signed_at(sc, element / 16)) * static_cast<float>(static_cast<int>(low | high << 4) - 32);
      }
}

template <class Decode>
void decode_blocks(const GgmlType& type, const std::byte* from, std::span<float> to, Decode decode) {
  float* const out = to.data();
  const std::size_t blocks = to.size() / type.elements;
  for (std::size_t b = 0; b < blocks; ++b) decode(from + b * type.bytes, out + b * type.elements);
}

}  // namespace detail

/// Decodes to.size() elements, which must be whole blocks in exactly from.size() bytes. Throws for types without a decoder; the message
/// begins with the type's name and says which are supported.
inline void dequantize(const GgmlType& type, std::span<const std::byte> from, std::span<float> to) {
  if (to.size() % type.elements != 0 || from.size() / type.bytes != to.size() / type.elements || from.size() % type.bytes != 0)
    fail(type.name, ": ", from.size(), " bytes do not hold ", to.size(), " elements");
  const auto blocks = [&](auto decode) { detail::decode_blocks(type, from.data(), to, decode); };
  const std::string_view name = type.name;
  if (name == "F32") return to_float(DType::f32, from, to);
  if (name == "F16") return to_float(DType::f16, from, to);
  if (name == "BF16") return to_float(DType::bf16, from, to);
  if (name == "F64") return to_float(DType::f64, from, to);
  if (name == "Q4_0") return blocks(detail::decode_q4_0);
  if (name == "Q4_1") return blocks(detail::decode_q4_1);
  if (name == "Q5_0") return blocks(detail::decode_q5_0);
  if (name == "Q5_1") return blocks(detail::decode_q5_1);
  if (name == "Q8_0") return blocks(detail::decode_q8_0);
  if (name == "Q4_K") return blocks(detail::decode_q4_k);
  if (name == "Q5_K") return blocks(detail::decode_q5_k);
  if (name == "Q6_K") return blocks(detail::decode_q6_k);
  fail(name, " is not supported; supported are F32, F16, BF16, F64, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and Q6_K");
}

}  // namespace ptq::io
