#include <ptq/kernels/division.hpp>
#include <ptq/kernels/isa.hpp>

#include <limits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "check.hpp"
#include "grid_formula.hpp"

#define PTQ_BODY "division.inl"
#include "for_each_isa.inl"

namespace ptq::kernels {

namespace {

template <class T>
bool usable(View<const T> w, const Grid<T>& grid, const LogDivisor<T>& t, Rows rows) {
  return usable(w, rows) && grid.scale != nullptr && grid.codes.lo <= grid.codes.hi && grid.group >= 0 && grid.g_idx == nullptr &&
         t.log_step != nullptr && absent_or_shaped(t.matrix, w.rows, w.cols) && t.bound >= T(0);
}

}  // namespace

template <class T>
Status exponentials(const T* x, T* out, std::ptrdiff_t n) {
  if (n < 0 || (n > 0 && (x == nullptr || out == nullptr))) return Status::bad_argument;
  PTQ_DISPATCH(exponentials(x, out, n));
}

template <class T>
Status divide(View<const T> w, const Grid<T>& grid, const LogDivisor<T>& t, View<T> values, View<T> divisors, Rows rows) {
  if (!usable(w, grid, t, rows) || !absent_or_shaped(values, w.rows, w.cols) || !absent_or_shaped(divisors, w.rows, w.cols))
    return Status::bad_argument;
  PTQ_DISPATCH(divide(w, grid, t, values, divisors, rows));
}

template <class T>
Status divide_gradient(View<const T> w, const Grid<T>& grid, const LogDivisor<T>& t, const DivisionGradient<T>& gradient, Rows rows) {
  const auto shaped = [&](View<T> x) { return absent_or_shaped(x, w.rows, w.cols); };
  if (!usable(w, grid, t, rows) || gradient.upstream.data == nullptr || !absent_or_shaped(gradient.upstream, w.rows, w.cols))
    return rows.begin == rows.end && usable(w, grid, t, rows) ? Status::ok : Status::bad_argument;
  if (!shaped(gradient.matrix) || !shaped(gradient.weight)) return Status::bad_argument;
  PTQ_DISPATCH(divide_gradient(w, grid, t, gradient, rows));
}

#define PTQ_INSTANTIATE(T)                                                                                \
  template Status exponentials<T>(const T*, T*, std::ptrdiff_t);                                          \
  template Status divide<T>(View<const T>, const Grid<T>&, const LogDivisor<T>&, View<T>, View<T>, Rows); \
  template Status divide_gradient<T>(View<const T>, const Grid<T>&, const LogDivisor<T>&, const DivisionGradient<T>&, Rows);
PTQ_INSTANTIATE(float)
PTQ_INSTANTIATE(double)
#undef PTQ_INSTANTIATE

}  // namespace ptq::kernels
