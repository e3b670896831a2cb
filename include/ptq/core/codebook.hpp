// Levels instead of a uniform grid: one codebook a column, of as many bits as that column has, and entries kept beside the codes.
#pragma once

#include <array>
#include <cmath>
#include <limits>
#include <string_view>

#include <ptq/core/describe.hpp>
#include <ptq/core/tensor.hpp>

namespace ptq {

/// The width in which levels and kept entries are stored. They are rounded to it before codes are chosen.
enum class LevelType { f16, bf16, f32 };
template <>
struct EnumNames<LevelType> {
  static constexpr std::array<std::string_view, 3> names{"f16", "bf16", "f32"};
};

[[nodiscard]] constexpr int level_bits(LevelType type) { return type == LevelType::f32 ? 32 : 16; }

/// Values as they are stored, in the type they came in.
[[nodiscard]] inline Tensor as_stored(const Tensor& values, LevelType type) {
  if (type == LevelType::f32) return values.to(at::kFloat).to(values.scalar_type());
  return values.to(type == LevelType::f16 ? at::kHalf : at::kBFloat16).to(values.scalar_type());
}

/// One value as it is stored.
template <class T>
[[nodiscard]] T as_stored(T value, LevelType type) {
  const auto narrow = static_cast<float>(value);
  if (type == LevelType::f32) return static_cast<T>(narrow);
  return static_cast<T>(type == LevelType::f16 ? static_cast<float>(c10::Half(narrow)) : static_cast<float>(c10::BFloat16(narrow)));
}

/// One ascending table of levels a column; a column of fewer bits repeats its last level.
struct Codebook {
  Tensor levels;  // (in, K) float or double, every row ascending
  Tensor bits;    // (in) int32: codes of column j are 0 … 2^bits_j − 1
  LevelType type = LevelType::f16;

  [[nodiscard]] bool defined() const { return levels.defined(); }

  /// Level of every code. codes (out, in) uint8 → (out, in).
  [[nodiscard]] Tensor operator()(const Tensor& codes) const { return at::gather(levels.t(), 0, codes.to(at::kLong)); }

  /// Σ 2^bits_j levels at the stored width, and two bits a column that say which width its codes have (CLAQ's three).
  [[nodiscard]] double stored_bits() const {
    const Tensor sizes = at::pow(2, bits.to(at::kDouble));  // (in)
    return sizes.sum().item<double>() * level_bits(type) + 2.0 * static_cast<double>(bits.numel());
  }
};

/// Entries that are stored as values, by column; their codes are not read.
struct KeptEntries {
  Tensor begin;   // (in + 1) int32: where the entries of each column begin
  Tensor rows;    // (kept) int32, ascending within a column
  Tensor values;  // (kept) float or double, rounded to the stored width

  [[nodiscard]] bool defined() const { return rows.defined(); }
  [[nodiscard]] int64_t count() const { return defined() ? rows.numel() : 0; }

  /// The entries that `mask` marks. mask (out, in) bool, values (out, in).
  [[nodiscard]] static KeptEntries of(const Tensor& mask, const Tensor& values, LevelType type) {
    KeptEntries k;
    const Tensor at_column = mask.t().nonzero();  // (kept, 2) column, row
    k.rows = at_column.select(1, 1).to(at::kInt).contiguous();
    k.values = as_stored(values.t().index({mask.t()}), type).contiguous();
    k.begin = at::zeros({mask.size(1) + 1}, at::kInt);
    k.begin.narrow(0, 1, mask.size(1)).copy_(mask.sum(0).cumsum(0));
    return k;
  }

  /// Column of every entry, (kept) int64.
  [[nodiscard]] Tensor columns() const {
    const Tensor counts = begin.narrow(0, 1, begin.numel() - 1) - begin.narrow(0, 0, begin.numel() - 1);
    return at::repeat_interleave(counts.to(at::kLong));
  }

  /// Writes the entries into w (out, in).
  void put_into(Tensor& w) const {
    if (count() > 0) w.index_put_({rows.to(at::kLong), columns()}, values.to(w.scalar_type()));
  }

  /// Value, row and one pointer a column; nothing when there are none.
  [[nodiscard]] double stored_bits(LevelType type, int64_t out) const {
    if (count() == 0) return 0;
    const int row = out <= 65536 ? 16 : 32;
    return static_cast<double>(count()) * (level_bits(type) + row) + 32.0 * static_cast<double>(begin.numel());
  }
};

}  // namespace ptq
