// CLAQ: GPTQ's loop with a codebook a column, more bits for some columns, and outliers kept.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>

#include <ptq/core/column_setup.hpp>
#include <ptq/solver.hpp>
#include <ptq/solver/claq/fit.hpp>

namespace ptq {

/// When codebooks are fitted: to each column when it is reached; the same, started from the levels of the column before; to all columns of
/// a block at its start.
enum class CodebookSchedule { per_column, warm, block };
template <>
struct EnumNames<CodebookSchedule> {
  static constexpr std::array<std::string_view, 3> names{"per_column", "warm", "block"};
};

/// GPTQ (arXiv 2210.17323) on levels instead of a grid. With x_j the compensated column j of b_j bits:
///   C_j = argmin_{|C| = 2^b_j} Σ_r min_{c ∈ C} (x_rj − c)²,   q_rj = the level of C_j nearest to x_rj, or x_rj itself where it is kept.
/// Wang et al.: CLAQ, arXiv 2405.17233: K-Means-based Weight Quantization, Column-Level Adaptive Precision, Outlier Reservation. The
/// clustering is unweighted because an error of column j costs R_jj² in every row.
struct Claq {
  static constexpr std::string_view tag = "claq";
  static constexpr bool owns_grid = true;

  double damp = 0.01;           ///< λ over the mean of diag H
  double damp_increase = 0.01;  ///< added to damp when the factorisation fails; 0: an error instead
  int64_t block = 32;           ///< columns a lazy update covers, and those that the schedule `block` fits together
  ColumnOrder order = ColumnOrder::descending;
  KMeans kmeans = KMeans::coarse;
  CodebookSchedule schedule = CodebookSchedule::per_column;
  LevelType levels = LevelType::f16;                  ///< stored width of levels and kept entries
  std::optional<double> average_bits = std::nullopt;  ///< adaptive precision: the mean over columns, in place of the format's bits
  std::optional<int> low_bits = std::nullopt;         ///< the two widths that are mixed; none: 2 and 4 below an average of 3, else 3 and 4
  std::optional<int> high_bits = std::nullopt;
  ColumnMetric metric = ColumnMetric::outliers;
  double outlier_multiple = 13;  ///< an outlier is at least so many times the mean magnitude of the matrix
  Reserve reserve = Reserve::none;
  double keep = 0.005;         ///< fraction (reserve = fraction), or multiple of a column's mean magnitude (threshold)
  double keep_first = 0.014;   ///< reserve = ranked: fraction of the first columns
  double keep_others = 0.004;  ///< and of the others
  double first_columns = 0.1;  ///< share of columns that are first
  KeepSide side = KeepSide::total;
  bool cluster_kept = false;             ///< kept entries take part in the clustering
  Divisors divisors = Divisors::ignore;  ///< of a learned rounding: S selects codes, levels are means of weights
  bool true_sequential = true;           ///< input groups one after the other, each seeing the earlier ones quantized
  bool as_published = false;  ///< fractions looked up by place in a block of 128; constant columns kept whole; dead columns count in the
                              ///< damping mean and are ordered by their diagonal of 1

  [[nodiscard]] constexpr Needs needs() const { return {.hessian = true}; }
  [[nodiscard]] Observed observed() const { return Observed::plain; }

