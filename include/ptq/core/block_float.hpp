// Block floating point on tensors: values that share an exponent, by blocks of columns or of rows and columns.
#pragma once

#include <ptq/core/grid.hpp>
#include <ptq/kernels/block_float.hpp>

namespace ptq {

namespace detail {

/// x and out (rows, n), contiguous and of one type.
inline void block_float_into(const Tensor& x, int64_t block, const kernels::BlockFloat& format, Tensor& out) {
  by_scalar(x, "block floating point", [&]<class T>(T) {
    auto values = mutable_view<T>(out);
    check(over_rows(x.size(0), grain(x), [&](kernels::Rows r) { return kernels::block_float<T>(view<T>(x), block, format, values, r); }),
          "block floating point", x);
  });
}

}  // namespace detail

/// Rounds blocks of `block` consecutive values along the last dimension (0: all of it; the last block may be short) to `format`.
/// x (…, n) finite, float32 or float64; the formula is in kernels/block_float.hpp.
[[nodiscard]] inline Tensor block_float(const Tensor& x, int64_t block, const kernels::BlockFloat& format) {
  if (!kernels::valid(format))
    refuse("block floating point of ", format.bits, " bits, exponents of ", format.exponent_bits, " with bias ", format.bias,
           ", does not exist");
  if (x.numel() == 0) return x;
  const Tensor flat = x.reshape({-1, x.dim() ? x.size(-1) : 1}).contiguous();  // (rows, n)
  Tensor out = at::empty_like(flat);
  detail::block_float_into(flat, block, format, out);
  return out.view(x.sizes());
}

/// Blocks of rows x cols of the last two dimensions; 0: the whole of one. Sizes that do not divide are filled up with zeros, which never
/// change a maximum. x (…, m, n).
[[nodiscard]] inline Tensor block_float(const Tensor& x, int64_t rows, int64_t cols, const kernels::BlockFloat& format) {
  if (x.dim() < 2) fail("blocks of rows and columns need a matrix, not ", shape_text(x));
  if (rows == 1 || x.numel() == 0) return block_float(x, cols, format);
  const int64_t m = x.size(-2), n = x.size(-1);
  rows = rows > 0 ? std::min(rows, m) : m, cols = cols > 0 ? std::min(cols, n) : n;
  const int64_t down = (m + rows - 1) / rows, across = (n + cols - 1) / cols;
  const Tensor filled = at::constant_pad_nd(x, {0, across * cols - n, 0, down * rows - m}).reshape({-1, down, rows, across, cols});
  const Tensor blocks = filled.transpose(2, 3).reshape({-1, rows * cols});  // (blocks, rows · cols)
  const Tensor back = block_float(blocks, 0, format).view({-1, down, across, rows, cols}).transpose(2, 3);
  return back.reshape({-1, down * rows, across * cols}).narrow(1, 0, m).narrow(2, 0, n).reshape(x.sizes());
}

/// x rounded to an mxint scheme, blocks along the last dimension (and `group_rows` of the one before).
[[nodiscard]] inline Tensor block_float(const Tensor& x, const Scheme& scheme) {
  const kernels::BlockFloat format{scheme.bits, scheme.range == Range::mx_ceil};
  if (scheme.granularity == Granularity::tensor) return block_float(x.reshape({1, -1}), 0, format).view(x.sizes());
  if (scheme.granularity != Granularity::group) return block_float(x, 0, format);
  return scheme.group_rows > 1 ? block_float(x, scheme.group_rows, scheme.group, format) : block_float(x, scheme.group, format);
}

}  // namespace ptq
