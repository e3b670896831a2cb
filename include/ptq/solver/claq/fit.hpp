// The codebook of one column, and which of its entries are kept: sort, mark, cluster the rest, round to the stored width.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <ptq/core/codebook.hpp>
#include <ptq/core/columns.hpp>
#include <ptq/core/kmeans.hpp>
#include <ptq/solver/claq/plan.hpp>

namespace ptq {

/// How columns are fitted; the same for all columns of a matrix.
struct ColumnFit {
  KMeans kmeans = KMeans::coarse;
  bool warm = false;  ///< from the levels of the last column of the same width, moved to this column's mean and deviation
  LevelType type = LevelType::f16;
  Reserve reserve = Reserve::none;
  KeepSide side = KeepSide::total;
  bool cluster_kept = false;
  bool keep_constant = false;  ///< as released: a constant column is kept whole

  /// Marks the entries of a column x [rows] that are kept: `amount` is a fraction, or a multiple of the mean magnitude. sorted: ascending.
  template <class T>
  KeepCount mark(const T* x, const T* sorted, int64_t rows, double amount, bool* kept) const {
    if (keep_constant && amount > 0 && sorted[0] == sorted[rows - 1]) {
      std::fill(kept, kept + rows, true);
      return {rows, 0};
    }
    if (reserve == Reserve::threshold) return mark_beyond(x, rows, amount, kept);
    return mark_extremes(x, sorted, rows, keep_count(rows, amount, side), side, kept);
  }

  /// k levels of one column x [rows], and in `kept`, where not null, its kept entries. neighbour, where not null: k levels of another
  /// column at mean 0 and deviation 1, to begin with; replaced by those found. It may be empty.
  template <class T>
  void fit(ColumnClusters<T>& clusters, const T* x, int64_t rows, double amount, int k, std::vector<T>* neighbour, bool* kept,
           T* levels) const {
    const T* sorted = clusters.sort(x, rows);
    const KeepCount out = kept ? mark(x, sorted, rows, amount, kept) : KeepCount{};
    const bool all = cluster_kept || out.top + out.bottom >= rows;
    const int64_t first = all ? 0 : out.bottom, count = (all ? rows : rows - out.top) - first;
    if (!neighbour) return clusters.fit(sorted + first, count, k, kmeans, nullptr, levels);
    const Moments m = moments(sorted + first, count);
    for (T& z : *neighbour) z = static_cast<T>(m.mean + m.deviation * static_cast<double>(z));
    clusters.fit(sorted + first, count, k, kmeans, neighbour->empty() ? nullptr : neighbour->data(), levels);
    neighbour->clear();
    for (int i = 0; i < k && m.deviation > 0; ++i)
      neighbour->push_back(static_cast<T>((static_cast<double>(levels[i]) - m.mean) / m.deviation));
  }
};

/// The fit of a matrix's columns in solver order, as the column engine calls it.
class ColumnFitter {
 public:
  /// plan by original column, order as in ColumnFactor; selects (rows, n): S of a learned rounding, x / S selects the code; or undefined.
  ColumnFitter(const ColumnFit& how, const ColumnPlan& plan, const Tensor& order, const Tensor& selects, std::string place)
      : how_(how), place_(std::move(place)) {
    const auto in_order = [&](const Tensor& t) { return (order.defined() ? t.index_select(0, order) : t).contiguous(); };
    bits_ = in_order(plan.bits), keep_ = in_order(plan.keep);
    if (selects.defined()) selects_ = in_order(selects.t());
  }

  /// Levels of the columns from `step` on. values (k, rows) contiguous.
  ColumnLevels operator()(int64_t step, const Tensor& values) {
    const int* bits = bits_.const_data_ptr<int>() + step;
    const double* keep = keep_.const_data_ptr<double>() + step;
    const int64_t count = values.size(0), rows = values.size(1), widest = int64_t{1} << *std::max_element(bits, bits + count);
    ColumnLevels out;
    out.levels = at::empty({count, widest}, values.options());
    if (how_.reserve != Reserve::none) out.keep = at::empty({count, rows}, at::kBool);
    detail::by_scalar(values, "fitting codebooks", [&]<class T>(T) {
      at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
        ColumnClusters<T> of_thread;
        auto& clusters = count == 1 ? std::get<ColumnClusters<T>>(clusters_) : of_thread;  // scratch that stays from column to column
        for (int64_t j = begin; j < end; ++j) {
          const T* x = values.const_data_ptr<T>() + j * rows;
          bool* kept = out.keep.defined() ? out.keep.mutable_data_ptr<bool>() + j * rows : nullptr;
          T* levels = out.levels.mutable_data_ptr<T>() + j * widest;
          const int k = 1 << bits[j];
          auto& neighbour = std::get<std::array<std::vector<T>, 9>>(neighbours_)[static_cast<size_t>(bits[j])];
          how_.fit(clusters, x, rows, keep[j], k, how_.warm ? &neighbour : nullptr, kept, levels);
          if (selects_.defined()) means_of_selected(x, selects_.const_data_ptr<T>() + (step + j) * rows, rows, kept, k, levels);
          for (int i = 0; i < k; ++i) {
            levels[i] = as_stored(levels[i], how_.type);
            if (!std::isfinite(levels[i])) fail(place_, ": levels do not fit 16 bits; use solver.levels bf16 or f32");
          }
          std::fill(levels + k, levels + widest, levels[k - 1]);
        }
      });
    });
    return out;
  }

 private:
  ColumnFit how_;
  std::string place_;
  Tensor bits_, keep_, selects_;  // (n), (n), (n, rows) in solver order
  std::tuple<ColumnClusters<float>, ColumnClusters<double>> clusters_;
  std::tuple<std::array<std::vector<float>, 9>, std::array<std::vector<double>, 9>> neighbours_;  // by width
};

}  // namespace ptq
