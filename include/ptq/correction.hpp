// Correction: what is added back after rounding?
#pragma once

#include <ptq/calibration/statistics.hpp>
#include <ptq/core/policy.hpp>
#include <ptq/core/quantized_linear.hpp>

namespace ptq {

/// A correction fits W* − Q (the solver's target, not W) with a term of low rank.
/// Minimal definition: `needs`, `source`, `fit`.                                                      Null object: NoCorrection
/// Laws: never increases the residual in its own norm (unrounded factors); full rank restores W*.
template <class P>
concept Correction = Policy<P> && requires(const P p, const Tensor& residual, const Statistics& stats) {
  { p.needs() } -> std::same_as<Needs>;
  { p.source() } -> std::same_as<Stream>;
  { p.fit(residual, stats) } -> std::same_as<LowRank>;  // residual (out, in)
};

struct NoCorrection {
  static constexpr std::string_view tag = "none";

  [[nodiscard]] constexpr Needs needs() const { return {}; }
  [[nodiscard]] Stream source() const { return Stream::quantized; }
  [[nodiscard]] LowRank fit(const Tensor&, const Statistics&) const { return {}; }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::NoCorrection);
