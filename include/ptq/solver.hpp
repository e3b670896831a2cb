// Solver: in which order, and with which feedback, are codes chosen?
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <ptq/calibration/statistics.hpp>
#include <ptq/core/policy.hpp>
#include <ptq/core/quantized_linear.hpp>
#include <ptq/core/shared.hpp>
#include <ptq/rounding.hpp>

namespace ptq {

/// In which form a solver wants to see the inputs of a linear while statistics are gathered.
enum class Observed {
  plain,    ///< the quantized stream, activations unquantized inside the layer        (GPTQ, CLAQ)
  rounded,  ///< the quantized stream, rounded to the activation format; reference: the same before rounding   (AWRQ)
  paired,   ///< the quantized stream; reference: the float model's input of the same layer                    (GPTAQ)
};

/// What a column solver does with the divisors of a learned rounding: round on the learned grid alone (S = 1), or let S choose the codes.
enum class Divisors { ignore, decide };
template <>
struct EnumNames<Divisors> {
  static constexpr std::array<std::string_view, 2> names{"ignore", "decide"};
};

/// One linear to be quantized.
struct Problem {
  std::string place;  ///< "blocks.3.self_attn.q_proj", for messages
  Tensor weight;      // (out, in) float, fused
  Scheme scheme;
  Coordinates coordinates;  ///< of the rounding
  const Statistics* stats = nullptr;
  Shared* shared = nullptr;
};

struct Solution {
  QuantizedLinear linear;                              ///< codes and grid; the caller adds bias and correction
  Tensor target;                                       // (out, in) W*: what a correction should reach
  std::vector<std::pair<std::string, double>> report;  ///< loss, damping used, …
};

/// Minimal definition: `needs`, `observed`, `solve`, `refuses`.                                          Null object: Direct
/// Laws: codes in range; the artefact dequantizes to the grid's own values; without statistics of any correlation (H = c I) a column
///       solver is plain rounding; H and c H give the same codes.
template <class P>
concept Solver = Policy<P> && requires(const P p, const Problem& problem, const Scheme& scheme) {
  { p.needs() } -> std::same_as<Needs>;
  { p.observed() } -> std::same_as<Observed>;
  { p.solve(problem) } -> std::same_as<Solution>;
  { p.refuses(scheme) } -> std::same_as<Reason>;
};

/// The grid of a problem: the rounding's, or fitted to the weight.
[[nodiscard]] inline Grid grid_of(const Problem& problem) {
  return problem.coordinates.grid ? *problem.coordinates.grid : fit_grid(problem.weight, problem.scheme);
}

/// Every weight to its nearest grid point, without feedback.
struct Direct {
  static constexpr std::string_view tag = "direct";

  [[nodiscard]] constexpr Needs needs() const { return {}; }
  [[nodiscard]] Observed observed() const { return Observed::plain; }
  [[nodiscard]] Reason refuses(const Scheme&) const { return {}; }
  [[nodiscard]] Solution solve(const Problem& problem) const {
    Solution s;
    s.linear.grid = grid_of(problem);
    s.linear.codes = quantize(problem.weight, s.linear.grid, problem.coordinates.divisor);
    s.target = problem.weight;
    return s;
  }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::Direct);
