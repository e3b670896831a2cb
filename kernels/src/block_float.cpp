#include <ptq/kernels/block_float.hpp>
#include <ptq/kernels/isa.hpp>

#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "check.hpp"
#include "grid_formula.hpp"

#define PTQ_BODY "block_float.inl"
#include "for_each_isa.inl"

namespace ptq::kernels {

bool valid(const BlockFloat& f) {
  return f.bits >= 2 && f.bits <= 16 && f.exponent_bits >= 1 && f.exponent_bits <= 8 && f.bias >= 0 && f.bias <= 127;
}

template <class T>
Status block_float(View<const T> x, std::ptrdiff_t block, const BlockFloat& format, View<T> values, Rows rows) {
  if (!usable(x, rows) || block < 0 || !valid(format) || values.data == nullptr || !absent_or_shaped(values, x.rows, x.cols))
    return Status::bad_argument;
  if (x.cols == 0) return Status::ok;
  PTQ_DISPATCH(block_float(x, block == 0 || block > x.cols ? x.cols : block, format, values, rows));
}

template Status block_float<float>(View<const float>, std::ptrdiff_t, const BlockFloat&, View<float>, Rows);
template Status block_float<double>(View<const double>, std::ptrdiff_t, const BlockFloat&, View<double>, Rows);

}  // namespace ptq::kernels
