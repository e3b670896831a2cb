// Rounding that autograd can follow: the value of the grid, the gradient of the straight-through estimator.
#pragma once

#include <utility>

#include <ptq/core/grid.hpp>

namespace ptq {

/// The step that a convention gives the range [low, high], as kernels/grid.hpp has it, followed by autograd. low, high (…) → (…).
[[nodiscard]] inline Tensor range_step(const kernels::Convention& how, Tensor low, Tensor high) {
  const double half = static_cast<double>(int64_t{1} << (how.bits - 1)), most = 2 * half - 1;
  const bool joined = how.range == Range::gptq || how.range == Range::flexround ||
                      (how.range == Range::flexround_activation && !how.as_published);  // zero joins the range
  if (joined) low = low.clamp_max(0), high = high.clamp_min(0);
  const auto widest = [&] { return at::maximum(high.abs(), low.abs()); };
  switch (how.range) {
    case Range::gptq:
      if (how.symmetric) return how.as_published ? (high - low) / most : widest() * (2 / most);
      return (high - low) / most;
    case Range::awrq_activation:
      return (high - low) / most;
    case Range::flexround:
    case Range::flexround_activation:
      return (how.symmetric ? widest() * (2 / most) : (high - low) / most).clamp_min(1e-8);
    case Range::omni:
    case Range::omni_no_zero_point:
      return (how.symmetric ? widest() / (half - 1) : (high - low) / most).clamp(1e-5, 1e4);
    case Range::absmax:
      return widest().clamp_min(1e-5) / (half - 1);
    case Range::mx:
    case Range::mx_ceil:
      fail("a power of two has no gradient");
  }
  fail("unknown range");
}

/// x̂ = s (clamp(rne(x/s) + z, lo, hi) − z) with the value `rounded` and, rne passed straight through and z a constant, the gradients
///   inside the codes: ∂x̂/∂x = 1, ∂x̂/∂s = rne(x/s) − x/s;   above: 0, hi − z;   below: 0, lo − z.
/// Esser et al., LSQ, arXiv 1902.08153, eq. 3. x, rounded of one shape; step, which gradients reach, and scale, its value, and zero
/// broadcast to them; scale and zero hold no gradient.
[[nodiscard]] inline Tensor straight_through(const Tensor& x, const Tensor& rounded, const Tensor& step, const Tensor& scale,
                                             const Tensor& zero, int lowest, int highest) {
  Tensor inside, slope;  // of x's shape
  {
    const c10::NoGradGuard off;
    const Tensor u = x.detach() / scale, z = zero.to(u.scalar_type()), low = lowest - z, high = highest - z;
    const Tensor k = u.round();
    inside = k.ge(low).logical_and_(k.le(high)).to(u.scalar_type());
    slope = at::minimum(at::maximum(k, low), high).sub_(u * inside);
  }
  const Tensor followed = x * inside + step * slope;
  return rounded + (followed - followed.detach());
}

namespace detail {

/// A grid of one scale and zero point a row and group, for x (rows, groups, n) with its own min-max range. scale, zero (rows, groups).
[[nodiscard]] inline Tensor through_range(const Tensor& x, const Tensor& rounded, const kernels::Convention& how, const Tensor& scale,
                                          const Tensor& zero) {
  const auto codes = kernels::code_range(how);
  const Tensor step = range_step(how, x.amin(-1, true), x.amax(-1, true));  // (rows, groups, 1); ties share the gradient
  return straight_through(x, rounded, step, scale.unsqueeze(-1), zero.unsqueeze(-1), codes.lo, codes.hi);
}

}  // namespace detail

/// Fits and rounds w with gradients, those of the range included; a searched range and the scale of a minifloat are constants. w (rows,
/// cols) → the same.
[[nodiscard]] inline Tensor fake_quantize_through(const Tensor& w, const Scheme& scheme) {
  if (!scheme.active()) return w;
  const Grid grid = fit_grid(w, scheme);
  const Tensor rounded = fake_quantize(w.detach(), grid);
  if (!w.requires_grad()) return rounded;
  if (scheme.block_float() || grid.levels.defined()) return w + (rounded - w).detach();  // powers of two move by leaps; nothing is clamped
  const bool whole = scheme.granularity == Granularity::tensor;
  const int64_t rows = whole ? 1 : w.size(0), groups = grid.groups();
  const Tensor x = w.reshape({rows, groups, -1}), values = rounded.view(x.sizes());
  const Tensor y = scheme.search || !scheme.scaled() ? straight_through(x, values, grid.scale.unsqueeze(-1), grid.scale.unsqueeze(-1),
                                                                        grid.zero.unsqueeze(-1), grid.lowest, grid.highest)
                                                     : detail::through_range(x, values, convention(scheme), grid.scale, grid.zero);
  return y.reshape(w.sizes());
}

}  // namespace ptq
