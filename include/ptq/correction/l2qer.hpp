// L²QER: the rounding error's approximation of low rank, weighted by the magnitude of activations.
#pragma once

#include <ptq/correction.hpp>

namespace ptq {

/// The magnitude of an input channel. `batch_max`: the mean over the tokens of a batch, its maximum over batches, as released with the
/// paper; with `batch` = 1 a maximum over samples, as its appendix has it. `mean`: over all tokens. `rms`: the root of the mean square,
/// which makes it QERA's approximate form. `absmax`: the largest value.
enum class Magnitude { batch_max, mean, rms, absmax };
template <>
struct EnumNames<Magnitude> {
  static constexpr std::array<std::string_view, 4> names{"batch_max", "mean", "rms", "absmax"};
};

/// The least ‖diag(s) (E − A B)‖ of rank k, E = (W* − Q)ᵀ, s_i = c_i / √(min c · max c), c_i = max(a_i, floor), a the magnitude of channel
/// i. Zhang, Cheng, Constantinides, Zhao: LQER, arXiv 2402.02446, section 3.2, and its released code. No product A B depends on the scale
/// of s.
struct L2qer {
  static constexpr std::string_view tag = "l2qer";

  int64_t rank = 32;                           ///< k, at most min(in, out)
  double energy = 0;                           ///< fewer directions where they hold this share of the weighted error; 0: always `rank`
  double budget = 0;                           ///< bits that factors may cost a weight; 0: any number
  Magnitude magnitude = Magnitude::batch_max;  ///< of a channel
  int64_t batch = 2;                           ///< sequences of a batch, for batch_max
  double floor = 1e-4;                         ///< of magnitudes, before they are normalised
  Stream stream = Stream::reference;           ///< whose inputs: the float model's (the paper), or the quantized stream's
  FactorBlocks blocks = FactorBlocks::outer;   ///< along which axes groups of the factors' format run
  bool whole = false;                          ///< the whole decomposition of every matrix; else by iteration where it is large

  [[nodiscard]] constexpr Needs needs() const {
    const bool means = magnitude == Magnitude::batch_max || magnitude == Magnitude::mean;
    return {.absmax = magnitude == Magnitude::absmax, .profile = means, .square = magnitude == Magnitude::rms};
  }
  [[nodiscard]] Stream source() const { return stream; }
  [[nodiscard]] Reason refuses(const Scheme&) const {
    if (batch < 1) return cat("correction.batch must be positive, it is ", batch);
    if (!(floor > 0 && std::isfinite(floor))) return "correction.floor must be positive, it is " + number_text(floor);
    return refuses_rank({rank, energy, budget});
  }
  [[nodiscard]] Reason redundant(const Precision&) const { return rank == 0 ? "a correction of rank 0" : ""; }

  /// a, (in) double.
  [[nodiscard]] Tensor magnitudes(const Statistics& stats, const std::string& place) const {
    if (stats.tokens == 0) fail(place, ": no calibration token reached this layer");
    const auto tokens = static_cast<double>(stats.tokens);
    if (magnitude == Magnitude::absmax) return stats.absmax.to(at::kDouble);
    if (magnitude == Magnitude::rms) return (stats.square / tokens).sqrt();
    if (magnitude == Magnitude::mean) return stats.profile.sum(0) / tokens;
    const int64_t sequences = stats.profile.size(0);
    const double length = tokens / static_cast<double>(sequences);
    Tensor most = at::zeros({stats.profile.size(1)}, at::kDouble);
    for (int64_t first = 0; first < sequences; first += batch) {
      const int64_t count = std::min(batch, sequences - first);
      most = at::maximum(most, stats.profile.narrow(0, first, count).sum(0) / (length * static_cast<double>(count)));
    }
    return most;
  }

  /// s from a, (in) double.
  [[nodiscard]] Tensor weights(const Tensor& magnitudes) const {
    const Tensor c = magnitudes.clamp_min(floor);
    return c / at::sqrt(c.min() * c.max());
  }

  [[nodiscard]] LowRank fit(const Residual& r) const {
    const Tensor a = magnitudes(*r.stats, r.place);
    require_finite(a, r.place + ", magnitudes of activations");
    const Tensor s = weights(a).to(r.error.scalar_type());  // (in)
    return fit_factors(r.error, r.error * s, {rank, energy, budget}, r.factors, blocks, svd_options(whole), r.place);
  }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::L2qer, rank, energy, budget, magnitude, batch, floor, stream, blocks, whole);
