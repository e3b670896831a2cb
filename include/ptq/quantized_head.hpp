// The output head on a grid: plain rounding, for it is the model's last linear and sees no error feedback.
#pragma once

#include <ptq/core/quantized_linear.hpp>
#include <ptq/model/parameters.hpp>

namespace ptq {

/// Replaces the head's weight by its rounded values; the embedding that may share its tensor stays as it is. Returns the stored bits;
/// nothing happens under the format none.
inline BitCount quantize_head(Head& head, const Scheme& scheme) {
  if (!scheme.active()) return {};
  QuantizedLinear q;
  q.grid = fit_grid(head.weight, scheme);
  q.codes = quantize(head.weight, q.grid);
  head.weight = q.weight();
  return q.bits();
}

}  // namespace ptq
