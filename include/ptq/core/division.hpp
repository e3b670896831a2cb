// Element-wise division: every weight has a learned divisor of its own, in the log domain. FlexRound and LRQ differ in its form only.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ptq/core/grid.hpp>
#include <ptq/core/policy.hpp>

namespace ptq {

/// Log-divisors beyond the common step; undefined parts are zero.
struct LogDivisor {
  Tensor matrix;                  // (rows, cols)
  Tensor row;                     // (rows, 1)
  Tensor column;                  // (1, cols)
  std::optional<double> bound{};  ///< their sum stays within ±bound
};

/// What is learned of the grid, and its fixed zero point: {"l1" log s, "zero"}, both (rows or 1, groups).
[[nodiscard]] inline NamedTensors start_division(const Tensor& w, const Scheme& scheme) {
  const Grid g = fit_grid(w, scheme);
  return {{"l1", g.scale.log()}, {"zero", g.zero}};
}

/// `names` at `rate`, the step "l1" at its own where it has one. Parameters of rate 0 stay where they start.
[[nodiscard]] inline std::vector<Learnable> division_learnables(double rate, const std::optional<double>& step_rate,
                                                                std::vector<std::string> names) {
  const bool together = !step_rate || *step_rate == rate;
  if (together) names.insert(names.begin(), "l1");
  std::vector<Learnable> all;
  if (rate > 0) all.push_back({std::move(names), rate});
  if (!together && *step_rate > 0) all.push_back({{"l1"}, *step_rate});
  return all;
}

/// Why these numbers mean nothing; empty: they do.
[[nodiscard]] inline std::string refuses_division(double rate, const std::optional<double>& step_rate, const std::optional<double>& bound) {
  if (!(rate >= 0)) return "rounding.rate must not be negative, it is " + number_text(rate);
  if (step_rate && !(*step_rate >= 0)) return "rounding.step_rate must not be negative, it is " + number_text(*step_rate);
  if (bound && !(*bound > 0)) return "rounding.bound must be positive or none, it is " + number_text(*bound);
  return {};
}

namespace detail {

/// The grid of exp(l1) and the fixed zero point. step: exp(l1), (rows or 1, groups).
[[nodiscard]] inline Grid division_grid(const NamedTensors& state, const Scheme& scheme, const Tensor& step) {
  const auto codes = kernels::code_range(convention(scheme));
  return {scheme, step.detach(), state.at("zero"), {}, codes.lo, codes.hi};
}

/// S = exp(l1 + matrix + row + column), (rows, cols).
[[nodiscard]] inline Tensor whole_divisor(const Tensor& w, const Tensor& l1, const LogDivisor& t) {
  const Tensor step = l1.size(1) == 1 ? l1 : l1.repeat_interleave(w.size(1) / l1.size(1), 1);  // (rows or 1, 1 or cols)
  Tensor sum = t.bound ? Tensor() : step;
  for (const Tensor& part : {t.matrix, t.row, t.column})
    if (part.defined()) sum = sum.defined() ? sum + part : part;
  if (t.bound) sum = sum.defined() ? step + sum.clamp(-*t.bound, *t.bound) : step;
  return sum.exp().expand_as(w);
}

}  // namespace detail

/// Ŵ = s clamp(rne(W / S); lo − z, hi − z),  s = exp(l1),  S = exp(l1 + T): the step alone multiplies back, T is the sum of the parts.
/// Lee et al., FlexRound, arXiv 2306.00317, eq. 2; in the log domain as LRQ, arXiv 2407.11534, has it. Straight through the rounding, true
/// through the clamp, which passes gradients while the rounded coordinate lies within it, ends included. W (rows, cols) → the same.
[[nodiscard]] inline Tensor divide_through(const Tensor& w, const NamedTensors& state, const Scheme& scheme, const LogDivisor& t) {
  const Tensor step = state.at("l1").exp();  // (rows or 1, groups)
  const Grid g = detail::division_grid(state, scheme, step);
  const auto grouped = [&](const Tensor& x) { return x.reshape({w.size(0), g.groups(), -1}); };  // (rows, groups, each)
  const Tensor z = g.zero.to(w.scalar_type()).unsqueeze(-1);                                     // (rows or 1, groups, 1)
  const Tensor v = grouped(w) / grouped(detail::whole_divisor(w, state.at("l1"), t));
  const Tensor k = v.detach().round(), q = at::minimum(at::maximum(k, g.lowest - z), g.highest - z);
  const Tensor followed = at::where(q.eq(k), v + (k - v).detach(), q);  // libtorch's clamp has half a gradient at its ends, or none
  return (followed * step.unsqueeze(-1)).reshape(w.sizes());
}

/// The same as data: grid and whole divisor. Throws where a step or a divisor is no longer a positive number.
[[nodiscard]] inline std::pair<Grid, Tensor> division_coordinates(const Tensor& w, const NamedTensors& state, const Scheme& scheme,
                                                                  const LogDivisor& t) {
  const c10::NoGradGuard off;
  const Grid grid = detail::division_grid(state, scheme, state.at("l1").exp());
  const Tensor divisor = detail::whole_divisor(w, state.at("l1"), t).contiguous();  // (rows, cols)
  for (const Tensor& positive : {grid.scale, divisor})
    if (!(positive.gt(0) & positive.isfinite()).all().item<bool>())
      fail("learned divisors ", shape_text(w), " are no longer positive numbers; lower rounding.rate or set rounding.bound");
  return {grid, divisor};
}

}  // namespace ptq
