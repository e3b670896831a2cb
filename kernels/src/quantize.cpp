#include <ptq/kernels/isa.hpp>
#include <ptq/kernels/quantize.hpp>

#include <limits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "check.hpp"
#include "grid_formula.hpp"

#define PTQ_BODY "quantize.inl"
#include "for_each_isa.inl"

namespace ptq::kernels {

namespace {

template <class T>
bool usable(const Grid<T>& grid) {
  return grid.scale != nullptr && grid.codes.lo <= grid.codes.hi && grid.group >= 0;
}

}  // namespace

template <class T>
Status fake_quantize(View<const T> w, const Grid<T>& grid, View<T> values, Codes codes, Rows rows, const Coordinates<T>& coordinates) {
  if (!usable(w, rows) || !usable(grid) || !absent_or_shaped(values, w.rows, w.cols)) return Status::bad_argument;
  if (!absent_or_holds(codes, w.cols, grid.codes.lo, grid.codes.hi)) return Status::bad_argument;
  if (!absent_or_shaped(coordinates.divisor, w.rows, w.cols) || !absent_or_shaped(coordinates.offset, w.rows, w.cols))
    return Status::bad_argument;
  PTQ_DISPATCH(fake_quantize(w, grid, values, codes, rows, coordinates));
}

template <class T>
Status dequantize(Codes codes, const Grid<T>& grid, View<T> values, Rows rows) {
  if (!usable(values, rows) || !usable(grid) || codes.data == nullptr || codes.stride < values.cols) return Status::bad_argument;
  if (codes.bytes != 1 && codes.bytes != 4) return Status::bad_argument;
  PTQ_DISPATCH(dequantize(codes, grid, values, rows));
}

template <class T>
Status fake_quantize_dynamic(View<const T> x, std::ptrdiff_t group, const Convention& convention, View<T> values, Codes codes, T* scale,
                             std::int32_t* zero, Rows rows) {
  if (!usable(x, rows) || group < 0 || !valid(convention) || !absent_or_shaped(values, x.rows, x.cols)) return Status::bad_argument;
  const CodeRange range = formula::code_range(convention);
  if (!absent_or_holds(codes, x.cols, range.lo, range.hi)) return Status::bad_argument;
  if (x.cols == 0) return Status::ok;
  PTQ_DISPATCH(fake_quantize_dynamic(x, group == 0 || group > x.cols ? x.cols : group, convention, values, codes, scale, zero, rows));
}

template <class T>
Status fake_quantize_tensor(View<const T> x, const Convention& convention, View<T> values, Codes codes, T* scale, std::int32_t* zero) {
  T lo = std::numeric_limits<T>::infinity(), hi = -lo, s = T(1);
  std::int32_t z = 0;
  if (!valid(convention)) return Status::bad_argument;
  if (value_range(x, all(x), lo, hi) == Status::bad_argument) return Status::bad_argument;
  formula::grid(convention, lo, hi, s, z);
  if (scale != nullptr) *scale = s;
  if (zero != nullptr) *zero = z;
  Grid<T> grid;
  grid.scale = &s, grid.zero = &z, grid.codes = formula::code_range(convention);
  return fake_quantize(x, grid, values, codes, all(x));
}

#define PTQ_INSTANTIATE(T)                                                                                                             \
  template Status fake_quantize<T>(View<const T>, const Grid<T>&, View<T>, Codes, Rows, const Coordinates<T>&);                        \
  template Status dequantize<T>(Codes, const Grid<T>&, View<T>, Rows);                                                                 \
  template Status fake_quantize_dynamic<T>(View<const T>, std::ptrdiff_t, const Convention&, View<T>, Codes, T*, std::int32_t*, Rows); \
  template Status fake_quantize_tensor<T>(View<const T>, const Convention&, View<T>, Codes, T*, std::int32_t*);
PTQ_INSTANTIATE(float)
PTQ_INSTANTIATE(double)
#undef PTQ_INSTANTIATE

}  // namespace ptq::kernels