  [[nodiscard]] Reason refuses(const Scheme& scheme) const {
    if (scheme.active() && scheme.kind == NumberKind::minifloat)
      return "claq chooses its own levels, a minifloat has others: write --weights int" + std::to_string(std::min(scheme.bits, 8));
    if (scheme.active() && scheme.granularity != Granularity::channel)
      return "claq fits a codebook a column: write --weights int" + std::to_string(scheme.bits) + ", without groups or :tensor";
    if (scheme.active() && (scheme.symmetric || scheme.search)) return "a codebook has no range: write --weights without :sym and :search";
    if (average_bits) {
      const auto [low, high] = widths();
      if (low < 1 || high > 8 || low >= high)
        return cat("solver.low_bits ", low, " and solver.high_bits ", high, " must ascend within 1 to 8");
      if (!(*average_bits >= low && *average_bits <= high))
        return cat("solver.average_bits must lie in ", low, " to ", high, ", it is ", number_text(*average_bits));
    } else if (low_bits || high_bits) {
      return "solver.low_bits and solver.high_bits need solver.average_bits";
    }
    if (!(outlier_multiple > 0)) return "solver.outlier_multiple must be positive";
    if (!(first_columns >= 0 && first_columns <= 1)) return "solver.first_columns must lie in [0, 1]";
    const auto fraction = [&](double f) { return f >= 0 && f < (side == KeepSide::each ? 0.5 : 1.0); };
    if (reserve == Reserve::fraction && !fraction(keep)) return "solver.keep must be a fraction of a column, it is " + number_text(keep);
    if (reserve == Reserve::threshold && !(keep > 0)) return "solver.keep must be a positive multiple, it is " + number_text(keep);
    if (reserve == Reserve::ranked && !(fraction(keep_first) && fraction(keep_others)))
      return "solver.keep_first and solver.keep_others must be fractions of a column";
    return refuses_columns(damp, damp_increase, block);
  }

  /// The two widths that average_bits mixes.
  [[nodiscard]] std::array<int, 2> widths() const {
    const auto usual = widths_of(average_bits.value_or(3));
    return {low_bits.value_or(usual[0]), high_bits.value_or(usual[1])};
  }

  /// Factor of H = 2/N Σ x xᵀ, shared by the linears of an input group. Dead columns come last.
  [[nodiscard]] ColumnFactor factor(const Statistics& stats, const std::string& place) const {
    const Tensor h = stats.hessian * (2.0 / static_cast<double>(std::max<int64_t>(1, stats.sequences)));
    const Tensor live = h.diagonal().clone();  // (n), 0 where dead
    return factorise(
        h, {damp, damp_increase, as_published}, [&](const Tensor& ones) { return column_order(order, as_published ? ones : live); }, place);
  }

  /// What every column gets. w (rows, n) with dead columns zero, diagonal (n) of H.
  [[nodiscard]] ColumnPlan plan(const Tensor& w, const Tensor& diagonal, const ColumnFactor& f, int bits) const {
    const int64_t n = w.size(1);
    ColumnPlan p;
    const Tensor outliers = outlier_counts(w, outlier_multiple);  // (n)
    p.with_outliers = outliers.gt(0).sum().item<int64_t>();
    p.rank = rank_columns(metric_of(w, outliers, diagonal, f), diagonal);
    p.bits = at::full({n}, bits, at::kInt);
    if (average_bits) {
      const auto [low, high] = widths();
      const int64_t first = columns_at_high(n, *average_bits, low, high);
      p.bits.fill_(low).index_fill_(0, p.rank.narrow(0, 0, first), high);
    }
    p.keep = at::full({n}, reserve == Reserve::none ? 0.0 : reserve == Reserve::ranked ? keep_others : keep, at::kDouble);
    if (reserve == Reserve::ranked) {
      const auto first = static_cast<int64_t>(std::nearbyint(first_columns * static_cast<double>(n)));
      p.keep.index_fill_(0, p.rank.narrow(0, 0, first), keep_first);
      if (as_published) {  // step i reads the fraction of step i mod 128
        const Tensor steps = f.order.defined() ? f.order : at::arange(n), at_step = p.keep.index_select(0, steps);
        p.keep.index_copy_(0, steps, at_step.index_select(0, at::arange(n).remainder(128)));
      }
    }
    return p;
  }

  /// Rounds the columns of `w` (dead ones zero) in the order of `f` on codebooks of its own; `keep_seen` also returns what was clustered.
  [[nodiscard]] ColumnResult round(const Problem& problem, const Tensor& w, const ColumnFactor& f, const ColumnPlan& plan,
                                   bool keep_seen = false) const {
    ColumnGrid how;
    how.scheme = problem.scheme;
    how.levels_ahead = schedule == CodebookSchedule::block;
    ColumnOptions options;
    options.block = block;
    options.keep_seen = keep_seen;
    Tensor selects;  // (rows, n) S of a learned rounding
    if (divisors == Divisors::decide && problem.coordinates.divisor.defined()) {
      selects = problem.coordinates.divisor;
      if (problem.coordinates.grid) selects = selects / problem.coordinates.grid->scale.narrow(1, 0, 1);
      options.divisor = selects;
    }
    how.levels = ColumnFitter(fit(), plan, f.order, selects, problem.place);
    return round_columns(w, f, how, options);
  }

