// One-dimensional clustering of columns: the kernel with scratch of its own.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include <ptq/core/describe.hpp>
#include <ptq/core/error.hpp>
#include <ptq/kernels/kmeans.hpp>

namespace ptq {

using kernels::KMeans;
template <>
struct EnumNames<KMeans> {
  static constexpr std::array<std::string_view, 3> names{"lloyd", "coarse", "optimal"};
};

/// Sorts and clusters one column after the other; a thread has one of its own.
template <class T>
class ColumnClusters {
 public:
  /// The values x [n] ascending, valid until the next call. Throws when one is NaN or infinite.
  const T* sort(const T* x, int64_t n) {
    sorted_.resize(static_cast<size_t>(n));
    reserve(kernels::sort_values_workspace<T>(n));
    check(kernels::sort_values<T>(x, n, 1, sorted_.data(), nullptr, scratch_.data(), scratch_.size()));
    return sorted_.data();
  }

  /// k ascending levels of n >= 1 ascending values; fewer distinct values than k repeat the last. `start`, when not null: Lloyd's steps
  /// from these k levels instead.
  void fit(const T* sorted, int64_t n, int k, KMeans method, const T* start, T* levels) {
    kernels::Clustering<T> how;
    how.k = k, how.method = method, how.levels = levels;
    how.start = start;
    reserve(kernels::kmeans_workspace<T>(n, k, method));
    check(kernels::kmeans_sorted<T>(sorted, n, how, scratch_.data(), scratch_.size()));
  }

 private:
  void reserve(size_t bytes) {
    if (scratch_.size() < bytes) scratch_.resize(bytes);
  }
  static void check(kernels::Status status) {
    if (status == kernels::Status::non_finite) fail("a column to be clustered holds NaN or infinity");
    if (status != kernels::Status::ok) fail("clustering a column: ", kernels::text(status));
  }

  std::vector<T> sorted_;
  std::vector<std::byte> scratch_;
};

/// Mean and deviation of n >= 1 values.
struct Moments {
  double mean = 0, deviation = 0;
};
template <class T>
[[nodiscard]] Moments moments(const T* x, int64_t n) {
  Moments m;
  for (int64_t i = 0; i < n; ++i) m.mean += static_cast<double>(x[i]);
  m.mean /= static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) m.deviation += std::pow(static_cast<double>(x[i]) - m.mean, 2);
  m.deviation = std::sqrt(m.deviation / static_cast<double>(n));
  return m;
}

/// Replaces each level by the mean of the entries x [n] whose x / s is nearest to it, s [n] the divisors that select codes; entries that
/// are kept (optional) do not count, levels without entries stay. Levels come and go ascending.
template <class T>
void means_of_selected(const T* x, const T* s, int64_t n, const bool* kept, int k, T* levels) {
  std::vector<double> sum(static_cast<size_t>(k), 0), count(static_cast<size_t>(k), 0);
  for (int64_t r = 0; r < n; ++r) {
    if (kept != nullptr && kept[r]) continue;
    const T at = x[r] / s[r];
    int code = 0;
    while (code + 1 < k && at > (levels[code] + levels[code + 1]) / T(2)) ++code;
    sum[static_cast<size_t>(code)] += static_cast<double>(x[r]), count[static_cast<size_t>(code)] += 1;
  }
  for (int i = 0; i < k; ++i)
    if (count[static_cast<size_t>(i)] > 0) levels[i] = static_cast<T>(sum[static_cast<size_t>(i)] / count[static_cast<size_t>(i)]);
  std::sort(levels, levels + k);
}

}  // namespace ptq
