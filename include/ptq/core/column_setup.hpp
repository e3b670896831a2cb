// What column solvers have in common besides the engine: the order of columns, damping, how a problem's grids come about.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include <ptq/core/columns.hpp>
#include <ptq/core/describe.hpp>
#include <ptq/kernels/isa.hpp>

namespace ptq {

/// Order of columns: as they are; by descending diagonal of H ("act-order"); by descending diagonal within each group, the groups by their
/// largest (Gafni et al., arXiv 2505.14638), so that groups stay together and no permutation is stored.
enum class ColumnOrder { natural, descending, group_aware };
template <>
struct EnumNames<ColumnOrder> {
  static constexpr std::array<std::string_view, 3> names{"natural", "descending", "group_aware"};
};

/// The order as indices of original columns; undefined: natural. diagonal (n); group: columns of a group that divides n, 0: all.
[[nodiscard]] inline Tensor column_order(ColumnOrder order, const Tensor& diagonal, int64_t group = 0) {
  const int64_t n = diagonal.size(0);
  const auto descending = [](const Tensor& t) { return at::argsort(t, /*stable=*/true, -1, /*descending=*/true); };
  if (order == ColumnOrder::natural) return {};
  if (order == ColumnOrder::descending || group <= 0 || group >= n) return descending(diagonal);
  const Tensor by_group = diagonal.reshape({n / group, group});                       // (groups, group)
  const Tensor inside = descending(by_group) + at::arange(0, n, group).unsqueeze(1);  // (groups, group) original columns
  return inside.index_select(0, descending(by_group.amax(1))).reshape({n});
}

/// The group size that an order of `columns` heeds; throws when it does not divide. 0: none; so where the last block of an mxint row is
/// short.
[[nodiscard]] inline int64_t order_group(ColumnOrder order, const Scheme& scheme, int64_t columns, const std::string& place) {
  (void)group_count(scheme, columns, place);
  const bool heeded = order == ColumnOrder::group_aware && scheme.granularity == Granularity::group && columns % scheme.group == 0;
  return heeded ? scheme.group : 0;
}

/// How the products between blocks are computed: in the type of the weights, or in bfloat16 where the machine has such a unit.
enum class ColumnMode { exact, fast };
template <>
struct EnumNames<ColumnMode> {
  static constexpr std::array<std::string_view, 2> names{"exact", "fast"};
};

/// Why the mode cannot be had on this machine; empty: it can.
[[nodiscard]] inline std::string refuses_mode(ColumnMode mode) {
  if (mode == ColumnMode::exact || kernels::multiplies_bfloat16()) return {};
  return "solver.mode fast needs a processor that multiplies bfloat16 (AVX-512 BF16 or AMX); use exact";
}

/// Why damping or a block width make no sense; empty: they do.
[[nodiscard]] inline std::string refuses_columns(double damp, double damp_increase, int64_t block) {
  if (!(damp >= 0 && damp < 1)) return "solver.damp must lie in [0, 1), it is " + number_text(damp);
  if (!(damp_increase >= 0)) return "solver.damp_increase must not be negative";
  if (block < 1 || block > kernels::max_block_columns)
    return cat("solver.block must lie in 1 to ", kernels::max_block_columns, ", it is ", block);
  return {};
}

/// How the grids of a linear come about: the rounding's own where it has one; else one a row (or tensor) fitted to `weight`; else one a
/// group, fitted beforehand to `live` (static, and always for blocks that share an exponent) or when the group is reached. `weight` (rows,
/// n) as given, `live` with dead columns zeroed.
[[nodiscard]] inline ColumnGrid column_grid(const Tensor& weight, const Tensor& live, const Scheme& scheme,
                                            const std::optional<Grid>& learned, bool static_groups, bool as_published) {
  const bool grouped = scheme.granularity == Granularity::group;
  ColumnGrid how;
  how.scheme = scheme;
  how.fit = [as_published](const Tensor& columns, Scheme row) {
    if (row.granularity == Granularity::group) row.granularity = Granularity::channel;
    return fit_grid(columns, row, as_published);
  };
  how.dynamic = grouped && !static_groups && !learned && !scheme.block_float();
  how.stale = as_published;
  if (!how.dynamic) how.fixed = learned ? *learned : fit_grid(grouped ? live : weight, scheme, as_published);
  return how;
}

}  // namespace ptq
