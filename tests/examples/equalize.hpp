// Cross-layer equalization: of two linears in a row, the rows of the first and the columns of the second get the same range.
#pragma once

#include <ptq/smoothing.hpp>

namespace ptq {

/// s_j = (r_j / c_j)^β,   x Wᵀ = (x / s)(W diag(s))ᵀ, 1/s folded into the rows of V that make x
/// Nagel et al.: Data-free quantization through weight equalization and bias correction, arXiv 1906.04721, eq. 11.
/// r_j = max|V_j,:| is the range of a row of V, c_j = max|W_:,j| that of the column of W which reads it. β = 1/2: both become √(r_j c_j).
struct Equalize {
  static constexpr std::string_view tag = "equalize";

  double exponent = 0.5;  ///< β; 0: nothing moves, 1: the two ranges change places
  double min = 1e-5;      ///< floor of r and c: dead rows and columns stay harmless

  [[nodiscard]] constexpr Needs needs() const { return {}; }
  [[nodiscard]] Stream source() const { return Stream::reference; }
  [[nodiscard]] std::vector<Learnable> learnable() const { return {}; }
  [[nodiscard]] Reason refuses(const Scheme&) const {
    if (!(exponent >= 0 && exponent <= 1)) return "smoothing.exponent must lie in [0, 1], it is " + number_text(exponent);
    if (!(min > 0)) return "smoothing.min must be positive, it is " + number_text(min);
    return {};
  }

  /// State: "s.<group>" (width) for every input group that a linear makes: v → o, up → down, fc1 → fc2.
  [[nodiscard]] NamedTensors start(const Layout& layout, const BlockParameters& block, const std::vector<Statistics>&) const {
    NamedTensors state;
    for (const FoldSite& fold : layout.folds) {
      if (fold.source != FoldSite::Source::linear) continue;
      const InputGroup& group = layout.groups[static_cast<size_t>(fold.group)];
      Tensor columns;  // (width) of all readers
      for (const int site : group.sites) {
        const Tensor range = block.linears[static_cast<size_t>(site)].weight.abs().amax(0);
        columns = columns.defined() ? at::maximum(columns, range) : range;
      }
      const int64_t head = fold.repeat > 1 ? fold.head : columns.size(0);                       // value heads serve `repeat` query heads
      columns = columns.reshape({-1, fold.repeat, head}).amax(1);                               // (value heads, head)
      const Tensor rows = block.linears[static_cast<size_t>(fold.index)].weight.abs().amax(1);  // (out of V)
      const Tensor ratio = rows.reshape({-1, head}).clamp_min(min) / columns.clamp_min(min);    // (value heads, head)
      const Tensor s = ratio.pow(exponent).unsqueeze(1).expand({-1, fold.repeat, -1});          // (value heads, repeat, head)
      state["s." + group.name] = s.reshape({-1});
    }
    return state;
  }

  [[nodiscard]] BlockParameters fuse(const Layout& layout, const BlockParameters& block, const NamedTensors& state) const {
    BlockParameters fused = block;
    for (const FoldSite& fold : layout.folds) {
      const auto found = state.find("s." + layout.groups[static_cast<size_t>(fold.group)].name);
      if (found != state.end() && fold.source == FoldSite::Source::linear) divide_input(fused, layout, fold, found->second, true);
    }
    return fused;
  }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::Equalize, exponent, min);
