// Small policies written only for tests: they exercise the seams of learned roundings, codebooks and adaptation.
#pragma once

#include <ptq/recipe.hpp>
#include <ptq/solver/gptq.hpp>

namespace ptq::test {

/// Every weight has a divisor of its own: code = nearest(w / (s · exp(A))), s = exp(l), both learned; rounding passes gradients through.
struct ToyDivisor {
  static constexpr std::string_view tag = "toy_divisor";
  double rate = 1e-3;

  [[nodiscard]] NamedTensors start(const Tensor& w, const Scheme& scheme) const {
    const Grid g = fit_grid(w, scheme);
    return {{"l", g.scale.log()}, {"a", at::zeros_like(w)}, {"zero", g.zero}};
  }
  [[nodiscard]] std::vector<Learnable> learnable() const { return {{{"l", "a"}, rate}}; }
  [[nodiscard]] Tensor weight(const NamedTensors& state, const Tensor& w, const Scheme& scheme) const {
    const Grid g = grid(state, scheme);
    const int64_t each = w.size(1) / state.at("l").size(1);
    const Tensor s = state.at("l").exp().repeat_interleave(each, 1);         // (rows or 1, cols)
    const Tensor z = g.zero.to(w.scalar_type()).repeat_interleave(each, 1);  // (rows or 1, cols)
    const Tensor u = w / divisor(state, w);                                  // (rows, cols)
    const Tensor q = at::minimum(at::maximum(u + (u.round() - u).detach(), g.lowest - z), g.highest - z);
    return q * s;
  }
  [[nodiscard]] Coordinates coordinates(const NamedTensors& state, const Tensor& w, const Scheme& scheme) const {
    return {grid(state, scheme), divisor(state, w)};
  }
  [[nodiscard]] Reason refuses(const Scheme& scheme) const {
    return scheme.range == Range::gptq ? "" : "the toy divisor rounds on ranges of gptq";
  }

 private:
  static Grid grid(const NamedTensors& state, const Scheme& scheme) {
    const auto codes = kernels::code_range(convention(scheme));
    return {scheme, state.at("l").detach().exp(), state.at("zero"), {}, codes.lo, codes.hi};
  }
  static Tensor divisor(const NamedTensors& state, const Tensor& w) {
    const Tensor l = state.at("l").repeat_interleave(w.size(1) / state.at("l").size(1), 1);
    return (l + state.at("a")).exp().expand_as(w);
  }
};

/// Plain rounding that claims to learn its clipping range.
struct ToyClip : Nearest {
  static constexpr std::string_view tag = "toy_clip";
  static constexpr bool learns_range = true;
};

/// Plain rounding that claims to make its own levels.
struct ToyCodebook : Direct {
  static constexpr std::string_view tag = "toy_codebook";
  static constexpr bool owns_grid = true;
  [[nodiscard]] Reason refuses(const Scheme& scheme) const {
    return scheme.granularity == Granularity::group ? "a codebook has no groups; choose :channel" : "";
  }
};

struct ToyEpisodic {
  static constexpr std::string_view tag = "toy_episodic";
  int64_t times = 3;
  [[nodiscard]] constexpr AdaptationScope scope() const { return AdaptationScope::segment; }
  [[nodiscard]] int64_t steps() const { return times; }
  [[nodiscard]] Refit refit() const { return {.epochs = times}; }
};

struct ToyTta {
  static constexpr std::string_view tag = "toy_tta";
  int64_t times = 3;
  [[nodiscard]] constexpr AdaptationScope scope() const { return AdaptationScope::data_set; }
  [[nodiscard]] int64_t steps() const { return times; }
  [[nodiscard]] Refit refit() const { return {.epochs = times}; }
};

}  // namespace ptq::test
BOOST_HANA_ADAPT_STRUCT(ptq::test::ToyDivisor, rate);
BOOST_HANA_ADAPT_STRUCT(ptq::test::ToyClip);
BOOST_HANA_ADAPT_STRUCT(ptq::test::ToyCodebook);
BOOST_HANA_ADAPT_STRUCT(ptq::test::ToyEpisodic, times);
BOOST_HANA_ADAPT_STRUCT(ptq::test::ToyTta, times);
