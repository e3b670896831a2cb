#pragma once
// One-dimensional k-means: the k levels of a codebook that leave a column the least squared error. Float and double.
//
// Optimal clusters of sorted values are intervals, so everything works on the sorted column and its prefix sums (float64, counted from the
// median outwards, so that cancellation in an interval never sees what lies beyond it). Sort once: reservation of outliers and clustering
// of what lies between them, sorted[first, last), share the order.

#include <ptq/kernels/status.hpp>

namespace ptq::kernels {

/// How the clusters are found.
enum class KMeans : int {
  /// As CLAQ's release calls it (Wang et al., arXiv 2405.17233): greedy k-means++ (Arthur and Vassilvitskii 2007, 2 + floor(ln k)
  /// candidates a centroid) from a fixed seed, then Lloyd's steps. A local optimum. The stream of random numbers is our own.
  lloyd,
  /// Values reduced to 512 bins, or 16 k if that is more, that are narrow where values are dense (companding, density^(1/3)); the optimum
  /// over the bins by dynamic programming; Lloyd's steps on the values. No seed; within 1e-3 of the optimum on weights.
  coarse,
  /// The optimum: dynamic programming over all distinct values by divide and conquer (Wu 1991; Gronlund et al., arXiv 1701.07204).
  optimal,
};

inline constexpr std::int32_t max_levels = 256;

/// What is wanted of n values, and where it goes.
template <class T>
struct Clustering {
  std::int32_t k = 4;  ///< levels, 1 to max_levels
  KMeans method = KMeans::coarse;
  std::int32_t max_steps = -1;    ///< Lloyd's steps at most (none in `optimal`); negative: 300, and 100 in `coarse`
  std::uint64_t seed = 10;        ///< of `lloyd`
  const T* start = nullptr;       ///< [k] ascending: Lloyd's steps from these levels, whatever the method (0 steps: only sse); optional
  const T* weights = nullptr;     ///< [n] weight of each value, not negative, not all 0; optional: 1
  T* levels = nullptr;            ///< [k] result, ascending; may be `start`
  double* sse = nullptr;          ///< sum of weight (value - nearest level)^2 of the levels as returned; optional
  std::int32_t* steps = nullptr;  ///< Lloyd's steps taken; optional
};

/// Bytes of scratch of sort_values, at any alignment.
template <class T>
std::size_t sort_values_workspace(std::ptrdiff_t n);

/// sorted[0, n) = the values x[i * stride], ascending, -0 as 0; order[i], optional, is the index that sorted[i] had: equal values keep
/// their order. n >= 1.
template <class T>
Status sort_values(const T* x, std::ptrdiff_t n, std::ptrdiff_t stride, T* sorted, std::int32_t* order, void* workspace,
                   std::size_t workspace_bytes);

/// Bytes of scratch of kmeans and kmeans_sorted, at any alignment. `optimal` takes 4 k n of them.
template <class T>
std::size_t kmeans_workspace(std::ptrdiff_t n, std::int32_t k, KMeans method);

/// Cluster n >= 1 ascending values. Values that lie at the midpoint of two levels belong to the lower; a level without values stays where
/// it was. At most k distinct values: the levels are these, padded with the last. Values that are not ascending: bad_argument.
template <class T>
Status kmeans_sorted(const T* sorted, std::ptrdiff_t n, const Clustering<T>& how, void* workspace, std::size_t workspace_bytes);

/// The same for the values x[i * stride] in any order; weights[i] belongs to x[i * stride].
template <class T>
Status kmeans(const T* x, std::ptrdiff_t n, std::ptrdiff_t stride, const Clustering<T>& how, void* workspace, std::size_t workspace_bytes);

}  // namespace ptq::kernels
