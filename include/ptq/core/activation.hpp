// Rounding of activations: dynamic per token or per tensor, or on a static grid from calibration.
#pragma once

#include <ptq/core/block_float.hpp>
#include <ptq/core/minifloat.hpp>
#include <ptq/core/straight_through.hpp>

namespace ptq {

namespace detail {

/// A minifloat times a scale of each token, of blocks of it, or of the whole tensor. x (…, n).
inline Tensor scaled_minifloat(const Tensor& x, const Scheme& scheme) {
  if (x.numel() == 0) return x;
  const Tensor flat = x.reshape({-1, x.size(-1)}).contiguous();  // (tokens, n)
  Scheme rows = scheme;
  if (rows.granularity == Granularity::token) rows.granularity = Granularity::channel;
  return fake_quantize(flat, fit_grid(flat, rows)).view(x.sizes());
}

}  // namespace detail

/// Rounds x to `scheme`. Per token: one grid for every vector along the last dimension; mxint: one exponent for blocks of it. Per tensor:
/// one grid for each call, so batch the calls as the method means it. x (…, n) finite. With gradients, rounding is straight-through and the
/// range is followed. The published codes' conventions are in kernels/grid.hpp; FlexRound arXiv 2306.00317, OmniQuant arXiv 2308.13137,
/// SmoothQuant 2211.10438.
[[nodiscard]] inline Tensor quantize_activation(const Tensor& x, const Scheme& scheme, bool as_published = false) {
  if (!scheme.active()) return x;
  const bool taught = at::GradMode::is_enabled() && x.requires_grad();
  if (scheme.block_float() || scheme.kind != NumberKind::integer) {
    if (scheme.kind != NumberKind::integer) require_finite(x, "activation rounding");
    const Tensor rounded = !scheme.scaled()                       ? without_scale(x.detach(), scheme)
                           : scheme.kind == NumberKind::minifloat ? detail::scaled_minifloat(x.detach(), scheme)
                                                                  : block_float(x.detach(), scheme);
    return taught ? x + (rounded - x).detach() : rounded;
  }
  const Tensor flat = x.detach().reshape({-1, x.size(-1)}).contiguous();  // (tokens, n)
  Tensor out = at::empty_like(flat), scale, zero;
  const auto how = convention(scheme, as_published);
  if (!kernels::valid(how)) refuse("activation format ", scheme.text(), " has no grid in that convention");
  const bool token = scheme.granularity == Granularity::token;
  if (taught) scale = at::empty({token ? flat.size(0) : 1, 1}, flat.options()), zero = at::empty(scale.sizes(), at::kInt);
  detail::by_scalar(flat, "activation rounding", [&]<class T>(T) {
    const auto in = detail::view<T>(flat);
    auto values = detail::mutable_view<T>(out);
    T* const s = taught ? scale.mutable_data_ptr<T>() : nullptr;
    int32_t* const z = taught ? zero.mutable_data_ptr<int32_t>() : nullptr;
    if (token) {
      detail::check(detail::over_rows(
                        flat.size(0), detail::grain(flat),
                        [&](kernels::Rows r) { return kernels::fake_quantize_dynamic<T>(in, 0, how, values, kernels::Codes(), s, z, r); }),
                    "activation rounding", x);
    } else {
      detail::check(kernels::fake_quantize_tensor<T>(in, how, values, kernels::Codes(), s, z), "activation rounding", x);
    }
  });
  if (!taught) return out.view(x.sizes());
  const Tensor wide = x.reshape({scale.size(0), -1});  // (tokens or 1, n or all)
  return detail::through_range(wide, out.view(wide.sizes()), how, scale, zero, 0).view(x.sizes());
}

/// Rounds x on one fixed grid; what a static format does after calibration.
[[nodiscard]] inline Tensor quantize_activation(const Tensor& x, const Grid& fixed) {
  const Tensor flat = x.detach().reshape({-1, x.size(-1)});  // (tokens, n)
  const Tensor rounded = fake_quantize(flat, fixed);
  if (!at::GradMode::is_enabled() || !x.requires_grad()) return rounded.view(x.sizes());
  return straight_through(x.reshape(flat.sizes()), rounded, fixed.scale, fixed.scale, fixed.zero, 0, fixed.lowest, fixed.highest)
      .view(x.sizes());  // scale, zero (1, 1)
}

/// The grid of a static format for values between low and high.
[[nodiscard]] inline Grid static_grid(const Scheme& scheme, double low, double high, at::ScalarType dtype) {
  Grid g;
  g.scheme = scheme;
  const auto how = convention(scheme);
  const auto codes = kernels::code_range(how);
  g.lowest = codes.lo, g.highest = codes.hi;
  g.scale = at::empty({1, 1}, at::dtype(dtype));
  g.zero = at::empty({1, 1}, at::kInt);
  detail::by_scalar(g.scale, "a static grid", [&]<class T>(T) {
    kernels::grid_from_range<T>(how, static_cast<T>(low), static_cast<T>(high), *g.scale.mutable_data_ptr<T>(),
                                *g.zero.mutable_data_ptr<int32_t>());
  });
  return g;
}

}  // namespace ptq
