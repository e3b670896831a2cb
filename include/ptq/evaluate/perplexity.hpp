// Perplexity over windows of tokens, block by block: one block's weights and one buffer of activations at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include <ptq/model/transformer.hpp>

namespace ptq {

/// The operators of a block, made when the walk reaches it and dropped when it leaves.
using BlockOperators = std::function<std::unique_ptr<Operators>(int64_t block)>;

/// The float model.
[[nodiscard]] inline BlockOperators float_operators(const Transformer& model) {
  return [&model](int64_t block) { return std::make_unique<FloatOperators>(model.config(), model.load(block)); };
}

/// A value and the standard error of its mean over windows (NaN where there is one window only).
struct Estimate {
  double value = 0;
  double standard_error = 0;
};

/// sd(x) / √n with the sample's standard deviation.
[[nodiscard]] inline double standard_error(const std::vector<double>& x) {
  const auto n = static_cast<double>(x.size());
  if (x.size() < 2) return std::numeric_limits<double>::quiet_NaN();
  double mean = 0, square = 0;
  for (const double v : x) mean += v / n;
  for (const double v : x) square += (v - mean) * (v - mean);
  return std::sqrt(square / (n - 1) / n);
}

/// What a model makes of a text.
struct Perplexity {
  std::vector<double> nll;         ///< l_i: mean over the predicted tokens of window i of −ln p
  std::vector<int64_t> predicted;  ///< how many those are
  int64_t tokens = 0;              ///< of all windows, the unpredicted first ones included

  /// exp(mean of l_i), every window alike, a shorter tail too (protocols `gptq`, `tail`); its error ppl · sd(l_i) / √n.
  [[nodiscard]] Estimate estimate() const {
    double mean = 0;
    for (const double l : nll) mean += l / static_cast<double>(nll.size());
    return {std::exp(mean), std::exp(mean) * standard_error(nll)};
  }
};

/// ppl_q − ppl_fp on the same windows; its error sd(ppl_q l_i^q − ppl_fp l_i^fp) / √n: windows that are hard for one are hard for both.
[[nodiscard]] inline Estimate difference(const Perplexity& quantized, const Perplexity& reference) {
  if (quantized.nll.size() != reference.nll.size() || quantized.predicted != reference.predicted)
    fail("a paired difference needs the same windows: ", quantized.nll.size(), " and ", reference.nll.size());
  const double q = quantized.estimate().value, fp = reference.estimate().value;
  std::vector<double> paired;
  for (size_t i = 0; i < quantized.nll.size(); ++i) paired.push_back(q * quantized.nll[i] - fp * reference.nll[i]);
  return {q - fp, standard_error(paired)};
}

struct PerplexityOptions {
  int64_t batch_tokens = 0;  ///< tokens of one forward, about; 0: 8192 on a GPU, 2048 on a CPU, whose caches then hold them
  int64_t batch = 0;         ///< windows of one forward; 1 where a format is fitted to each call; 0 follows batch_tokens
  std::function<void(int64_t block)> on_block{};  ///< after each block
};

namespace detail {

/// Calls f(first, count) for batches of the windows (n, length).
template <class F>
void by_batch(const Tensor& windows, const PerplexityOptions& options, F f) {
  const int64_t n = windows.size(0);
  const int64_t tokens = options.batch_tokens > 0 ? options.batch_tokens : windows.is_cpu() ? 2048 : 8192;
  const int64_t batch = options.batch > 0 ? options.batch : std::max<int64_t>(1, tokens / windows.size(1));
  for (int64_t first = 0; first < n; first += batch) f(first, std::min(batch, n - first));
}

/// A block over x (n, length, hidden), in place. Fails where activations stop being finite.
inline void advance(const Transformer& model, int64_t block, Operators& ops, Tensor& x, const PerplexityOptions& options) {
  by_batch(x, options, [&](int64_t first, int64_t count) {
    Tensor part = x.narrow(0, first, count);
    const Tensor y = model.forward(block, part, ops);
    require_finite(y, cat("block ", block, ", output"));
    part.copy_(y);
  });
}

/// Adds the losses of windows (n, length) whose last hidden states are x (n, length, hidden).
inline void score(const Transformer& model, const Head& head, const Tensor& x, const Tensor& windows, const PerplexityOptions& options,
                  Perplexity& result) {
  by_batch(x, options, [&](int64_t first, int64_t count) {
    const Tensor nll = model.nll(head, x.narrow(0, first, count), windows.narrow(0, first, count));  // (count, length − 1)
    require_finite(nll, "log-likelihoods");
    const Tensor means = nll.mean(1).cpu();
    for (int64_t j = 0; j < count; ++j) {
      result.nll.push_back(means[j].item<double>());
      result.predicted.push_back(nll.size(1));
      result.tokens += nll.size(1) + 1;
    }
  });
}

}  // namespace detail

/// Walks all windows through the blocks `operators` yields and the head. `windows` holds token ids (n, length), one tensor a length: the
/// full windows, then perhaps a shorter tail (1, rest). Fails where activations stop being finite, naming the block.
[[nodiscard]] inline Perplexity perplexity(const Transformer& model, const Head& head, const std::vector<Tensor>& windows,
                                           const BlockOperators& operators, const PerplexityOptions& options = {}) {
  const at::NoGradGuard no_grad;
  if (windows.empty()) fail("no windows to evaluate: the text is empty or shorter than one window");
  for (const Tensor& ids : windows) model.require_ids(ids);
  std::vector<Tensor> x;  // (n, length, hidden), overwritten block by block
  {
    const Embedding embedding = model.load_embedding();
    for (const Tensor& ids : windows) x.push_back(model.embed(embedding, ids));
  }
  for (int64_t block = 0; block < model.blocks(); ++block) {
    const auto ops = operators(block);
    for (Tensor& buffer : x) detail::advance(model, block, *ops, buffer, options);
    if (options.on_block) options.on_block(block);
  }
  Perplexity result;
  for (size_t i = 0; i < windows.size(); ++i) detail::score(model, head, x[i], windows[i], options, result);
  return result;
}

}  // namespace ptq
