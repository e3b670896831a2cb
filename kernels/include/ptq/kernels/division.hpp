#pragma once
// Element-wise division by learned divisors (FlexRound, LRQ): the rounded weight, its divisors, its gradients. Float and double.

#include <ptq/kernels/quantize.hpp>

namespace ptq::kernels {

/// T(r, c) = ((l(r, g) + matrix(r, c)) + row[r]) + column[c], the logarithm of the divisor of w(r, c); absent parts are zero.
/// With a bound b: l + clamp((matrix + row) + column, -b, b).
template <class T>
struct LogDivisor {
  const T* log_step = nullptr;  ///< l, indexed as the grid's scale
  View<const T> matrix;         ///< [rows x cols], optional
  const T* row = nullptr;       ///< [rows], optional
  const T* column = nullptr;    ///< [cols], optional
  T bound = T(0);               ///< 0: none
};

/// out[i] = exp(x[i]) as the functions below compute it, within an ulp; an x of magnitude above max_exponent gives `non_finite`.
template <class T>
Status exponentials(const T* x, T* out, std::ptrdiff_t n);
template <class T>
inline constexpr T max_exponent = sizeof(T) == 4 ? T(80) : T(700);

/// values = s clamp(rne(w / S), lo - z, hi - z), S = exp(T); values and divisors S are optional outputs. The grid takes neighbouring
/// columns as groups (no g_idx). values may be w itself.
template <class T>
Status divide(View<const T> w, const Grid<T>& grid, const LogDivisor<T>& t, View<T> values, View<T> divisors, Rows rows);

/// Gradients of `divide`, rounding passed straight through; m = 1 where the rounded coordinate lies within its bounds, both ends included:
///   D = -G s m w/S          to `matrix` (written), added up over columns to row[r] (written), over rows to column[c] (added)
///   G s (q - m w/S)         added up over its group to log_step (written; s = exp(l))
///   G s m / S               to `weight` (written)
/// D is zero where a bound holds T; log_step is not. All are optional. A caller with threads gives each its own `column`, and for a grid of
/// one row (row_stride 0) its own log_step, begun at zero.
template <class T>
struct DivisionGradient {
  View<const T> upstream;  ///< G [rows x cols]
  View<T> matrix, weight;  ///< `matrix` may be G itself
  T* log_step = nullptr;
  T* row = nullptr;
  T* column = nullptr;
};
template <class T>
Status divide_gradient(View<const T> w, const Grid<T>& grid, const LogDivisor<T>& t, const DivisionGradient<T>& gradient, Rows rows);

}  // namespace ptq::kernels
