// Rotary position embedding: pairs (i, i + d/2) of a head turn by position × frequency.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include <ptq/core/tensor.hpp>
#include <ptq/io/model_config.hpp>

namespace ptq {

/// Angle per position of each pair, in radians: f_i = θ^(−2i/d), stretched as the model was trained for longer texts.
/// Su et al., RoFormer, arXiv 2104.09864, eq. 15; `dynamic` depends on the length of the sequence, the other kinds do not.
[[nodiscard]] inline std::vector<double> rope_frequencies(const ModelConfig& config, int64_t length) {
  const RopeScaling& rope = config.rope;
  const auto d = static_cast<double>(config.head_dim);
  double theta = config.rope_theta;
  if (rope.kind == RopeKind::dynamic && length > rope.original) {
    // NTK-aware base: θ (s L / L₀ − (s − 1))^(d / (d − 2))
    const double stretch = rope.factor * static_cast<double>(length) / static_cast<double>(rope.original) - (rope.factor - 1);
    theta *= std::pow(stretch, d / (d - 2));
  }
  std::vector<double> frequencies(static_cast<size_t>(config.head_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    double f = std::pow(theta, -2.0 * static_cast<double>(i) / d);
    if (rope.kind == RopeKind::linear) f /= rope.factor;
    if (rope.kind == RopeKind::divisors) f /= rope.divisors.at(i);
    if (rope.kind == RopeKind::llama3) {
      // Turns over the first training's context decide: many turns stay, few are slowed, between them a blend.
      const double turns = static_cast<double>(rope.original) * f / (2 * std::numbers::pi);
      const double keep = std::clamp((turns - rope.low) / (rope.high - rope.low), 0.0, 1.0);
      f = (1 - keep) * f / rope.factor + keep * f;
    }
    frequencies[i] = f;
  }
  return frequencies;
}

/// Cosines and sines of every position and pair.
struct Rotary {
  Tensor cos, sin;  // (tokens, d/2)
};

/// The table of positions 0 … tokens − 1; angles in double, stored as `options` say.
[[nodiscard]] inline Rotary rotary(const ModelConfig& config, int64_t tokens, const at::TensorOptions& options) {
  auto frequencies = rope_frequencies(config, tokens);
  const Tensor f = at::from_blob(frequencies.data(), {config.head_dim / 2}, at::kDouble);  // (d/2)
  const Tensor angle = at::outer(at::arange(tokens, at::dtype(at::kDouble)), f);           // (tokens, d/2)
  return {at::cos(angle).to(options), at::sin(angle).to(options)};
}

/// (a, b) → (a cos − b sin, b cos + a sin) for the halves a, b of each head. x (batch, tokens, heads, d) → the same.
[[nodiscard]] inline Tensor rotate(const Tensor& x, const Rotary& table) {
  const int64_t half = x.size(-1) / 2;
  const Tensor cos = table.cos.unsqueeze(1), sin = table.sin.unsqueeze(1);  // (tokens, 1, d/2)
  const Tensor a = x.narrow(-1, 0, half), b = x.narrow(-1, half, half);     // (batch, tokens, heads, d/2)
  return at::cat({at::addcmul(a * cos, b, sin, -1), at::addcmul(b * cos, a, sin)}, -1);
}

}  // namespace ptq
