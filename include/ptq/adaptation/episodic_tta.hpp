// Test-time adaptation of each segment by itself: fitted, scored, forgotten.
#pragma once

#include <ptq/adaptation.hpp>

namespace ptq {

/// As Tta, but for every segment alone: from the calibrated values, `updates` steps on it, then its score; the next one begins again.
/// Results do not depend on the order of segments. Loss and learnables: Zhao et al., LRQuant, ACL 2024; one segment at a time is not in it.
struct EpisodicTta {
  static constexpr std::string_view tag = "episodic_tta";

  int64_t updates = 5;  ///< of each segment; 0: nothing is done
  int64_t blocks = 1;   ///< the last ones
  RefitInput input = RefitInput::same_input;
  std::optional<double> smoothing_rate = 1e-5;  ///< none: as in calibration
  std::optional<double> rounding_rate = 1e-4;   ///< none: as in calibration

  [[nodiscard]] constexpr AdaptationScope scope() const { return AdaptationScope::segment; }
  [[nodiscard]] int64_t steps() const { return updates; }
  [[nodiscard]] Refit refit() const { return {blocks, updates, 1, input, smoothing_rate, rounding_rate}; }
  [[nodiscard]] Reason refuses(const Scheme&) const { return refuses_refit(refit()); }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::EpisodicTta, updates, blocks, input, smoothing_rate, rounding_rate);
