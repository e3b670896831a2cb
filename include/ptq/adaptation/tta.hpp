// Test-time adaptation: the last block is refitted on the whole unlabelled text before that is scored.
#pragma once

#include <ptq/adaptation.hpp>

namespace ptq {

/// min over the last blocks' parameters of Σ_segments L(B(x), B_q(x)), once a text; then all of its segments are scored.
/// Zhao et al.: LRQuant, ACL 2024, doi 10.18653/v1/2024.acl-long.122, its section on test-time adaptation; 5 passes are its number.
/// Transductive: every segment that is scored has been fitted to, without its labels. The released code has the input `literal` and starts
/// from nothing; here calibrated values go on at small rates, and what does not lower the loss is dropped.
struct Tta {
  static constexpr std::string_view tag = "tta";

  int64_t epochs = 5;  ///< passes over the text; 0: nothing is done
  int64_t blocks = 1;  ///< the last ones
  int64_t batch = 1;   ///< segments an update
  RefitInput input = RefitInput::same_input;
  std::optional<double> smoothing_rate = 1e-5;  ///< none: as in calibration
  std::optional<double> rounding_rate = 1e-4;   ///< none: as in calibration

  [[nodiscard]] constexpr AdaptationScope scope() const { return AdaptationScope::data_set; }
  [[nodiscard]] int64_t steps() const { return epochs; }
  [[nodiscard]] Refit refit() const { return {blocks, epochs, batch, input, smoothing_rate, rounding_rate}; }
  [[nodiscard]] Reason refuses(const Scheme&) const { return refuses_refit(refit()); }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::Tta, epochs, blocks, batch, input, smoothing_rate, rounding_rate);
