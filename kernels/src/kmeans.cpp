#include <ptq/kernels/isa.hpp>
#include <ptq/kernels/kmeans.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "scratch.hpp"

#define PTQ_BODY "kmeans.inl"
#include "for_each_isa.inl"

namespace ptq::kernels {

namespace {

constexpr std::ptrdiff_t most_values = std::numeric_limits<std::int32_t>::max() - 64;

bool countable(std::ptrdiff_t n) { return n >= 1 && n <= most_values; }

template <class T>
bool makes_sense(const T* values, std::ptrdiff_t n, const Clustering<T>& how) {
  if (!countable(n) || values == nullptr || how.levels == nullptr || how.k < 1 || how.k > max_levels) return false;
  if (how.method < KMeans::lloyd || how.method > KMeans::optimal) return false;
  for (std::int32_t j = 1; how.start != nullptr && j < how.k; ++j) {
    if (how.start[j] < how.start[j - 1]) return false;
  }
  return true;
}

template <class T>
bool finite_start(const Clustering<T>& how) {
  for (std::int32_t j = 0; how.start != nullptr && j < how.k; ++j) {
    if (!(how.start[j] - how.start[j] == T(0))) return false;
  }
  return true;
}

/// What callers find when an input was NaN or infinite.
template <class T>
Status without_meaning(const Clustering<T>& how) {
  for (std::int32_t j = 0; j < how.k; ++j) how.levels[j] = std::numeric_limits<T>::quiet_NaN();
  if (how.sse != nullptr) *how.sse = std::numeric_limits<double>::quiet_NaN();
  if (how.steps != nullptr) *how.steps = 0;
  return Status::non_finite;
}

template <class T>
Status sort_at(const T* x, std::ptrdiff_t n, std::ptrdiff_t stride, T* sorted, std::int32_t* order, Scratch scratch) {
  PTQ_DISPATCH(sort_values(x, n, stride, sorted, order, scratch));
}

template <class T>
Status cluster_at(const T* sorted, std::ptrdiff_t n, const Clustering<T>& how, Scratch scratch) {
  PTQ_DISPATCH(kmeans_sorted(sorted, n, how, scratch));
}

/// Sorted copies of values and weights, behind which the scratch of sorting and clustering begins.
template <class T>
struct Copies {
  T *sorted, *weights;
  std::int32_t* order;

  Copies(Scratch& from, std::ptrdiff_t n) : sorted(from.take<T>(n)), weights(from.take<T>(n)), order(from.take<std::int32_t>(n)) {}
};

}  // namespace

template <class T>
std::size_t sort_values_workspace(std::ptrdiff_t n) {
  if (!countable(n)) return 0;
  Scratch s;
  portable::SortScratch<T>(s, n);
  return s.bytes();
}

template <class T>
Status sort_values(const T* x, std::ptrdiff_t n, std::ptrdiff_t stride, T* sorted, std::int32_t* order, void* workspace,
                   std::size_t workspace_bytes) {
  if (!countable(n) || x == nullptr || sorted == nullptr) return Status::bad_argument;
  if (workspace == nullptr || workspace_bytes < sort_values_workspace<T>(n)) return Status::bad_argument;
  return sort_at(x, n, stride, sorted, order, Scratch(workspace));
}

template <class T>
std::size_t kmeans_workspace(std::ptrdiff_t n, std::int32_t k, KMeans method) {
  if (!countable(n) || k < 1 || k > max_levels || method < KMeans::lloyd || method > KMeans::optimal) return 0;
  Scratch s;
  Copies<T>(s, n);
  Scratch sorting = s, clustering = s;
  portable::SortScratch<T>(sorting, n);
  portable::KMeansScratch(clustering, n, k, method);
  return sorting.bytes() > clustering.bytes() ? sorting.bytes() : clustering.bytes();
}

template <class T>
Status kmeans_sorted(const T* sorted, std::ptrdiff_t n, const Clustering<T>& how, void* workspace, std::size_t workspace_bytes) {
  if (!makes_sense(sorted, n, how)) return Status::bad_argument;
  if (workspace == nullptr || workspace_bytes < kmeans_workspace<T>(n, how.k, how.method)) return Status::bad_argument;
  const Status status = finite_start(how) ? cluster_at(sorted, n, how, Scratch(workspace)) : Status::non_finite;
  return status == Status::non_finite ? without_meaning(how) : status;
}

template <class T>
Status kmeans(const T* x, std::ptrdiff_t n, std::ptrdiff_t stride, const Clustering<T>& how, void* workspace, std::size_t workspace_bytes) {
  if (!makes_sense(x, n, how)) return Status::bad_argument;
  if (workspace == nullptr || workspace_bytes < kmeans_workspace<T>(n, how.k, how.method)) return Status::bad_argument;
  Scratch s(workspace);
  const Copies<T> copy(s, n);
  Clustering<T> sorted = how;
  Status status = sort_at(x, n, stride, copy.sorted, how.weights == nullptr ? nullptr : copy.order, s);
  if (how.weights != nullptr) {
    for (std::ptrdiff_t i = 0; i < n; ++i) copy.weights[i] = how.weights[copy.order[i]];
    sorted.weights = copy.weights;
  }
  if (status == Status::ok) status = finite_start(how) ? cluster_at<T>(copy.sorted, n, sorted, s) : Status::non_finite;
  return status == Status::non_finite ? without_meaning(how) : status;
}

#define PTQ_INSTANTIATE(T)                                                                                         \
  template std::size_t sort_values_workspace<T>(std::ptrdiff_t);                                                   \
  template Status sort_values<T>(const T*, std::ptrdiff_t, std::ptrdiff_t, T*, std::int32_t*, void*, std::size_t); \
  template std::size_t kmeans_workspace<T>(std::ptrdiff_t, std::int32_t, KMeans);                                  \
  template Status kmeans_sorted<T>(const T*, std::ptrdiff_t, const Clustering<T>&, void*, std::size_t);            \
  template Status kmeans<T>(const T*, std::ptrdiff_t, std::ptrdiff_t, const Clustering<T>&, void*, std::size_t);
PTQ_INSTANTIATE(float)
PTQ_INSTANTIATE(double)
#undef PTQ_INSTANTIATE

}  // namespace ptq::kernels
