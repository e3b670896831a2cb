// Which columns of a matrix get more bits, and how many of their entries are kept: decided once a matrix, before any column is rounded.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <ptq/core/column_factor.hpp>
#include <ptq/core/describe.hpp>

namespace ptq {

/// By what columns are ranked. `outliers`: entries of at least `outlier_multiple` times the mean magnitude of the matrix (CLAQ's Outlier
/// Order); `factor`: mean_r W² R_jj² (its undocumented alternative, mean W²/U_jj²); `diagonal`: H_jj; `energy`: mean_r W² H_jj.
enum class ColumnMetric { outliers, factor, diagonal, energy };
template <>
struct EnumNames<ColumnMetric> {
  static constexpr std::array<std::string_view, 4> names{"outliers", "factor", "diagonal", "energy"};
};

/// Which entries of a column are kept: none; the same fraction of every column; those of at least `keep` times the column's mean magnitude;
/// a larger fraction of the first columns by rank.
enum class Reserve { none, fraction, threshold, ranked };
template <>
struct EnumNames<Reserve> {
  static constexpr std::array<std::string_view, 4> names{"none", "fraction", "threshold", "ranked"};
};

/// What a fraction counts: the kept entries of a column, half of them (rounded up) its largest and half its smallest; or, as released,
/// those on either side, one more at the top.
enum class KeepSide { total, each };
template <>
struct EnumNames<KeepSide> {
  static constexpr std::array<std::string_view, 2> names{"total", "each"};
};

/// The plan of one matrix, by original column.
struct ColumnPlan {
  Tensor bits;                // (n) int32
  Tensor keep;                // (n) double: fraction, or multiple of the column's mean magnitude
  Tensor rank;                // (n) int64: columns from first to last
  int64_t with_outliers = 0;  ///< columns with at least one outlier: beyond them the Outlier Order is only ties
};

/// o_j = #{r : |W_rj| ≥ multiple · mean|W|}, (n) int64; dead columns of w are zero and count in the mean. CLAQ, section "Outlier Order".
[[nodiscard]] inline Tensor outlier_counts(const Tensor& w, double multiple) {  // w (rows, n)
  const double tau = multiple * w.abs().mean().item<double>();
  return (~(w.gt(-tau) & w.lt(tau))).sum(0);
}

/// Columns by descending metric; ties by descending diagonal of H, then as they stand.
[[nodiscard]] inline Tensor rank_columns(const Tensor& metric, const Tensor& diagonal) {  // (n), (n)
  const Tensor second = at::argsort(diagonal, /*stable=*/true, 0, /*descending=*/true);
  const Tensor first = at::argsort(metric.index_select(0, second), /*stable=*/true, 0, /*descending=*/true);
  return second.index_select(0, first);
}

/// How many of `columns` get the higher width so that their mean is `average`: nearest to columns · (average − low)/(high − low), halves to
/// even.
[[nodiscard]] inline int64_t columns_at_high(int64_t columns, double average, int low, int high) {
  const double fraction = (average - low) / (high - low);
  return static_cast<int64_t>(std::nearbyint(static_cast<double>(columns) * fraction));
}

/// The two widths of an average: below 3 bits 2 and 4, else 3 and 4, as CLAQ mixes them.
[[nodiscard]] constexpr std::array<int, 2> widths_of(double average) {
  return average < 3 ? std::array<int, 2>{2, 4} : std::array<int, 2>{3, 4};
}

/// How many entries of a column stay out of the codes at either end.
struct KeepCount {
  int64_t top = 0, bottom = 0;
};

/// For a column of `rows` entries without ties. total: k = ⌊rows · f⌉, ⌈k/2⌉ and ⌊k/2⌋. each: ⌊rows f⌉ + 1 at the top, rows − ⌊rows (1 −
/// f)⌉ at the bottom (halves to even), as the released comparison with the boundary values has it.
[[nodiscard]] inline KeepCount keep_count(int64_t rows, double fraction, KeepSide side) {
  const auto nearest = [](double v) { return static_cast<int64_t>(std::nearbyint(v)); };
  const auto r = static_cast<double>(rows);
  if (fraction <= 0) return {};
  if (side == KeepSide::each) return {std::min(rows, nearest(r * fraction) + 1), rows - std::min(rows, nearest(r * (1 - fraction)))};
  const int64_t k = std::min(rows, nearest(r * fraction));
  return {(k + 1) / 2, k / 2};
}

/// Marks what is kept of a column: its `count.top` largest and `count.bottom` smallest values, ties cut by row (total) or kept all (each).
/// A constant column keeps nothing. sorted: the values ascending. kept [rows]. Returns how many were marked at either end.
template <class T>
KeepCount mark_extremes(const T* values, const T* sorted, int64_t rows, KeepCount count, KeepSide side, bool* kept) {
  std::fill(kept, kept + rows, false);
  KeepCount marked;
  if (rows == 0 || sorted[0] == sorted[rows - 1]) return marked;
  if (count.top > 0) {
    const T bound = sorted[rows - count.top];
    int64_t wanted = 0;  // of the entries at the bound
    for (int64_t i = rows - count.top; i < rows && sorted[i] == bound; ++i) ++wanted;
    for (int64_t r = 0; r < rows; ++r)
      if (values[r] > bound || (values[r] == bound && (side == KeepSide::each || wanted-- > 0))) kept[r] = true, ++marked.top;
  }
  if (count.bottom > 0) {
    const T bound = sorted[count.bottom - 1];
    int64_t wanted = 0;
    for (int64_t i = count.bottom; i > 0 && sorted[i - 1] == bound; --i) ++wanted;
    for (int64_t r = 0; r < rows; ++r)
      if (!kept[r] && (values[r] < bound || (values[r] == bound && (side == KeepSide::each || wanted-- > 0))))
        kept[r] = true, ++marked.bottom;
  }
  return marked;
}

/// Marks entries of at least `multiple` times the mean magnitude. A column of zeros keeps nothing.
template <class T>
KeepCount mark_beyond(const T* values, int64_t rows, double multiple, bool* kept) {
  double sum = 0;
  for (int64_t r = 0; r < rows; ++r) sum += std::abs(static_cast<double>(values[r]));
  const T bound = static_cast<T>(multiple * sum / static_cast<double>(rows));
  KeepCount marked;
  for (int64_t r = 0; r < rows; ++r) {
    kept[r] = sum > 0 && !(values[r] > -bound && values[r] < bound);
    if (kept[r]) ++(values[r] > 0 ? marked.top : marked.bottom);
  }
  return marked;
}

}  // namespace ptq
