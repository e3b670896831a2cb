#include <ptq/kernels/isa.hpp>
#include <ptq/kernels/scan.hpp>

#include <limits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "check.hpp"

#define PTQ_BODY "scan.inl"
#include "for_each_isa.inl"

namespace ptq::kernels {

template <class T>
Status all_finite(View<const T> x, Rows rows) {
  if (!usable(x, rows)) return Status::bad_argument;
  PTQ_DISPATCH(all_finite(x, rows));
}

template <class T>
Status column_absmax(View<const T> x, Rows rows, T* absmax) {
  if (!usable(x, rows) || absmax == nullptr) return Status::bad_argument;
  PTQ_DISPATCH(column_absmax(x, rows, absmax));
}

template Status all_finite<float>(View<const float>, Rows);
template Status all_finite<double>(View<const double>, Rows);
template Status column_absmax<float>(View<const float>, Rows, float*);
template Status column_absmax<double>(View<const double>, Rows, double*);

}  // namespace ptq::kernels
