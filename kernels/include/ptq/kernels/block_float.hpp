#pragma once
// Block floating point (MXINT): numbers of a block share an exponent; each keeps a sign and a mantissa.

#include <ptq/kernels/status.hpp>

namespace ptq::kernels {

/// Values +-n 2^(E - p), n = 0 .. 2^p - 1, p = bits - 1, E from the block's largest magnitude M:
///   floor: E = floor(log2 M) + 1    OCP Microscaling Formats 1.0; Zhang et al.: QERA, arXiv 2410.06040. Idempotent.
///   ceil:  E = ceil(log2 M)         Zhang et al.: LQER, arXiv 2402.02446, as released: the logarithm is rounded to T, 1e-9 joins every
///                                   magnitude before rounding, magnitudes up to 1e-8 stay as they are.
/// n = rne(|x| 2^(p - E)), at most 2^p - 1. E is clamped to -bias .. 2^exponent_bits - 1 - bias. floor: magnitudes below the least normal
/// number of T are zero.
struct BlockFloat {
  int bits = 8;  ///< 2 to 16, sign included
  bool ceil = false;
  int exponent_bits = 8;  ///< 1 to 8
  int bias = 127;
};

bool valid(const BlockFloat& format);

/// Blocks of `block` consecutive columns (0: the whole row; the last may be short) of rows [begin, end). values may be x itself.
template <class T>
Status block_float(View<const T> x, std::ptrdiff_t block, const BlockFloat& format, View<T> values, Rows rows);

}  // namespace ptq::kernels
