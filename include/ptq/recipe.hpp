// A recipe composes one policy of each axis into a method. What cannot work does not compile, and says what to use instead.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include <ptq/adaptation.hpp>
#include <ptq/core/learning.hpp>
#include <ptq/core/precision.hpp>
#include <ptq/correction.hpp>
#include <ptq/loss.hpp>
#include <ptq/rounding.hpp>
#include <ptq/smoothing.hpp>
#include <ptq/solver.hpp>

namespace ptq {

/// Traits that cross-axis rules read; a policy states what is unusual about it.
template <class P>
inline constexpr bool learns_range = requires {
  requires P::learns_range;
};  ///< a rounding that learns the clipping range
template <class P>
inline constexpr bool owns_grid = requires {
  requires P::owns_grid;
};  ///< a solver that makes its own levels (codebooks)
template <class P>
inline constexpr bool keeps_powers = requires {
  requires P::keeps_powers;
};  ///< a learned rounding that leaves a step alone where it is a power of two
template <class V>
inline constexpr bool column_solver = [] {
  if constexpr (Solver<V>) return V{}.needs().hessian;
  return false;
}();
template <class A>
inline constexpr bool refits_segments = [] {
  if constexpr (Adaptation<A>) return A{}.scope() == AdaptationScope::segment;
  return false;
}();

/// The cross-axis rules of types; those of numbers are in refuses().
template <class R, class V, class A>
inline constexpr bool composable = !(learns_range<R> && owns_grid<V>)&&!(refits_segments<A> && column_solver<V>);

/// rounding × smoothing × loss × solver × correction × adaptation; each defaults to its null object, so Recipe<> is round-to-nearest.
/// Policy types are the algorithm, their values hyperparameters.
template <class R = Nearest, class S = NoSmoothing, class L = Mse, class V = Direct, class C = NoCorrection, class A = NoAdaptation>
struct Recipe {
  static_assert(Rounding<R>, "Recipe: the first axis takes a Rounding, such as Nearest");
  static_assert(Smoothing<S>, "Recipe: the second axis takes a Smoothing, such as NoSmoothing or SmoothQuant");
  static_assert(Loss<L>, "Recipe: the third axis takes a Loss, such as Mse");
  static_assert(Solver<V>, "Recipe: the fourth axis takes a Solver, such as Direct or Gptq");
  static_assert(Correction<C>, "Recipe: the fifth axis takes a Correction, such as NoCorrection, Lqer, L2qer or Qera");
  static_assert(Adaptation<A>, "Recipe: the sixth axis takes an Adaptation, such as NoAdaptation");
  static_assert(
      !(learns_range<R> && owns_grid<V>),
      "Recipe: a solver with its own codebooks has no range to clip; use Nearest or a rounding with a divisor, or another solver");
  static_assert(!(refits_segments<A> && column_solver<V>),
                "Recipe: the Hessian of one segment has no rank; use the adaptation per data set, or Direct as the solver");

  static constexpr std::string_view tag = "recipe";

  R rounding{};
  S smoothing{};
  L loss{};
  V solver{};
  C correction{};
  A adaptation{};
  Learning learning{};

  template <class Visit>
  void each(const Visit& visit) {
    parts(*this, visit);
  }
  template <class Visit>
  void each(const Visit& visit) const {
    parts(*this, visit);
  }

 private:
  template <class Self, class Visit>
  static void parts(Self& self, const Visit& visit) {
    visit("rounding", self.rounding), visit("smoothing", self.smoothing), visit("loss", self.loss), visit("solver", self.solver);
    visit("correction", self.correction), visit("adaptation", self.adaptation), visit("learning", self.learning);
  }
};

namespace detail {

template <class P>
Reason ask_refuses(const P& policy, const Scheme& scheme) {
  if constexpr (requires { policy.refuses(scheme); }) return policy.refuses(scheme);
  return {};
}

}  // namespace detail

/// Whether anything is learned by gradient.
template <class... Axes>
[[nodiscard]] bool learns(const Recipe<Axes...>& r) {
  return !r.rounding.learnable().empty() || !r.smoothing.learnable().empty();
}

/// The name of a composition: its parts but the null ones, with the fields that differ from their defaults. Parts that change nothing
/// are left out, so equal names mean equal results.
template <class... Axes>
[[nodiscard]] std::string label(const Recipe<Axes...>& r) {
  std::string all;
  const auto add = [&](const std::string& part) { all += (all.empty() ? "" : " + ") + part; };
  if (label(r.smoothing) != label(NoSmoothing{})) add(label(r.smoothing));
  if (label(r.rounding) != label(Nearest{})) add(label(r.rounding));
  if (label(r.solver) != label(Direct{})) add(label(r.solver));
  if (label(r.correction) != label(NoCorrection{})) add(label(r.correction));
  if (learns(r)) add(label(r.loss));
  if (learns(r) && label(r.learning) != label(Learning{})) add(label(r.learning));
  if (r.adaptation.steps() > 0) add(label(r.adaptation));
  return all.empty() ? "rtn" : all;
}

/// Why the recipe cannot run at this precision; empty: it can. Known before the first forward.
template <class... Axes>
[[nodiscard]] Reason refuses(const Recipe<Axes...>& r, const Precision& precision) {
  std::vector<Scheme> schemes{precision.weights};
  for (const auto& [pattern, scheme] : precision.overrides)
    if (pattern != "head") schemes.push_back(scheme);
  for (const Scheme& s : schemes) {
    Reason why;
    const bool learned = !r.rounding.learnable().empty(), power = s.block_float() || s.kind == NumberKind::fixed;
    if (learned && s.kind == NumberKind::minifloat)
      why = "the values of a minifloat cannot be learned; use an int format, not " + s.text() + ", or the rounding nearest";
    else if (learned && power && !keeps_powers<std::remove_cvref_t<decltype(r.rounding)>>)
      why = "a step that is a power of two cannot be learned; use an int format, not " + s.text() + ", or the rounding nearest";
    r.each([&](const std::string&, const auto& policy) {
      if (why.empty()) why = detail::ask_refuses(policy, s);
    });
    if (!why.empty()) return why;
  }
  return {};
}

/// Why the recipe gives exactly what a simpler one gives; empty: it does not.
template <class... Axes>
[[nodiscard]] Reason redundant(const Recipe<Axes...>& r, const Precision& precision) {
  if (!learns(r) && label(r.loss) != label(Mse{})) return "a loss where nothing is learned";
  if (r.adaptation.scope() != AdaptationScope::nothing && r.adaptation.steps() == 0) return "an adaptation of zero steps";
  if (r.adaptation.steps() > 0 && !learns(r) && !r.solver.needs().any())
    return "an adaptation where nothing is learned and the solver needs no data";
  Reason why;
  r.each([&](const std::string&, const auto& policy) {
    if constexpr (requires { policy.redundant(precision); })
      if (why.empty()) why = policy.redundant(precision);
  });
  return why;
}

}  // namespace ptq
