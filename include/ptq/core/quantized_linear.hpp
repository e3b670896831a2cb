// The artefact of one linear: codes on a grid, what is added back, and how many bits that takes.
#pragma once

#include <cmath>
#include <string>

#include <ptq/core/codebook.hpp>
#include <ptq/core/grid.hpp>

namespace ptq {

/// x → (x A) B, added to the quantized product.
struct LowRank {
  Tensor a;         // (in, rank)
  Tensor b;         // (rank, out)
  double bits = 0;  ///< stored bits of both factors, exponents included

  [[nodiscard]] bool defined() const { return a.defined(); }
};

/// Stored bits by kind; `weights` counts the entries of the weight matrix.
struct BitCount {
  double codes = 0, grid = 0, extra = 0;  ///< extra: permutation, kept entries, factors
  int64_t weights = 0;

  [[nodiscard]] double total() const { return codes + grid + extra; }
  [[nodiscard]] double per_weight() const { return weights ? total() / static_cast<double>(weights) : 0; }
  BitCount& operator+=(const BitCount& other) {
    codes += other.codes, grid += other.grid, extra += other.extra, weights += other.weights;
    return *this;
  }
};

/// What is committed for one linear. Either `dense` holds float weights (format none), or `codes` and a grid or codebook do.
struct QuantizedLinear {
  Tensor dense;  // (out, in) or undefined
  Tensor codes;  // (out, in) uint8: stored code, 0 … 2^bits − 1
  Grid grid;     ///< scale undefined where there is a codebook
  Codebook codebook;
  KeptEntries kept;       ///< beside a codebook
  bool permuted = false;  ///< group_of of the grid is not j / group: a permutation has to be stored
  LowRank correction;
  Tensor bias;  // (out) or undefined

  [[nodiscard]] bool quantized() const { return codes.defined(); }

  /// The grid's own values and the kept entries, without the correction.
  [[nodiscard]] Tensor weight() const {  // (out, in)
    if (!quantized()) return dense;
    if (!codebook.defined()) return dequantize(codes, grid);
    Tensor w = codebook(codes);
    kept.put_into(w);
    return w;
  }

  /// With the correction added: what a plain export writes.
  [[nodiscard]] Tensor effective_weight() const {
    const Tensor w = weight();
    return correction.defined() ? w + at::mm(correction.a, correction.b).t().to(w.scalar_type()) : w;
  }

  /// Scale 32 bits, or a shared exponent of 8, or nothing where the format has no scale; zero point the weight's bits while all lie in the
  /// code range, else 32, none when symmetric; a permutation ⌈log₂ in⌉ bits a column. Levels of a codebook their stored width, kept entries
  /// value, row and one pointer a column beside the code that stays in its place. Format none counts `dense_bits` a weight.
  [[nodiscard]] BitCount bits(double dense_bits = 16) const {
    BitCount count;
    if (!quantized()) {
      count.weights = dense.numel();
      count.codes = dense_bits * static_cast<double>(dense.numel());
      return count;
    }
    count.weights = codes.numel();
    if (codebook.defined()) {
      count.codes = codebook.bits.sum().item<double>() * static_cast<double>(codes.size(0));
      count.grid = codebook.stored_bits();
      count.extra = kept.stored_bits(codebook.type, codes.size(0)) + correction.bits;
      return count;
    }
    count.codes = grid.scheme.bits * static_cast<double>(codes.numel());
    count.grid = 32.0 * static_cast<double>(grid.scale.numel());
    if (grid.scheme.block_float()) {  // rows of one block repeat its step
      const int64_t rows = (grid.scale.size(0) + grid.scheme.group_rows - 1) / grid.scheme.group_rows;
      count.grid = 8.0 * static_cast<double>(rows * grid.groups());
    }
    if (!grid.scheme.scaled()) {
      count.grid = 0;
    } else if (!grid.scheme.symmetric) {
      const bool inside = (grid.zero.ge(grid.lowest) & grid.zero.le(grid.highest)).all().item<bool>();
      count.grid += (inside ? grid.scheme.bits : 32) * static_cast<double>(grid.zero.numel());
    }
    if (permuted) count.extra += std::ceil(std::log2(static_cast<double>(codes.size(1)))) * static_cast<double>(codes.size(1));
    count.extra += correction.bits;
    return count;
  }
};

}  // namespace ptq
