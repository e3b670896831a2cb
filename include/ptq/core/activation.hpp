// Rounding of activations: dynamic per token or per tensor, or on a static grid from calibration.
#pragma once

#include <ptq/core/grid.hpp>

namespace ptq {

/// Rounds x to `scheme`. Per token: one grid for every vector along the last dimension. Per tensor: one grid for each call, so batch the
/// calls as the method means it. x (…, n) finite. With gradients, rounding is straight-through.
/// The published codes' conventions are in kernels/grid.hpp; FlexRound arXiv 2306.00317, OmniQuant arXiv 2308.13137, SmoothQuant
/// 2211.10438.
[[nodiscard]] inline Tensor quantize_activation(const Tensor& x, const Scheme& scheme, bool as_published = false) {
  if (!scheme.active()) return x;
  const Tensor flat = x.detach().reshape({-1, x.size(-1)}).contiguous();  // (tokens, n)
  Tensor out = at::empty_like(flat);
  const auto how = convention(scheme, as_published);
  if (!kernels::valid(how)) refuse("activation format ", scheme.text(), " has no grid in that convention");
  detail::by_scalar(flat, "activation rounding", [&]<class T>(T) {
    const auto in = detail::view<T>(flat);
    auto values = detail::mutable_view<T>(out);
    if (scheme.granularity == Granularity::token) {
      detail::check(detail::over_rows(flat.size(0), detail::grain(flat),
                                      [&](kernels::Rows r) {
                                        return kernels::fake_quantize_dynamic<T>(in, 0, how, values, kernels::Codes(), nullptr, nullptr, r);
                                      }),
                    "activation rounding", x);
    } else {
      detail::check(kernels::fake_quantize_tensor<T>(in, how, values, kernels::Codes(), nullptr, nullptr), "activation rounding", x);
    }
  });
  const Tensor rounded = out.view(x.sizes());
  return x.requires_grad() ? x + (rounded - x).detach() : rounded;
}

/// Rounds x on one fixed grid; what a static format does after calibration.
[[nodiscard]] inline Tensor quantize_activation(const Tensor& x, const Grid& fixed) {
  const Tensor flat = x.detach().reshape({-1, x.size(-1)});  // (tokens, n)
  const Tensor rounded = fake_quantize(flat, fixed).view(x.sizes());
  return x.requires_grad() ? x + (rounded - x).detach() : rounded;
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
