// AWRQ: GPTQ for layers whose inputs are rounded too; the weights first move to where they best make up for the activations' error.
#pragma once

#include <optional>

#include <ptq/core/column_setup.hpp>
#include <ptq/core/precision.hpp>
#include <ptq/solver.hpp>

namespace ptq {

/// What AWRQ fits its grids to: the weight as it is (as released), or the shifted one.
enum class AwrqGrid { original, shifted };
template <>
struct EnumNames<AwrqGrid> {
  static constexpr std::array<std::string_view, 2> names{"original", "shifted"};
};

/// argmin_Q ‖W X − Q X̂‖², X̂ the rounded input. With H = 1/N Σ x̂ x̂ᵀ, M = 1/N Σ (x − x̂) x̂ᵀ, G = W M:
///   W' = W + G (H + λ I)⁻¹,   ‖W X − Q X̂‖² = const + tr (Q − W') H (Q − W')ᵀ,
/// so after the shift the problem is GPTQ's with target W'.
/// AWRQ as released: github.com/linzhao-ai/AWRQ (2024); the equivalence for one column a block is ours. With unrounded activations M = 0
/// and the codes are GPTQ's.
struct Awrq {
  static constexpr std::string_view tag = "awrq";

  double damp = 0.01;           ///< λ over the mean of diag H
  double damp_increase = 0.01;  ///< added to damp when the factorisation fails; 0: an error instead
  int64_t block = 1;            ///< columns rounded together; 1 is the method, more are its coarser variants
  ColumnOrder order = ColumnOrder::natural;
  AwrqGrid grid = AwrqGrid::original;
  bool static_groups = false;
  std::optional<int> statistic_bits = std::nullopt;  ///< of activations while H and M are gathered; none: those at run time
  bool true_sequential = false;
  Divisors divisors = Divisors::ignore;  ///< of a learned rounding
  bool as_published = false;  ///< the first block rounds unshifted weights; G from weights whose dead columns are zeroed; and as Gptq

  [[nodiscard]] constexpr Needs needs() const { return {.hessian = true, .cross = true}; }
  [[nodiscard]] Observed observed() const { return Observed::rounded; }
  [[nodiscard]] Reason refuses(const Scheme& scheme) const {
    if (statistic_bits && (*statistic_bits < 2 || *statistic_bits > 8))
      return cat("solver.statistic_bits must lie in 2 to 8, it is ", *statistic_bits);
    if (block > 1 && scheme.granularity == Granularity::group && !static_groups && !scheme.block_float() && scheme.group % block != 0)
      return cat("solver.block ", block, " does not divide groups of ", scheme.group, "; use 1, or static_groups");
    return refuses_columns(damp, damp_increase, block);
  }

  [[nodiscard]] Reason redundant(const Precision& precision) const {
    return precision.activations.active() ? Reason{} : "AWRQ without rounded activations is GPTQ";
  }

  /// Whether any input is rounded. Where none is the problem is GPTQ's, and on 2 H as there not a bit of its codes differs.
  [[nodiscard]] static bool rounded(const Statistics& stats) { return !stats.cross.defined() || stats.cross.any().item<bool>(); }

  /// Factor of H, shared by the linears of an input group. group: columns that a group-aware order keeps together.
  [[nodiscard]] ColumnFactor factor(const Statistics& stats, const std::string& place, int64_t group = 0) const {
    const auto n = static_cast<double>(std::max<int64_t>(1, stats.sequences));
    const Tensor h = rounded(stats) ? stats.hessian / n : stats.hessian * (2.0 / n);
    return factorise(
        h, {damp, damp_increase, as_published}, [&](const Tensor& diagonal) { return column_order(order, diagonal, group); }, place);
  }

  /// D = G (H + λ I)⁻¹ in original column order, (out, in): by the factor R = M diag(r).
  [[nodiscard]] Tensor shift(const Tensor& w, const Statistics& stats, const ColumnFactor& f) const {
    const Tensor m = stats.cross / static_cast<double>(std::max<int64_t>(1, stats.sequences));  // (in, in) rows: error channel
    Tensor g = affine(w, m.t());                                                                // (out, in)
    if (f.order.defined()) g = g.index_select(1, f.order);
    const Tensor r = f.unit * f.loss_weight.sqrt().to(f.unit.scalar_type());  // (in, in) upper
    const Tensor d = solve_with_factor(r, g);
    return f.order.defined() ? d.index_select(1, at::argsort(f.order)) : d;
  }

  [[nodiscard]] ColumnResult round(const Problem& problem, const ColumnFactor& f, const Tensor& w, const Tensor& target,
                                   bool keep_seen = false) const {
    (void)group_count(problem.scheme, problem.weight.size(1), problem.place);
    const bool moved = grid == AwrqGrid::shifted;
    ColumnGrid how = column_grid(moved ? target : problem.weight, moved ? target : w, problem.scheme, problem.coordinates.grid,
                                 static_groups, as_published);
    how.stale = false;  // the released code refits at block starts only, and its blocks lie within groups
    ColumnOptions options;
    options.block = block > 1 ? block : 128;
    options.joint = block > 1;
    options.keep_seen = keep_seen;
    if (divisors == Divisors::decide) options.divisor = problem.coordinates.divisor;
    if (as_published) {
      options.first = (f.order.defined() ? w.index_select(1, f.order) : w).narrow(1, 0, std::min(block, w.size(1)));
      how.first_fit = f.order.defined() ? w.index_select(1, f.order) : w;
    }
    return round_columns(target, f, how, options);
  }

  [[nodiscard]] Solution solve(const Problem& problem) const {
    if (!problem.stats || !problem.stats->hessian.defined() || problem.stats->tokens == 0)
      fail(problem.place, ": no calibration token reached this layer");
    const int64_t group = order_group(order, problem.scheme, problem.weight.size(1), problem.place);
    const ColumnFactor& f =
        problem.shared->get<ColumnFactor>(cat("awrq ", group), [&] { return factor(*problem.stats, problem.place, group); });
    const Tensor w = problem.weight.masked_fill(f.dead, 0);                        // (out, in)
    const Tensor d = shift(as_published ? w : problem.weight, *problem.stats, f);  // (out, in)
    require_finite(d, problem.place + ", shift");
    const Tensor target = (w + d).masked_fill(f.dead, 0);
    const ColumnResult r = round(problem, f, w, target);

    Solution s;
    s.linear.codes = r.codes;
    s.linear.grid = r.grid;
    s.linear.permuted = r.grid.group_of.defined();
    s.target = target;
    s.report = {{"loss", r.column_loss.sum().item<double>() / (rounded(*problem.stats) ? 1 : 2)},
                {"damp", f.percent},
                {"dead_columns", f.dead.sum().item<double>()},
                {"shift", (d.norm() / problem.weight.norm().clamp_min(1e-30)).item<double>()}};
    return s;
  }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::Awrq, damp, damp_increase, block, order, grid, static_groups, statistic_bits, true_sequential, divisors,
                        as_published);
