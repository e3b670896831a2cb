#pragma once
// The min-max conventions, shared word for word by CPU and CUDA. See ptq/kernels/grid.hpp for what each is.

#include <ptq/kernels/grid.hpp>

#include <cmath>

#if defined(__CUDACC__)
#define PTQ_HOST_DEVICE __host__ __device__
#else
#define PTQ_HOST_DEVICE
#endif

namespace ptq::kernels::formula {

template <class T>
struct Limits;
template <>
struct Limits<float> {
  static constexpr float smallest = 1.17549435e-38f;   // least normal number
  static constexpr float farthest_zero = 16777216.0f;  // float holds every integer up to here
  static constexpr float epsilon = 1.1920929e-07f;
};
template <>
struct Limits<double> {
  static constexpr double smallest = 2.2250738585072014e-308;
  static constexpr double farthest_zero = 1073741824.0;
  static constexpr double epsilon = 2.220446049250313e-16;
};

template <class T>
PTQ_HOST_DEVICE inline T least(T a, T b) {
  return b < a ? b : a;
}
template <class T>
PTQ_HOST_DEVICE inline T most(T a, T b) {
  return a < b ? b : a;
}
template <class T>
PTQ_HOST_DEVICE inline T magnitude(T a) {
  return a < T(0) ? -a : a;
}
template <class T>
PTQ_HOST_DEVICE inline bool is_finite(T a) {
  return a - a == T(0);
}
PTQ_HOST_DEVICE inline float rne(float a) { return rintf(a); }
PTQ_HOST_DEVICE inline double rne(double a) { return rint(a); }

/// (hi - lo) / steps, without overflow.
template <class T>
PTQ_HOST_DEVICE inline T step(T lo, T hi, T steps) {
  const T width = hi - lo;
  return is_finite(width) ? width / steps : hi / steps - lo / steps;
}

PTQ_HOST_DEVICE inline CodeRange code_range(const Convention& c) {
  const std::int32_t half = std::int32_t{1} << (c.bits - 1), maxq = 2 * half - 1;
  switch (c.range) {
    case Range::absmax:
    case Range::mx:
    case Range::mx_ceil:
      return {-(half - 1), half - 1};
    case Range::omni_no_zero_point:
      return {-half, half - 1};
    case Range::flexround:
      return c.symmetric ? CodeRange{-half, half - 1} : CodeRange{0, maxq};
    default:
      return {0, maxq};
  }
}

/// Whether zero joins the range before anything else.
PTQ_HOST_DEVICE inline bool holds_zero(const Convention& c) {
  return c.range == Range::gptq || c.range == Range::flexround || (c.range == Range::flexround_activation && !c.as_published);
}

/// The least e with widest <= 2^e (ceil) or < 2^e; widest is positive and finite. As released, ceil goes by a logarithm rounded to T: a few
/// steps above a power of two count as that power.
template <class T>
PTQ_HOST_DEVICE inline int shared_exponent(T widest, bool ceil) {
  int e;
  const T fraction = std::frexp(widest, &e);  // [0.5, 1)
  if (!ceil || fraction >= T(0.5) + T(1024) * Limits<T>::epsilon) return e;
  return fraction == T(0.5) ? e - 1 : static_cast<int>(std::ceil(static_cast<T>(std::log2(static_cast<double>(widest)))));
}

template <class T>
PTQ_HOST_DEVICE inline void grid(const Convention& c, T lo, T hi, T& scale, std::int32_t& zero) {
  const std::int32_t half = std::int32_t{1} << (c.bits - 1);
  const T maxq = static_cast<T>(2 * half - 1), top = static_cast<T>(half - 1);
  scale = T(1), zero = 0;
  if (!is_finite(lo) || !is_finite(hi)) return;
  if (holds_zero(c)) lo = least(lo, T(0)), hi = most(hi, T(0));
  const T widest = most(magnitude(lo), magnitude(hi));
  switch (c.range) {
    case Range::gptq:
      if (c.symmetric) hi = widest, lo = (lo < T(0) || !c.as_published) ? -widest : lo;
      if (lo == T(0) && hi == T(0)) lo = T(-1), hi = T(1);
      scale = most(step(lo, hi, maxq), Limits<T>::smallest);
      zero = c.symmetric ? half : static_cast<std::int32_t>(rne(-lo / scale));
      return;
    case Range::awrq_activation:
      scale = step(lo, hi, maxq);
      if (scale >= Limits<T>::smallest && widest / scale <= Limits<T>::farthest_zero) {
        zero = static_cast<std::int32_t>(rne(-lo / scale));
      } else {  // constant, or so narrow that T has no integers for it: one step as long as the value
        const bool negative = magnitude(lo) > magnitude(hi) || hi < T(0);
        scale = widest == T(0) ? T(1) : most(widest, Limits<T>::smallest);
        zero = negative ? 1 : 0;
      }
      return;
    case Range::flexround:
    case Range::flexround_activation:
      if (c.symmetric) {
        scale = most(widest / (maxq / T(2)), static_cast<T>(1e-8f));
      } else {
        scale = most(step(lo, hi, maxq), static_cast<T>(1e-8f));
        zero = static_cast<std::int32_t>(least(most(-rne(lo / scale), T(0)), maxq));
      }
      return;
    case Range::omni:
    case Range::omni_no_zero_point:
      scale = least(most(c.symmetric ? widest / top : step(lo, hi, maxq), T(1e-5)), T(1e4));
      if (c.range == Range::omni) {
        zero = c.symmetric ? half - 1 : static_cast<std::int32_t>(rne(least(most(-lo / scale, T(-1e4)), T(1e4))));
      }
      return;
    case Range::absmax:
      scale = most(widest, T(1e-5)) / top;
      return;
    case Range::mx:
    case Range::mx_ceil:
      if (widest >= Limits<T>::smallest) scale = std::ldexp(T(1), shared_exponent(widest, c.range == Range::mx_ceil) + 1 - c.bits);
      return;
  }
}

}  // namespace ptq::kernels::formula
