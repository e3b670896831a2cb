// Learned weight clipping: the range of every row or group shrinks by learned shares of its ends.
#pragma once

#include <ptq/rounding.hpp>

namespace ptq {

/// Ŵ = s (clamp(rne(W / s) + z) − z) on the range σ(l) min W … σ(u) max W, taken anew from the weight of each step
/// Shao et al.: OmniQuant, ICLR 2024, arXiv 2308.13137, eq. 2 (learnable weight clipping); as its released code and LRQuant's have it:
/// the zero point is rounded and has no gradient, the extremes of W have theirs.
struct LearnedClip {
  static constexpr std::string_view tag = "learned_clip";
  static constexpr bool learns_range = true;

  double rate = 1e-2;      ///< of both logits
  double start_logit = 4;  ///< where u and l begin: σ(4) = 0.982 of each end is kept; at 40 and above the range is min-max

  /// State: up, low (out or 1, groups) logits of the kept shares.
  [[nodiscard]] NamedTensors start(const Tensor& w, const Scheme& scheme) const {
    const Tensor low = parts(w.detach(), scheme).amin(-1);  // (out or 1, groups)
    return {{"up", at::full_like(low, start_logit)}, {"low", at::full_like(low, start_logit)}};
  }
  [[nodiscard]] std::vector<Learnable> learnable() const {
    if (rate == 0) return {};
    return {{{"up", "low"}, rate}};
  }
  [[nodiscard]] Tensor weight(const NamedTensors& state, const Tensor& w, const Scheme& scheme) const {
    const Tensor x = rows(w, scheme);  // (out or 1, columns)
    const int64_t group = scheme.granularity == Granularity::group ? scheme.group : 0;
    const Ranged ends = with_range(x, group);
    const auto [low, high] = clipped(state, ends.low, ends.high);
    const Grid g = grid(low, high, scheme);
    const Tensor rounded = fake_quantize(w.detach(), g), step = range_step(convention(scheme), low, high);  // (out or 1, groups)
    return straight_through(ends.x, rounded.view(x.sizes()), step, g.scale, g.zero, group, g.lowest, g.highest).reshape(w.sizes());
  }
  [[nodiscard]] Coordinates coordinates(const NamedTensors& state, const Tensor& w, const Scheme& scheme) const {
    const c10::NoGradGuard off;
    const Tensor x = parts(w, scheme);  // (out or 1, groups, each)
    const auto [low, high] = clipped(state, x.amin(-1), x.amax(-1));
    return {grid(low, high, scheme), {}};
  }
  [[nodiscard]] Reason refuses(const Scheme& scheme) const {
    if (!(rate >= 0)) return "rounding.rate must not be negative, it is " + number_text(rate);
    if (scheme.block_float() || scheme.kind != NumberKind::integer)
      return "a learned clip needs a step that can move: an int format, not " + scheme.text();
    if (scheme.search) return "a learned clip takes the place of the search; drop :search from " + scheme.text();
    return {};
  }

 private:
  /// (out, groups, each), or the whole matrix as (1, 1, out · in).
  [[nodiscard]] static Tensor parts(const Tensor& w, const Scheme& scheme) {
    if (scheme.granularity == Granularity::tensor) return w.reshape({1, 1, -1});
    return w.reshape({w.size(0), group_count(scheme, w.size(1), "weight " + shape_text(w)), -1});
  }
  /// (out, columns), or the whole matrix as one row.
  [[nodiscard]] static Tensor rows(const Tensor& w, const Scheme& scheme) {
    if (scheme.granularity == Granularity::tensor) return w.reshape({1, -1});
    (void)group_count(scheme, w.size(1), "weight " + shape_text(w));
    return w;
  }
  /// Both ends of the range that is kept of [low, high], (out or 1, groups).
  [[nodiscard]] static std::pair<Tensor, Tensor> clipped(const NamedTensors& state, const Tensor& low, const Tensor& high) {
    return {low * at::sigmoid(state.at("low")), high * at::sigmoid(state.at("up"))};
  }
  [[nodiscard]] static Grid grid(const Tensor& low, const Tensor& high, const Scheme& scheme) {
    const auto how = convention(scheme);
    const auto codes = kernels::code_range(how);
    Grid g{scheme, at::empty_like(low), at::empty(low.sizes(), at::kInt), {}, codes.lo, codes.hi};
    const Tensor lo = low.detach().contiguous(), hi = high.detach().contiguous();
    detail::by_scalar(lo, "a grid", [&]<class T>(T) {
      for (int64_t i = 0; i < lo.numel(); ++i)
        kernels::grid_from_range<T>(how, lo.const_data_ptr<T>()[i], hi.const_data_ptr<T>()[i], g.scale.mutable_data_ptr<T>()[i],
                                    g.zero.mutable_data_ptr<int32_t>()[i]);
    });
    return g;
  }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::LearnedClip, rate, start_logit);
