// The levels of a codebook by one-dimensional k-means, one column at a time on one thread. scikit-learn is the peer of kmeans_peer.py.

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>

#include <ptq/core/error.hpp>
#include <ptq/kernels/kmeans.hpp>

#include "paired.hpp"

namespace {

using namespace ptq;
using namespace ptq::bench;
using kernels::Clustering;
using kernels::KMeans;

constexpr struct {
  const char* name;
  KMeans method;
  double tolerance;  // of the squared error above the least
} methods[] = {{"lloyd", KMeans::lloyd, 1}, {"coarse", KMeans::coarse, 1e-3}, {"optimal", KMeans::optimal, 1e-9}};

/// Columns (count, n): of the file of float32 that PTQ_COLUMNS=N:FILE names, else 64 of 4096, half normal, half Laplacian.
Tensor columns_of(const char* given) {
  if (given == nullptr) {
    const Tensor tail = at::empty({32, 4096}).exponential_() * (at::randint(0, 2, {32, 4096}) * 2 - 1);
    return at::cat({at::randn({32, 4096}), tail}) * 0.02;
  }
  char* rest = nullptr;
  const int64_t n = std::strtoll(given, &rest, 10);
  std::ifstream file(*rest == ':' ? rest + 1 : rest, std::ios::binary | std::ios::ate);
  const auto bytes = static_cast<int64_t>(file ? std::streamoff(file.tellg()) : 0);
  if (n < 1 || bytes == 0 || bytes % (4 * n) != 0) refuse("PTQ_COLUMNS=", given, ": want N:FILE, FILE a multiple of N float32");
  Tensor columns = at::empty({bytes / (4 * n), n});
  file.seekg(0).read(static_cast<char*>(columns.mutable_data_ptr()), bytes);
  return columns;
}

const Tensor& columns() {
  static const Tensor c = columns_of(std::getenv("PTQ_COLUMNS"));
  return c;
}

/// Least squared error of k intervals by the recursion over all pairs of borders: an independent witness.
double least_error(const Tensor& column, int64_t k) {
  const Tensor x = std::get<0>((column.to(at::kDouble) - column.to(at::kDouble).mean()).sort());  // (n)
  const int64_t n = x.numel();
  const Tensor s = at::cat({at::zeros({1}, at::kDouble), x.cumsum(0)}), q = at::cat({at::zeros({1}, at::kDouble), x.square().cumsum(0)});
  Tensor least = at::full({n + 1}, std::numeric_limits<double>::infinity(), at::kDouble);
  least[0] = 0;
  const Tensor to = at::arange(n + 1).unsqueeze(1), from = at::arange(n + 1).unsqueeze(0), count = (to - from).to(at::kDouble);
  const Tensor cost = ((q.unsqueeze(1) - q) - (s.unsqueeze(1) - s).square() / count)
                          .clamp_min_(0)
                          .masked_fill_(from >= to, std::numeric_limits<double>::infinity());  // (to, from)
  for (int64_t layer = 0; layer < k; ++layer) least = at::minimum(least, (cost + least).amin(1));
  return least[n].item<double>();
}

/// Squared error of the nearest of levels (k), in float64.
double error_of(const Tensor& column, const Tensor& levels) {
  return (column.to(at::kDouble).unsqueeze(1) - levels.to(at::kDouble)).square().amin(1).sum().item<double>();
}

/// Median seconds of single calls: a call is shorter than a time slice, so other work on the machine does not enter, as it does in a mean.
double median_seconds(const std::function<void()>& call, int64_t count) {
  std::vector<double> seconds;
  for (int64_t i = 0; i < count; ++i) {
    const auto start = std::chrono::steady_clock::now();
    call();
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + count / 2, seconds.end());
  return seconds[static_cast<size_t>(count / 2)];
}

/// `err`: squared error over the least one - 1 in the first column, by the recursion. `sse`: the sum over all columns. `median_us`: of
/// calls.
void cluster(benchmark::State& state, KMeans method, int64_t k, double tolerance) {
  const Tensor all = columns().contiguous();
  const int64_t n = all.size(1);
  Tensor levels = at::empty({k});
  std::vector<char> scratch(kernels::kmeans_workspace<float>(n, static_cast<int32_t>(k), method));
  int64_t turn = 0;
  double sse = 0, total = 0;
  const auto next = [&](int64_t column) {
    Clustering<float> how;
    how.k = static_cast<int32_t>(k), how.method = method, how.levels = levels.mutable_data_ptr<float>(), how.sse = &sse;
    if (kernels::kmeans(all.const_data_ptr<float>() + column * n, n, 1, how, scratch.data(), scratch.size()) != kernels::Status::ok) {
      sse = std::numeric_limits<double>::quiet_NaN();
    }
  };
  Case c;
  c.ours = [&] { next(turn++ % all.size(0)); };
  c.error = [&] {
    double farthest = 0;  // between what is said and what is
    for (int64_t i = 0; i < all.size(0); ++i) {
      levels.fill_(std::numeric_limits<double>::quiet_NaN());
      next(i);
      total += sse, farthest = std::max(farthest, std::abs(error_of(all[i], levels) / sse - 1));
    }
    next(0);
    return farthest < 1e-9 ? std::abs(sse / least_error(all[0], k) - 1) : std::numeric_limits<double>::quiet_NaN();
  };
  c.tolerance = tolerance, c.items = 1;
  measure(state, c);
  state.counters["sse"] = total;
  state.counters["median_us"] = 1e6 * median_seconds(c.ours, 10 * all.size(0));
}

/// The sort alone, with or without the order.
void sort(benchmark::State& state, bool indexed) {
  const Tensor all = columns().contiguous();
  const int64_t n = all.size(1);
  Tensor sorted = at::empty({n}), order = at::empty({n}, at::kInt);
  std::vector<char> scratch(kernels::sort_values_workspace<float>(n));
  int64_t turn = 0;
  Case c;
  c.ours = [&] {
    const float* x = all.const_data_ptr<float>() + turn++ % all.size(0) * n;
    kernels::sort_values(x, n, 1, sorted.mutable_data_ptr<float>(), indexed ? order.mutable_data_ptr<int32_t>() : nullptr, scratch.data(),
                         scratch.size());
  };
  c.peer = [&] { benchmark::DoNotOptimize(all[turn++ % all.size(0)].sort()); };
  c.error = [&] { return at::equal(sorted, std::get<0>(all[0].sort())) ? 0.0 : 1.0; };
  c.items = 1;
  measure(state, c);
}

}  // namespace

void register_codebooks() {
  const int64_t n = columns().size(1);
  for (const auto& m : methods) {
    for (const int64_t k : {4, 16}) {
      add(cat("codebooks/", m.name, "/", n, "x", k, "/cache/quick"), [=](benchmark::State& s) { cluster(s, m.method, k, m.tolerance); });
    }
  }
  add(cat("codebooks/sort/", n, "/cache/quick"), [](benchmark::State& s) { sort(s, false); });
  add(cat("codebooks/sort_indexed/", n, "/cache/quick"), [](benchmark::State& s) { sort(s, true); });
}
