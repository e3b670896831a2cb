// Rounding that autograd can follow: the value of the grid, the gradient of the straight-through estimator.
#pragma once

#include <ptq/core/autograd.hpp>
#include <ptq/core/grid.hpp>
#include <ptq/kernels/straight_through.hpp>

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

namespace detail {

/// x as rows of groups, and the grid that rounds it.
struct Through {
  Tensor x;            // (rows, columns)
  Tensor scale, zero;  // (rows or 1, groups), the latter int32
  int64_t group = 0;   ///< columns a group; 0: all
  int lowest = 0, highest = 0;

  /// ∂x and ∂step, (rows, groups), of Σ upstream ⊙ x̂; both written where they are defined.
  void backward(const Tensor& upstream, Tensor d_x, Tensor d_step) const {
    by_scalar(x, "rounding with gradients", [&]<class T>(T) {
      kernels::Grid<T> grid;
      grid.scale = scale.const_data_ptr<T>(), grid.zero = zero.const_data_ptr<int32_t>(), grid.group = group;
      grid.row_stride = scale.size(0) == 1 ? 0 : scale.size(1), grid.group_stride = scale.size(1) == 1 ? 0 : 1;
      grid.codes = {lowest, highest};
      kernels::RoundingGradient<T> gradient;
      gradient.upstream = view<T>(upstream);
      if (d_x.defined()) gradient.x = mutable_view<T>(d_x);
      if (d_step.defined()) gradient.step = d_step.mutable_data_ptr<T>();
      detail::check(over_rows(x.size(0), grain(x),
                              [&](kernels::Rows r) { return kernels::fake_quantize_gradient<T>(view<T>(x), grid, gradient, r); }),
                    "rounding with gradients", x);
    });
  }
};

/// The value `rounded` with the gradients of `straight_through`, by one pass back over x and nothing kept but it.
struct ThroughRounding : Differentiable<ThroughRounding> {
  static Tensor forward(Context* context, const Tensor& x, const Tensor& step, const Tensor& rounded, const Tensor& scale,
                        const Tensor& zero, int64_t group, int64_t lowest, int64_t highest) {
    context->save_for_backward({x.detach(), scale, zero});
    context->saved_data["group"] = group, context->saved_data["lowest"] = lowest, context->saved_data["highest"] = highest;
    context->saved_data["step"] = step.requires_grad(), context->saved_data["shape"] = step.sizes();
    context->saved_data["x"] = x.requires_grad();
    return rounded.view(rounded.sizes());
  }
  static TensorList backward(Context* context, const TensorList& upstream) {
    const TensorList kept = context->get_saved_variables();
    const Tensor g = upstream[0].contiguous();  // (rows, columns)
    const Tensor d_x = context->saved_data["x"].toBool() ? at::empty_like(g) : Tensor();
    const auto number = [&](const char* name) { return context->saved_data[name].toInt(); };
    const Through t{kept[0], kept[1], kept[2], number("group"), static_cast<int>(number("lowest")), static_cast<int>(number("highest"))};
    Tensor d_step;
    if (context->saved_data["step"].toBool()) d_step = at::empty({g.size(0), t.group == 0 ? 1 : g.size(1) / t.group}, g.options());
    t.backward(g, d_x, d_step);
    if (d_step.defined()) d_step = d_step.sum_to_size(context->saved_data["shape"].toIntVector());
    return {d_x, d_step, {}, {}, {}, {}, {}, {}};
  }
};

/// x itself and the ends of its groups. Back, the ends' gradients join x's own where x reaches them: in place, so what comes out as x must
/// be used once, by a function whose gradient is nobody else's.
struct WithRange : Differentiable<WithRange> {
  static TensorList forward(Context* context, const Tensor& x, int64_t group) {  // x (rows, columns)
    const Tensor groups = x.view({x.size(0), group == 0 ? 1 : x.size(1) / group, -1}), low = groups.amin(-1), high = groups.amax(-1);
    context->save_for_backward({x.detach(), low, high});
    context->saved_data["group"] = group;
    return {x.view(x.sizes()), low, high};
  }
  static TensorList backward(Context* context, const TensorList& upstream) {
    const TensorList kept = context->get_saved_variables();
    const Tensor& x = kept[0];
    Tensor d_x = upstream[0].defined() ? upstream[0].contiguous() : at::zeros_like(x);
    const Tensor d_low = upstream[1].defined() ? upstream[1].contiguous() : Tensor(),
                 d_high = upstream[2].defined() ? upstream[2].contiguous() : Tensor();
    by_scalar(x, "the ends of a range", [&]<class T>(T) {
      kernels::RangeGradient<T> gradient;
      if (d_low.defined()) gradient.low = kept[1].const_data_ptr<T>(), gradient.d_low = d_low.const_data_ptr<T>();
      if (d_high.defined()) gradient.high = kept[2].const_data_ptr<T>(), gradient.d_high = d_high.const_data_ptr<T>();
      detail::check(over_rows(x.size(0), grain(x),
                              [&](kernels::Rows r) {
                                return kernels::range_gradient<T>(view<T>(x), context->saved_data["group"].toInt(), gradient,
                                                                  mutable_view<T>(d_x), r);
                              }),
                    "the ends of a range", x);
    });
    return {d_x, {}};
  }
};

}  // namespace detail

