// Factors of a correction: fitted to an error by its leading directions, and rounded to a number format.
#pragma once

#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include <ptq/core/block_float.hpp>
#include <ptq/core/describe.hpp>
#include <ptq/core/low_rank.hpp>
#include <ptq/core/minifloat.hpp>
#include <ptq/core/quantized_linear.hpp>

namespace ptq {

/// Along which axes of A (in, rank) and B (rank, out) the groups of a factor format run. `outer`: in and out, so that no group mixes
/// directions of different weight. `last`: rank and out, as the scripts released with LQER. `first`: in and rank, as its templates.
enum class FactorBlocks { outer, last, first };
template <>
struct EnumNames<FactorBlocks> {
  static constexpr std::array<std::string_view, 3> names{"outer", "last", "first"};
};

/// How many directions are kept: `rank` at most; fewer where `energy` or `budget` says so.
struct FactorRank {
  int64_t rank = 32;
  double energy = 0;  ///< the fewest directions that hold this share of the weighted squared error; 0: all `rank`
  double budget = 0;  ///< bits the factors may cost a weight; 0: any number
};

/// Bits of a factor entry, its share of scales included. Scheme none: the 32 bits of a float.
[[nodiscard]] inline double factor_bits(const Scheme& scheme) {
  if (!scheme.active()) return 32;
  if (!scheme.scaled()) return scheme.bits;
  const double shared = scheme.block_float() ? 8 : 32 + (scheme.symmetric ? 0 : scheme.bits);
  return scheme.bits + (scheme.granularity == Granularity::group ? shared / static_cast<double>(scheme.group * scheme.group_rows) : 0);
}

namespace detail {

/// A matrix on the grid of a format, groups along its rows, and its stored bits.
inline Tensor round_factor(const Tensor& t, const Scheme& scheme, double& bits) {
  if (!scheme.active() || t.numel() == 0) {
    bits += 32.0 * static_cast<double>(t.numel());
    return t;
  }
  if (scheme.block_float() && scheme.kind == NumberKind::integer) {
    const auto blocks = [](int64_t n, int64_t size) { return size > 0 ? (n + size - 1) / size : 1; };
    const bool grouped = scheme.granularity == Granularity::group, whole = scheme.granularity == Granularity::tensor;
    const int64_t down = whole ? 1 : blocks(t.size(0), scheme.group_rows), across = grouped ? blocks(t.size(1), scheme.group) : 1;
    bits += scheme.bits * static_cast<double>(t.numel()) + 8.0 * static_cast<double>(down * across);
    return block_float(t, scheme);
  }
  if (!scheme.scaled()) {
    bits += scheme.bits * static_cast<double>(t.numel());
    return without_scale(t, scheme);
  }
  QuantizedLinear q;
  q.grid = fit_grid(t, scheme), q.codes = quantize(t, q.grid);
  bits += q.bits().total();
  return q.weight();
}

}  // namespace detail

/// The factors in their format; bits counted as stored.
[[nodiscard]] inline LowRank round_factors(const LowRank& c, const Scheme& scheme, FactorBlocks blocks) {
  if (!c.defined()) return c;
  LowRank out;
  const auto along_rows = [&](const Tensor& t) { return detail::round_factor(t.contiguous(), scheme, out.bits); };
  const auto along_columns = [&](const Tensor& t) { return along_rows(t.t()).t().contiguous(); };
  out.a = blocks == FactorBlocks::last ? along_rows(c.a) : along_columns(c.a);
  out.b = blocks == FactorBlocks::first ? along_columns(c.b) : along_rows(c.b);
  return out;
}

/// The rank that a rule allows at one linear, before its errors are seen.
[[nodiscard]] inline int64_t most_directions(const FactorRank& rule, int64_t in, int64_t out, const Scheme& format) {
  int64_t rank = std::min({rule.rank, in, out});
  if (rule.budget > 0) {
    const double bought = rule.budget * static_cast<double>(in * out) / (static_cast<double>(in + out) * factor_bits(format));
    if (bought < static_cast<double>(rank)) rank = static_cast<int64_t>(bought);
  }
  return rank;
}

/// A B ≈ Eᵀ with the least ‖S (Eᵀ − A B)‖ of its rank: A = Eᵀ V diag(1/σ), B = diag(σ) Vᵀ, V and σ the leading left vectors and singular
/// values of E Sᵀ; so A B = Eᵀ V Vᵀ, whatever S is, singular ones included, and nothing is divided by S.
/// error (out, in), weighted = E Sᵀ (out, anything). Directions that are noise, σ_i ≤ ε σ_1, are dropped; none left: no factors.
[[nodiscard]] inline LowRank fit_factors(const Tensor& error, const Tensor& weighted, const FactorRank& rule, const Scheme& format,
                                         FactorBlocks blocks, const SvdOptions& options, const std::string& place) {
  const int64_t rank = most_directions(rule, error.size(1), error.size(0), format);
  if (rank <= 0) return {};
  const TruncatedSvd svd = truncated_svd(weighted, rank, options, place + ", weighted error");
  const double epsilon = error.scalar_type() == at::kDouble ? 1e-14 : 1e-6;
  const double floor = svd.sigma[0].item<double>() * epsilon;
  int64_t kept = 0;
  double held = 0;
  while (kept < svd.sigma.numel()) {
    const double sigma = svd.sigma[kept].item<double>();
    if (!(sigma > floor) || (rule.energy > 0 && held >= rule.energy * svd.energy)) break;
    held += sigma * sigma, ++kept;
  }
  if (kept == 0) return {};
  const Tensor v = svd.u.narrow(1, 0, kept), sigma = svd.sigma.narrow(0, 0, kept);  // (out, kept), (kept)
  LowRank c;
  c.a = (at::mm(error.t(), v).to(at::kDouble) / sigma).to(error.scalar_type()).contiguous();  // (in, kept)
  c.b = (v.to(at::kDouble) * sigma).t().to(error.scalar_type()).contiguous();                 // (kept, out)
  return round_factors(c, format, blocks);
}

}  // namespace ptq
