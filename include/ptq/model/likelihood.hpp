// Log-likelihood of tokens without a logits tensor: tiles of rows and vocabulary, summed in double.
#pragma once

#include <algorithm>
#include <limits>

#include <ptq/core/affine.hpp>

namespace ptq {

/// Logits alive at once: `rows` × `vocabulary`.
struct LikelihoodTile {
  int64_t rows = 1024;
  int64_t vocabulary = 2048;
};

/// −ln softmax(h Wᵀ)[target] = ln Σ_v exp(z_v) − z_target, where the sum over tiles of v is kept relative to the greatest logit so far.
/// h (n, width), weight (vocab, width), targets (n) in 0 … vocab − 1 → (n) double. Logits are of h's type, exponentials float32 at least.
[[nodiscard]] inline Tensor negative_log_likelihood(const Tensor& h, const Tensor& weight, const Tensor& targets,
                                                    LikelihoodTile tile = {}) {
  const at::NoGradGuard no_grad;
  const int64_t n = h.size(0), vocab = weight.size(0);
  const auto wide = at::isReducedFloatingType(h.scalar_type()) ? at::kFloat : h.scalar_type();
  const auto in_double = h.options().dtype(at::kDouble);
  Tensor out = at::empty({n}, in_double);
  for (int64_t row = 0; row < n; row += tile.rows) {
    const int64_t rows = std::min(tile.rows, n - row);
    const Tensor part = h.narrow(0, row, rows), target = targets.narrow(0, row, rows);
    Tensor top = at::full({rows}, -std::numeric_limits<double>::infinity(), in_double), sum = at::zeros({rows}, in_double);
    Tensor chosen = at::zeros({rows}, in_double);
    for (int64_t first = 0; first < vocab; first += tile.vocabulary) {
      const int64_t width = std::min(tile.vocabulary, vocab - first);
      Tensor z = affine(part, weight.narrow(0, first, width)).to(wide);  // (rows, width)
      const Tensor local = target - first;
      const Tensor value = z.gather(1, local.clamp(0, width - 1).unsqueeze(1)).squeeze(1).to(at::kDouble);
      chosen = at::where((local >= 0) & (local < width), value, chosen);
      const Tensor peak = z.amax(1);  // (rows)
      const Tensor here = z.sub_(peak.unsqueeze(1)).exp_().sum(1).to(at::kDouble), at_peak = peak.to(at::kDouble);
      const Tensor higher = at::maximum(top, at_peak);
      sum = sum * at::exp(top - higher) + here * at::exp(at_peak - higher);
      top = higher;
    }
    out.narrow(0, row, rows).copy_(top + at::log(sum) - chosen);
  }
  return out;
}

}  // namespace ptq
