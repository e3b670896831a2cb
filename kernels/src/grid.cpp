#include <ptq/kernels/grid.hpp>
#include <ptq/kernels/isa.hpp>

#include <cmath>
#include <limits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "check.hpp"
#include "grid_formula.hpp"

#define PTQ_BODY "grid.inl"
#include "for_each_isa.inl"

namespace ptq::kernels {

bool valid(const Convention& c) {
  if (c.bits < 2 || c.bits > 16) return false;
  const bool activation = c.range == Range::awrq_activation || c.range == Range::flexround_activation;
  return c.range >= Range::gptq && c.range <= Range::mx_ceil && !(activation && c.symmetric);
}

CodeRange code_range(const Convention& convention) { return formula::code_range(convention); }

template <class T>
void grid_from_range(const Convention& convention, T lo, T hi, T& scale, std::int32_t& zero) {
  formula::grid(convention, lo, hi, scale, zero);
}

template <class T>
Status value_range(View<const T> x, Rows rows, T& lo, T& hi) {
  if (!usable(x, rows)) return Status::bad_argument;
  PTQ_DISPATCH(value_range(x, rows, lo, hi));
}

namespace {

bool valid(const Search& s) {
  if (s.kind < Search::Kind::none || s.kind > Search::Kind::width_negative) return false;
  if (s.kind == Search::Kind::none) return true;
  return s.exponent > 0 && s.exponent <= 16 && s.steps >= 1 && s.steps <= 100000 && s.maxshrink > 0 && s.maxshrink <= 1;
}

}  // namespace

template <class T>
Status fit_grid(View<const T> w, std::ptrdiff_t group, const Convention& convention, const Search& search, const GridTable<T>& out,
                Rows rows) {
  if (!usable(w, rows) || w.cols == 0 || group < 0 || !valid(convention) || !valid(search)) return Status::bad_argument;
  if (out.scale == nullptr || out.zero == nullptr) return Status::bad_argument;
  PTQ_DISPATCH(fit_grid(w, group == 0 || group > w.cols ? w.cols : group, convention, search, out, rows));
}

template void grid_from_range<float>(const Convention&, float, float, float&, std::int32_t&);
template void grid_from_range<double>(const Convention&, double, double, double&, std::int32_t&);
template Status value_range<float>(View<const float>, Rows, float&, float&);
template Status value_range<double>(View<const double>, Rows, double&, double&);
template Status fit_grid<float>(View<const float>, std::ptrdiff_t, const Convention&, const Search&, const GridTable<float>&, Rows);
template Status fit_grid<double>(View<const double>, std::ptrdiff_t, const Convention&, const Search&, const GridTable<double>&, Rows);

}  // namespace ptq::kernels
