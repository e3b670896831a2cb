// Codes of 1 to 8 bits as a dense bit string a row: element i of a row sits at bit i·b, least significant bit first.
#pragma once

#include <cstring>

#include <ptq/core/tensor.hpp>

namespace ptq {

[[nodiscard]] inline int64_t packed_bytes(int64_t columns, int bits) { return (columns * bits + 7) / 8; }

/// codes (rows, columns) uint8 below 2^bits → (rows, ⌈columns·bits/8⌉) uint8.
[[nodiscard]] inline Tensor pack(const Tensor& codes, int bits) {
  const Tensor in = codes.contiguous();
  const int64_t rows = in.size(0), columns = in.size(1), width = packed_bytes(columns, bits);
  Tensor out = at::zeros({rows, width}, at::kByte);
  const uint8_t* source = in.const_data_ptr<uint8_t>();
  uint8_t* target = out.mutable_data_ptr<uint8_t>();
  for (int64_t r = 0; r < rows; ++r) {
    uint32_t held = 0;
    int have = 0;
    uint8_t* at = target + r * width;
    for (int64_t c = 0; c < columns; ++c) {
      const uint32_t code = source[r * columns + c];
      if (code >> bits) fail("code ", code, " does not fit ", bits, " bits");
      held |= code << have;
      for (have += bits; have >= 8; have -= 8, held >>= 8) *at++ = static_cast<uint8_t>(held);
    }
    if (have > 0) *at = static_cast<uint8_t>(held);
  }
  return out;
}

/// The inverse of pack(). Throws when the row width does not fit `columns`.
[[nodiscard]] inline Tensor unpack(const Tensor& packed, int64_t columns, int bits) {
  const Tensor in = packed.contiguous();
  const int64_t rows = in.size(0), width = in.size(1);
  if (width != packed_bytes(columns, bits)) fail("packed codes ", shape_text(in), " do not hold ", columns, " columns of ", bits, " bits");
  Tensor out = at::empty({rows, columns}, at::kByte);
  const uint8_t* source = in.const_data_ptr<uint8_t>();
  uint8_t* target = out.mutable_data_ptr<uint8_t>();
  const uint32_t mask = (1u << bits) - 1;
  for (int64_t r = 0; r < rows; ++r) {
    uint32_t held = 0;
    int have = 0;
    const uint8_t* at = source + r * width;
    for (int64_t c = 0; c < columns; ++c) {
      if (have < bits) held |= static_cast<uint32_t>(*at++) << have, have += 8;
      target[r * columns + c] = static_cast<uint8_t>(held & mask);
      held >>= bits, have -= bits;
    }
  }
  return out;
}

}  // namespace ptq
