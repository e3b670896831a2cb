// A recipe composes one policy of each axis into a method. What cannot work does not compile, and says what to use instead.
#pragma once

#include <algorithm>
#include <array>
#include <functional>
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

/// What the rules of a composition ask of one policy, its type erased: made once a policy, whatever recipes it is part of.
struct Part {
  std::string axis, tag, label;
  std::vector<std::pair<std::string, std::string>> fields;  ///< hyperparameters by path: "solver.damp"
  bool learns = false;                                      ///< by gradient
  bool reads_data = false;                                  ///< statistics of calibration tokens
  bool keeps_powers = false;                                ///< a rounding that learns on steps that are powers of two without moving them
  bool owns_grid = false;                                   ///< a solver that makes its own levels
  bool ignores_divisors = false;                            ///< a solver that lets no divisor of the rounding choose codes
  AdaptationScope scope = AdaptationScope::nothing;
  int64_t steps = 0;  ///< of an adaptation
  std::function<Reason(const Scheme&)> refuses;
  std::function<Reason(const Precision&)> redundant;
};

template <class P>
[[nodiscard]] Part part(const std::string& axis, const P& policy) {
  Part p;
  p.axis = axis, p.tag = P::tag, p.label = label(policy);
  for (const Field& f : describe(policy, axis)) p.fields.emplace_back(f.path, f.text);
  if constexpr (requires { policy.learnable(); }) p.learns = !policy.learnable().empty();
  if constexpr (requires { policy.needs(); }) p.reads_data = policy.needs().any();
  p.owns_grid = owns_grid<P>, p.keeps_powers = keeps_powers<P>;
  p.ignores_divisors = owns_grid<P>;
  if constexpr (requires { policy.divisors == Divisors::ignore; }) p.ignores_divisors = policy.divisors == Divisors::ignore;
  if constexpr (Adaptation<P>) p.scope = policy.scope(), p.steps = policy.steps();
  if constexpr (requires(const Scheme& s) { policy.refuses(s); }) p.refuses = [policy](const Scheme& s) { return policy.refuses(s); };
  if constexpr (requires(const Precision& s) { policy.redundant(s); })
    p.redundant = [policy](const Precision& s) { return policy.redundant(s); };
  return p;
}

/// A recipe as its rules see it: the six axes and how it learns.
struct Parts {
  Part rounding, smoothing, loss, solver, correction, adaptation, learning;

  [[nodiscard]] std::array<const Part*, 7> all() const {
    return {&rounding, &smoothing, &loss, &solver, &correction, &adaptation, &learning};
  }
  [[nodiscard]] bool learns() const { return rounding.learns || smoothing.learns; }
  /// Whether the loss decides anything: what is learned, or whether what an adaptation finds is kept.
  [[nodiscard]] bool uses_loss() const { return learns() || adaptation.steps > 0; }
};

template <class... Axes>
[[nodiscard]] Parts parts(const Recipe<Axes...>& r) {
  return {part("rounding", r.rounding),     part("smoothing", r.smoothing),   part("loss", r.loss),        part("solver", r.solver),
          part("correction", r.correction), part("adaptation", r.adaptation), part("learning", r.learning)};
}

/// Whether anything is learned by gradient.
template <class... Axes>
[[nodiscard]] bool learns(const Recipe<Axes...>& r) {
  return !r.rounding.learnable().empty() || !r.smoothing.learnable().empty();
}

/// The name of a composition: its parts but the null ones, with the fields that differ from their defaults. Parts that change nothing
/// are left out, so equal names mean equal results.
[[nodiscard]] inline std::string label(const Parts& r) {
  std::string all;
  const auto add = [&](const Part& p, const std::string& null) {
    if (p.label != null) all += (all.empty() ? "" : " + ") + p.label;
  };
  add(r.smoothing, label(NoSmoothing{})), add(r.rounding, label(Nearest{})), add(r.solver, label(Direct{}));
  add(r.correction, label(NoCorrection{}));
  if (r.uses_loss()) add(r.loss, "");
  if (r.learns()) add(r.learning, label(Learning{}));
  if (r.adaptation.steps > 0) add(r.adaptation, "");
  return all.empty() ? "rtn" : all;
}
template <class... Axes>
[[nodiscard]] std::string label(const Recipe<Axes...>& r) {
  return label(parts(r));
}

/// Why the recipe cannot run at this precision; empty: it can. Known before the first forward.
[[nodiscard]] inline Reason refuses(const Parts& r, const Precision& precision) {
  std::vector<Scheme> schemes{precision.weights};
  for (const auto& [pattern, scheme] : precision.overrides)
    if (pattern != "head") schemes.push_back(scheme);
  for (const Scheme& s : schemes) {
    const bool power = s.block_float() || s.kind == NumberKind::fixed;
    if (r.rounding.learns && s.kind == NumberKind::minifloat)
      return "the values of a minifloat cannot be learned; use an int format, not " + s.text() + ", or the rounding nearest";
    if (r.rounding.learns && power && !r.rounding.keeps_powers)
      return "a step that is a power of two cannot be learned; use an int format, not " + s.text() + ", or the rounding nearest";
    for (const Part* p : r.all())
      if (Reason why = p->refuses ? p->refuses(s) : Reason{}; !why.empty()) return why;
  }
  return {};
}
template <class... Axes>
[[nodiscard]] Reason refuses(const Recipe<Axes...>& r, const Precision& precision) {
  return refuses(parts(r), precision);
}

/// Whether every weight of a block is on steps that are powers of two.
[[nodiscard]] inline bool powers_of_two(const Precision& precision) {
  const auto power = [](const Scheme& s) { return !s.active() || s.block_float() || s.kind == NumberKind::fixed; };
  return power(precision.weights) && std::all_of(precision.overrides.begin(), precision.overrides.end(),
                                                 [&](const auto& o) { return o.first == "head" || power(o.second); });
}

/// Why the recipe gives exactly what a simpler one gives; empty: it does not.
[[nodiscard]] inline Reason redundant(const Parts& r, const Precision& precision) {
  if (!r.uses_loss() && r.loss.label != label(Mse{})) return "a loss where nothing is learned";
  if (r.adaptation.scope != AdaptationScope::nothing && r.adaptation.steps == 0) return "an adaptation of zero steps";
  if (r.adaptation.steps > 0 && !r.learns() && !r.solver.reads_data && !r.correction.reads_data)
    return "an adaptation where nothing is learned and neither solver nor correction needs data";
  // While a smoothing learns too, its factors follow the rounding: then it matters.
  if (r.rounding.label != label(Nearest{}) && !r.smoothing.learns && r.solver.ignores_divisors) {
    if (r.solver.owns_grid) return "a rounding that the solver, with levels of its own, does not read";
    if (r.rounding.keeps_powers && powers_of_two(precision))
      return "a rounding on steps that stay, whose divisors the solver does not read";
  }
  for (const Part* p : r.all())
    if (Reason why = p->redundant ? p->redundant(precision) : Reason{}; !why.empty()) return why;
  return {};
}
template <class... Axes>
[[nodiscard]] Reason redundant(const Recipe<Axes...>& r, const Precision& precision) {
  return redundant(parts(r), precision);
}

}  // namespace ptq