/// x̂ = s (clamp(rne(x/s) + z, lo, hi) − z) with the value `rounded` and, rne passed straight through and z a constant, the gradients
///   inside the codes: ∂x̂/∂x = 1, ∂x̂/∂s = rne(x/s) − x/s;   above: 0, hi − z;   below: 0, lo − z.
/// Esser et al., LSQ, arXiv 1902.08153, eq. 3. x, rounded (rows, columns); step, which gradients reach, and scale, its value, and zero
/// (rows or 1, groups); groups of `group` columns, 0: one. scale and zero hold no gradient.
[[nodiscard]] inline Tensor straight_through(const Tensor& x, const Tensor& rounded, const Tensor& step, const Tensor& scale,
                                             const Tensor& zero, int64_t group, int lowest, int highest) {
  return detail::ThroughRounding::apply(x.contiguous(), step, rounded, scale.detach().to(x.scalar_type()).contiguous(), zero.contiguous(),
                                        group, static_cast<int64_t>(lowest), static_cast<int64_t>(highest));
}

/// x (rows, columns) with the least and the largest of every `group` columns (0: all), (rows, groups), each followed by autograd; entries
/// that reach an end share its gradient. The x that is returned goes into `straight_through`, and nowhere else.
struct Ranged {
  Tensor x, low, high;
};
[[nodiscard]] inline Ranged with_range(const Tensor& x, int64_t group) {
  const TensorList all = detail::WithRange::apply(x.contiguous(), group);
  return {all[0], all[1], all[2]};
}

namespace detail {

/// A grid of one scale and zero point a row and group, for x (rows, columns) with its own min-max range. scale, zero (rows, groups).
[[nodiscard]] inline Tensor through_range(const Tensor& x, const Tensor& rounded, const kernels::Convention& how, const Tensor& scale,
                                          const Tensor& zero, int64_t group) {
  const auto codes = kernels::code_range(how);
  const Ranged r = with_range(x, group);
  return straight_through(r.x, rounded, range_step(how, r.low, r.high), scale, zero, group, codes.lo, codes.hi);
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
  const int64_t rows = whole ? 1 : w.size(0), group = grid.groups() == 1 ? 0 : w.size(1) / grid.groups();
  const Tensor x = w.reshape({rows, -1}), values = rounded.view(x.sizes());
  const Tensor y = scheme.search || !scheme.scaled()
                       ? straight_through(x, values, grid.scale, grid.scale, grid.zero, group, grid.lowest, grid.highest)
                       : detail::through_range(x, values, convention(scheme), grid.scale, grid.zero, group);
  return y.reshape(w.sizes());
}

}  // namespace ptq
