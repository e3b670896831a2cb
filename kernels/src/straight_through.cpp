#include <ptq/kernels/isa.hpp>
#include <ptq/kernels/straight_through.hpp>

#include <limits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "check.hpp"
#include "grid_formula.hpp"

#define PTQ_BODY "straight_through.inl"
#include "for_each_isa.inl"

namespace ptq::kernels {

template <class T>
Status fake_quantize_gradient(View<const T> x, const Grid<T>& grid, const RoundingGradient<T>& gradient, Rows rows) {
  const bool sound = usable(x, rows) && grid.scale != nullptr && grid.codes.lo <= grid.codes.hi && grid.group >= 0 && grid.g_idx == nullptr;
  if (!sound || !absent_or_shaped(gradient.x, x.rows, x.cols) || !absent_or_shaped(gradient.upstream, x.rows, x.cols))
    return Status::bad_argument;
  if (rows.begin == rows.end || x.cols == 0) return Status::ok;
  if (gradient.upstream.data == nullptr) return Status::bad_argument;
  PTQ_DISPATCH(fake_quantize_gradient(x, grid, gradient, rows));
}

template <class T>
Status range_gradient(View<const T> x, std::ptrdiff_t group, const RangeGradient<T>& gradient, View<T> out, Rows rows) {
  if (!usable(x, rows) || group < 0 || !absent_or_shaped(out, x.rows, x.cols)) return Status::bad_argument;
  if ((gradient.low == nullptr) != (gradient.d_low == nullptr) || (gradient.high == nullptr) != (gradient.d_high == nullptr))
    return Status::bad_argument;
  if (rows.begin == rows.end || x.cols == 0) return Status::ok;
  if (out.data == nullptr) return Status::bad_argument;
  PTQ_DISPATCH(range_gradient(x, group == 0 || group > x.cols ? x.cols : group, gradient, out, rows));
}

#define PTQ_INSTANTIATE(T)                                                                                    \
  template Status fake_quantize_gradient<T>(View<const T>, const Grid<T>&, const RoundingGradient<T>&, Rows); \
  template Status range_gradient<T>(View<const T>, std::ptrdiff_t, const RangeGradient<T>&, View<T>, Rows);
PTQ_INSTANTIATE(float)
PTQ_INSTANTIATE(double)
#undef PTQ_INSTANTIATE

}  // namespace ptq::kernels
