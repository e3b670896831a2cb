// Operators that watch: they run the float block and gather statistics of what each input group sees.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include <ptq/calibration/statistics.hpp>
#include <ptq/model/operators.hpp>

namespace ptq {

/// Smallest and largest value that a place has seen.
struct Extent {
  double low = 0, high = 0;
  bool seen = false;

  void add(const Tensor& x) {
    const auto [lo, hi] = at::aminmax(x);
    const double l = lo.item<double>(), h = hi.item<double>();
    low = seen ? std::min(low, l) : l, high = seen ? std::max(high, h) : h, seen = true;
  }
  [[nodiscard]] double absmax() const { return std::max(std::abs(low), std::abs(high)); }
};

/// Runs a float block, hands the input of every group (after any division) to `on_input` and the output of every linear to `on_output`.
struct Observer : FloatOperators {
  using FloatOperators::FloatOperators;

  Tensor input(int group, const Tensor& x) override {
    const Tensor seen = FloatOperators::input(group, x);
    if (on_input) on_input(group, seen);
    return seen;
  }
  Tensor linear(int site, const Tensor& x) override {
    const Tensor y = FloatOperators::linear(site, x);
    if (on_output) on_output(site, y);
    return y;
  }

  std::function<void(int group, const Tensor& x)> on_input;  // x (B, T, in)
  std::function<void(int site, const Tensor& y)> on_output;  // y (B, T, out)
};

/// Calls work(first, count) for batches of sequences of `length` tokens, about `tokens` tokens a batch, at least one sequence.
template <class Work>
void for_batches(int64_t sequences, int64_t length, int64_t tokens, const Work& work) {
  const int64_t batch = std::max<int64_t>(1, tokens / std::max<int64_t>(1, length));
  for (int64_t first = 0; first < sequences; first += batch) work(first, std::min(batch, sequences - first));
}

}  // namespace ptq
