#include <ptq/kernels/isa.hpp>
#include <ptq/kernels/transpose.hpp>

#include <algorithm>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "check.hpp"

#define PTQ_BODY "transpose_rows.inl"
#include "for_each_isa.inl"

namespace ptq::kernels {

template <class T>
Status transpose(View<const T> from, View<T> to, Rows rows) {
  if (!usable(to, rows) || !usable(from, Rows{0, from.rows}) || to.rows != from.cols || to.cols != from.rows) return Status::bad_argument;
  if (rows.begin == rows.end || to.cols == 0) return Status::ok;
  PTQ_DISPATCH(transpose(from, to, rows));
}

template Status transpose<float>(View<const float>, View<float>, Rows);
template Status transpose<double>(View<const double>, View<double>, Rows);

}  // namespace ptq::kernels
