// The output head on a grid: plain rounding, for it is the model's last linear and sees no error feedback.
#pragma once

#include <optional>

#include <ptq/core/quantized_linear.hpp>
#include <ptq/model/parameters.hpp>

namespace ptq {

/// The head's artefact, or nothing under the format none. weight (vocab, hidden).
[[nodiscard]] inline std::optional<QuantizedLinear> quantized_head(const Tensor& weight, const Scheme& scheme) {
  if (!scheme.active()) return std::nullopt;
  QuantizedLinear q;
  q.grid = fit_grid(weight, scheme);
  q.codes = quantize(weight, q.grid);
  return q;
}

/// Replaces the head's weight by its rounded values; the embedding that may share its tensor stays as it is. Returns the stored bits.
inline BitCount quantize_head(Head& head, const Scheme& scheme) {
  const auto q = quantized_head(head.weight, scheme);
  if (!q) return {};
  head.weight = q->weight();
  return q->bits();
}

}  // namespace ptq
