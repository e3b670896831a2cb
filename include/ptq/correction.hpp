// Correction: what is added back after rounding?
#pragma once

#include <string>

#include <ptq/calibration/statistics.hpp>
#include <ptq/core/factors.hpp>
#include <ptq/core/policy.hpp>
#include <ptq/core/precision.hpp>
#include <ptq/core/shared.hpp>

namespace ptq {

/// What is left of one linear once it is rounded.
struct Residual {
  std::string place;                  ///< "blocks.3.self_attn.q_proj", for messages
  Tensor error;                       // (out, in) W* − Q in the basis the layer runs in; W* is the solver's target, not W
  const Statistics* stats = nullptr;  ///< of source(), in the same basis
  Shared* shared = nullptr;           ///< what linears of one input compute once
  Scheme factors{};                   ///< what the factors are rounded to; none: they stay
};

/// A correction fits W* − Q with a term of low rank.
/// Minimal definition: `needs`, `source`, `fit`.                                                      Null object: NoCorrection
/// Laws: never increases the residual in its own norm (unrounded factors); full rank restores W*; a zero error needs no factors.
template <class P>
concept Correction = Policy<P> && requires(const P p, const Residual& residual) {
  { p.needs() } -> std::same_as<Needs>;
  { p.source() } -> std::same_as<Stream>;
  { p.fit(residual) } -> std::same_as<LowRank>;
};

struct NoCorrection {
  static constexpr std::string_view tag = "none";

  [[nodiscard]] constexpr Needs needs() const { return {}; }
  [[nodiscard]] Stream source() const { return Stream::quantized; }
  [[nodiscard]] LowRank fit(const Residual&) const { return {}; }
};

/// By iteration where a matrix is large, or the whole decomposition of every one.
[[nodiscard]] inline SvdOptions svd_options(bool whole) {
  SvdOptions options;
  if (whole) options.tolerance = 0;
  return options;
}

/// Why a rule of ranks makes no sense; empty: it does.
[[nodiscard]] inline Reason refuses_rank(const FactorRank& rule) {
  if (rule.rank < 0) return cat("correction.rank must not be negative, it is ", rule.rank);
  if (!(rule.energy >= 0 && rule.energy <= 1)) return "correction.energy must lie in [0, 1], it is " + number_text(rule.energy);
  if (!(rule.budget >= 0 && std::isfinite(rule.budget)))
    return "correction.budget must be a number of bits, it is " + number_text(rule.budget);
  return {};
}

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::NoCorrection);