  [[nodiscard]] Solution solve(const Problem& problem) const {
    if (!problem.stats || !problem.stats->hessian.defined() || problem.stats->tokens == 0)
      fail(problem.place, ": no calibration token reached this layer");
    if (const Reason why = refuses(problem.scheme); !why.empty()) refuse(problem.place, ": ", why);
    require_finite(problem.weight, problem.place + ", weight");
    const ColumnFactor& f = problem.shared->get<ColumnFactor>("claq", [&] { return factor(*problem.stats, problem.place); });
    const Tensor w = problem.weight.masked_fill(f.dead, 0);  // (out, in)
    check_range(w, problem.place);
    const ColumnPlan chosen = plan(w, problem.stats->hessian.diagonal(), f, problem.scheme.bits);
    const ColumnResult r = round(problem, w, f, chosen);

    Solution s;
    s.linear.codes = r.codes;
    s.linear.grid.scheme = problem.scheme;
    const int64_t widest = int64_t{1} << chosen.bits.max().item<int>();
    s.linear.codebook = {r.levels.narrow(1, 0, widest).contiguous(), chosen.bits, levels};
    if (r.keep.defined()) s.linear.kept = KeptEntries::of(r.keep, w - r.error, levels);
    s.target = w;
    const double kept = static_cast<double>(s.linear.kept.count()) / static_cast<double>(w.numel());
    s.report = {{"loss", r.column_loss.sum().item<double>() / 2},
                {"damp", f.percent},
                {"dead_columns", f.dead.sum().item<double>()},
                {"bits_per_weight", s.linear.bits().per_weight()},
                {"nominal_bits", nominal_bits(chosen, kept)},
                {"weights", static_cast<double>(w.numel())},
                {"kept", kept},
                {"outlier_columns", static_cast<double>(chosen.with_outliers)},
                {"columns_at_high", chosen.bits.gt(average_bits ? widths()[0] : 8).sum().item<double>()}};
    return s;
  }

  /// How a column is fitted.
  [[nodiscard]] ColumnFit fit() const {
    return {kmeans, schedule == CodebookSchedule::warm, levels, reserve, side, cluster_kept, as_published};
  }

 private:
  [[nodiscard]] Tensor metric_of(const Tensor& w, const Tensor& outliers, const Tensor& diagonal, const ColumnFactor& f) const {
    if (metric == ColumnMetric::outliers) return outliers;
    if (metric == ColumnMetric::diagonal) return diagonal;
    const Tensor energy = w.to(at::kDouble).square().mean(0);  // (n)
    if (metric == ColumnMetric::energy) return energy * diagonal.to(at::kDouble);
    return energy * (f.order.defined() ? f.loss_weight.index_select(0, at::argsort(f.order)) : f.loss_weight);
  }

  /// Bits as the paper counts them: codes, and 16 in place of the lower width for the fraction that is kept; no codebook, no positions.
  [[nodiscard]] double nominal_bits(const ColumnPlan& plan, double kept) const {
    const double codes = plan.bits.to(at::kDouble).mean().item<double>();
    const double share = reserve == Reserve::threshold ? kept : plan.keep.mean().item<double>();
    return codes + share * (16 - plan.bits.min().item<int>());
  }

  /// Refuses matrices that 16 bits cannot hold.
  void check_range(const Tensor& w, const std::string& place) const {
    const double most = w.abs().max().item<double>();
    if (levels == LevelType::f16 && most > 0 && (most > 65504 || most < 0x1p-14))
      fail(place, ": weights of magnitude ", most, " do not fit levels of 16 bits; use solver.levels bf16 or f32");
  }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::Claq, damp, damp_increase, block, order, kmeans, schedule, levels, average_bits, low_bits, high_bits, metric,
                        outlier_multiple, reserve, keep, keep_first, keep_others, first_columns, side, cluster_kept, divisors,
                        true_sequential, as_published);
