// Rounding: how does a weight become a coordinate on the grid?
#pragma once

#include <optional>

#include <ptq/core/policy.hpp>
#include <ptq/core/straight_through.hpp>

namespace ptq {

/// What a rounding is to a solver: data, indexed by original column. An undefined grid leaves it to the solver.
struct Coordinates {
  std::optional<Grid> grid;
  Tensor divisor;  // (out, in) whole divisor s·S of each weight: the code is the one nearest to w / divisor; undefined: s
};

/// A rounding maps a weight to a real coordinate on a grid; the code is the nearest grid point, the dequantized value the grid's own.
/// Minimal definition: `start`, `learnable`, `weight`, `coordinates`.                                Null object: Nearest
/// Laws: codes in range; rounding a rounded weight changes nothing; at the start a learned rounding is plain rounding;
///       with Direct, the committed weight is bit for bit `weight(state, w, scheme)`.
template <class P>
concept Rounding = Policy<P> && requires(const P p, const NamedTensors& state, const Tensor& w, const Scheme& scheme) {
  { p.start(w, scheme) } -> std::same_as<NamedTensors>;  // what is learned at one linear; empty: nothing
  { p.learnable() } -> std::same_as<std::vector<Learnable>>;
  { p.weight(state, w, scheme) } -> std::same_as<Tensor>;            // fake-quantized, differentiable in state and w
  { p.coordinates(state, w, scheme) } -> std::same_as<Coordinates>;  // what the solver gets
};

/// w / s, the range fitted to the current weight: nothing to learn.
struct Nearest {
  static constexpr std::string_view tag = "nearest";

  [[nodiscard]] NamedTensors start(const Tensor&, const Scheme&) const { return {}; }
  [[nodiscard]] std::vector<Learnable> learnable() const { return {}; }
  [[nodiscard]] Tensor weight(const NamedTensors&, const Tensor& w, const Scheme& scheme) const { return fake_quantize_through(w, scheme); }
  [[nodiscard]] Coordinates coordinates(const NamedTensors&, const Tensor&, const Scheme&) const { return {}; }
  [[nodiscard]] Reason refuses(const Scheme&) const { return {}; }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::Nearest);
