// What policies may ask to know about the inputs of linears, gathered on demand, per input group.
#pragma once

#include <algorithm>
#include <cstdint>

#include <ptq/core/linalg.hpp>
#include <ptq/core/tensor.hpp>

namespace ptq {

/// Statistics of one input group that a policy reads; needs of a recipe add up and are gathered once.
struct Needs {
  bool absmax = false;   ///< max over tokens of |x_j|                     (SmoothQuant)
  bool extent = false;   ///< min and max over tokens of x_j               (shifts, static activation ranges)
  bool middle = false;   ///< running middle of the range of x_j           (shifts)
  bool profile = false;  ///< Σ |x_j| over the tokens of each sequence     (L²QER)
  bool square = false;   ///< Σ x_j²                                       (QERA, approximate)
  bool hessian = false;  ///< Σ x̂ x̂ᵀ                                       (column solvers, QERA)
  bool cross = false;    ///< Σ (x_ref − x̂) x̂ᵀ                             (AWRQ, GPTAQ)

  [[nodiscard]] bool any() const { return absmax || extent || middle || profile || square || hessian || cross; }
  friend Needs operator|(const Needs& a, const Needs& b) {
    return {a.absmax || b.absmax, a.extent || b.extent,   a.middle || b.middle, a.profile || b.profile,
            a.square || b.square, a.hessian || b.hessian, a.cross || b.cross};
  }
  bool operator==(const Needs&) const = default;
};

/// Sums over the tokens seen so far. Undefined tensors were not asked for. Sums are plain: whoever reads them normalises.
struct Statistics {
  int64_t sequences = 0;
  int64_t tokens = 0;
  Tensor absmax;     // (n) max |x_j|
  Tensor low, high;  // (n) min and max x_j
  Tensor middle;     // (n) m ← 0.99 m + 0.01 (max + min)/2 from sequence to sequence, the first sets it
  Tensor profile;    // (sequences, n) Σ |x_j| of each sequence, double
  Tensor square;     // (n) Σ x_j², double
  Tensor hessian;    // (n, n) Σ x̂ x̂ᵀ; only the upper triangle until finish()
  Tensor cross;      // (n, n) Σ (x_ref − x̂) x̂ᵀ; rows: error channel

  /// Adds a batch. `x` is what the statistics are of; `reference` is compared with it for `cross` and may be undefined otherwise.
  void add(const Needs& needs, const Tensor& x, const Tensor& reference = {}) {  // x (sequences, tokens, n)
    const Tensor flat = x.reshape({-1, x.size(-1)});                             // (tokens, n)
    const int64_t n = flat.size(1);
    if (needs.absmax) update(absmax, flat.abs().amax(0), true);
    if (needs.extent) update(low, flat.amin(0), false), update(high, flat.amax(0), true);
    if (needs.profile) {
      const Tensor sums = (x.dim() > 2 ? x : flat.unsqueeze(0)).abs().sum(-2, false, at::kDouble).reshape({-1, n});  // (sequences, n)
      profile = profile.defined() ? at::cat({profile, sums}) : sums;
    }
    if (needs.square) {
      const Tensor sum = flat.square().sum(0, false, at::kDouble);  // (n)
      square = square.defined() ? square + sum : sum;
    }
    if (needs.middle) {  // Wei et al.: Outlier Suppression+, arXiv 2304.09145; the running rule is that of OmniQuant's script
      const Tensor each = x.reshape({-1, x.dim() > 2 ? x.size(-2) : flat.size(0), n});  // (sequences, tokens, n)
      const Tensor middles = (each.amax(1) + each.amin(1)) / 2;                         // (sequences, n)
      for (int64_t i = 0; i < middles.size(0); ++i) middle = middle.defined() ? 0.99 * middle + 0.01 * middles[i] : middles[i];
    }
    if (needs.hessian) {
      if (!hessian.defined()) hessian = at::zeros({n, n}, flat.options());
      add_gram(hessian, flat);
    }
    if (needs.cross) {
      if (!reference.defined()) fail("cross statistics need the reference input");
      if (!cross.defined()) cross = at::zeros({n, n}, flat.options());
      cross.addmm_((reference.reshape({-1, n}) - flat).t(), flat);
    }
    sequences += x.dim() > 2 ? x.size(0) : 1;
    tokens += flat.size(0);
  }

  /// Completes the Hessian's lower triangle.
  void finish() {
    if (hessian.defined()) hessian = mirror(hessian);
  }

 private:
  static void update(Tensor& kept, const Tensor& now, bool upper) {
    kept = !kept.defined() ? now : upper ? at::maximum(kept, now) : at::minimum(kept, now);
  }
};

}  // namespace ptq
