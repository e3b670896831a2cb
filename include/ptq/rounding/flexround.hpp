// FlexRound: every weight is divided by a learned number of its own before it is rounded.
#pragma once

#include <ptq/core/division.hpp>
#include <ptq/rounding.hpp>

namespace ptq {

/// Ŵ = s1 clamp(rne(W / (s1 ⊙ S2 ⊙ s3))),  s1 = exp(l1), S2 = exp(A), s3 = exp(ρ); the zero point stays
/// Lee, Kim, Kwon, Lee: FlexRound, ICML 2023, arXiv 2306.00317, eq. 2 and 3; in the log domain as in the released code of LRQ.
/// A linear has no s4. The gradient of A grows with |W| (proposition 3.1): large weights reach farther grid points.
struct FlexRound {
  static constexpr std::string_view tag = "flexround";
  static constexpr bool keeps_powers = true;

  double rate = 3e-3;                              ///< of all that is learned
  std::optional<double> step_rate = std::nullopt;  ///< of the step alone; none: `rate`; 0: it stays
  bool row_factor = true;                          ///< s3
  std::optional<double> bound = std::nullopt;      ///< |A + ρ| at most; none: unbounded, as published

  /// State: l1 (or step, where it stays), zero (out or 1, groups), A (out, in), rho (out, 1).
  [[nodiscard]] NamedTensors start(const Tensor& w, const Scheme& scheme) const {
    NamedTensors state = start_division(w, scheme);
    state["A"] = at::zeros_like(w, at::MemoryFormat::Contiguous);
    if (row_factor) state["rho"] = at::zeros({w.size(0), 1}, w.options());
    return state;
  }
  [[nodiscard]] std::vector<Learnable> learnable() const { return division_learnables(rate, step_rate, {"A", "rho"}); }
  [[nodiscard]] Tensor weight(const NamedTensors& state, const Tensor& w, const Scheme& scheme) const {
    return divide_through(w, state, scheme, log_divisor(state));
  }
  [[nodiscard]] Coordinates coordinates(const NamedTensors& state, const Tensor& w, const Scheme& scheme) const {
    const auto [grid, divisor] = division_coordinates(w, state, scheme, log_divisor(state));
    return {grid, divisor};
  }
  [[nodiscard]] Reason refuses(const Scheme&) const { return refuses_division(rate, step_rate, bound); }

 private:
  [[nodiscard]] LogDivisor log_divisor(const NamedTensors& state) const {
    return {state.at("A"), row_factor ? state.at("rho") : Tensor(), {}, bound};
  }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::FlexRound, rate, step_rate, row_factor, bound);
