// Formats without a scale: fixed point, and floating point of few bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include <ptq/core/scheme.hpp>
#include <ptq/core/tensor.hpp>

namespace ptq {

/// clamp(rne(x 2^fraction), −2^(bits−1), 2^(bits−1) − 1) / 2^fraction; unsigned: 0 to 2^bits − 1. No parameter follows from the data.
/// As released with LQER (Zhang et al., arXiv 2402.02446), where it is called integer. x any shape, finite.
[[nodiscard]] inline Tensor fixed_point(const Tensor& x, int bits, int fraction, bool is_signed = true) {
  const double step = std::ldexp(1.0, -fraction), half = std::ldexp(1.0, bits - 1);
  return at::clamp(at::round(x / step), is_signed ? -half : 0, is_signed ? half - 1 : 2 * half - 1) * step;
}

/// Sign, `exponent_bits`, and m = bits − exponent_bits − 1 bits of mantissa behind an implicit one; no infinity, no NaN: what is too large
/// becomes the largest value. The least exponent, −bias, holds multiples of 2^(1 − bias − m).
///   y = ± (1 + n / 2^m) 2^e,   e = ⌊log₂|x|⌋ in −bias … 2^exponent_bits − 1 − bias,   n = rne((|x| / 2^e − 1) 2^m), at most 2^m − 1
/// As released with LQER: a mantissa that would round up to the next power of two stays below it. x any shape, float32 or float64, finite.
[[nodiscard]] inline Tensor minifloat(const Tensor& x, int bits, int exponent_bits, int bias) {
  const int mantissa = bits - exponent_bits - 1;
  const double steps = std::ldexp(1.0, mantissa), least = -bias, most = std::ldexp(1.0, exponent_bits) - 1 - bias;
  const Tensor magnitude = x.abs();
  const Tensor exponent = at::clamp(std::get<1>(at::frexp(magnitude)).to(at::kDouble) - 1, least, most);  // frexp's fraction is in [½, 1)
  const Tensor low = exponent.eq(least);
  const Tensor power = at::exp2(exponent + low.to(at::kDouble));  // of the step's binade, exact
  const Tensor whole = at::where(low, at::zeros_like(power), at::ones_like(power));
  const Tensor n = at::clamp(at::round((magnitude.to(at::kDouble) / power - whole) * steps), 0, steps - 1);
  const Tensor y = at::where(magnitude.gt(0), (whole + n / steps) * power, at::zeros_like(power));
  return y.to(x.scalar_type()).copysign(x);
}

/// What minifloat() can give, ascending: 2^bits − 1 values, for zero has two signs but one value. (levels) double. bits at most 16.
[[nodiscard]] inline Tensor minifloat_levels(int bits, int exponent_bits, int bias) {
  const int mantissa = bits - exponent_bits - 1, half = 1 << (bits - 1), steps = 1 << mantissa;
  Tensor levels = at::empty({2 * half - 1}, at::kDouble);
  double* const zero = levels.mutable_data_ptr<double>() + half - 1;
  for (int n = 0; n < half; ++n) {  // exponent and mantissa as one number
    const int exponent = n / steps, whole = exponent > 0 ? steps : 0;
    const double value = std::ldexp(whole + n % steps, std::max(exponent, 1) - bias - mantissa);
    zero[n] = value, zero[-n] = n > 0 ? -value : 0;
  }
  return levels;
}

/// Where the nearest of such levels changes: to the level of even mantissa where two are equally near (IEEE 754, OCP Microscaling 1.0).
/// levels (K) float or double → (K − 1): level k is for values above threshold k − 1 up to threshold k.
[[nodiscard]] inline Tensor minifloat_thresholds(const Tensor& levels) {
  const int64_t count = levels.size(0), zero = count / 2;
  Tensor between = (levels.narrow(0, 0, count - 1) + levels.narrow(0, 1, count - 1)) / 2;  // (K − 1), exact
  const Tensor upper = (at::arange(1, count) - zero).remainder(2).eq(0);                   // the upper neighbour is even and takes the tie
  return at::where(upper, at::nextafter(between, at::full_like(between, -std::numeric_limits<double>::infinity())), between).contiguous();
}

/// x in a format that has no scale, fixed point or minifloat.
[[nodiscard]] inline Tensor without_scale(const Tensor& x, const Scheme& s) {
  return s.kind == NumberKind::fixed ? fixed_point(x, s.bits, s.fraction, s.symmetric)
                                     : minifloat(x, s.bits, s.exponent_bits, s.exponent_bias);
}

/// The bias that centres the exponents: 2^(exponent_bits − 1) − 1.
[[nodiscard]] inline int usual_bias(int exponent_bits) { return (1 << (exponent_bits - 1)) - 1; }

}  // namespace ptq
