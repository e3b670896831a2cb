#pragma once
// Gradients of rounding onto a grid, rounding passed straight through, and of the ends of a range. Float and double.

#include <ptq/kernels/quantize.hpp>

namespace ptq::kernels {

/// Gradients of x̂ = s (clamp(rne(x/s) + z, lo, hi) - z), z held; m = 1 where the rounded coordinate lies within lo - z and hi - z, ends
/// included, q is the clamped one, G the upstream gradient:
///   G m               to `x` (written; may be G itself)
///   G (q - m x/s)     added up over its run of columns to step[r * groups + i] (written)
/// Both are optional. The grid takes neighbouring columns as groups (no g_idx).
template <class T>
struct RoundingGradient {
  View<const T> upstream;  ///< G [rows x cols]
  View<T> x;
  T* step = nullptr;  ///< [rows x groups]
};
template <class T>
Status fake_quantize_gradient(View<const T> x, const Grid<T>& grid, const RoundingGradient<T>& gradient, Rows rows);

/// Gradients of the least and the largest of every `group` columns (0: of the row): d_low and d_high are shared by the entries of x that
/// equal low and high, and added to `out`. low, high, d_low, d_high [rows x groups]; either pair may be absent.
template <class T>
struct RangeGradient {
  const T *low = nullptr, *high = nullptr, *d_low = nullptr, *d_high = nullptr;
};
template <class T>
Status range_gradient(View<const T> x, std::ptrdiff_t group, const RangeGradient<T>& gradient, View<T> out, Rows rows);

}  // namespace ptq::kernels
