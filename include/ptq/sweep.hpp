// Sweeps: the product of policy values on several axes, without what cannot be composed and without what another entry gives already.
#pragma once

#include <boost/hana.hpp>

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <ptq/recipe.hpp>

namespace ptq {

/// The values to try on one axis.
template <class... P>
[[nodiscard]] constexpr auto axis(P... values) {
  return boost::hana::make_tuple(values...);
}

/// What became of the entries of a sweep.
struct SweepCount {
  int64_t run = 0;
  int64_t ill_formed = 0;                  ///< pairs of types that do not compose
  std::map<std::string, int64_t> dropped;  ///< reason → entries refused at this precision, or redundant

  [[nodiscard]] int64_t total() const {
    int64_t n = run + ill_formed;
    for (const auto& [reason, count] : dropped) n += count;
    return n;
  }
};

/// The product of axes, in the order of the recipe's parameters. Values of one type cost one instantiation.
template <class R, class S, class L, class V, class C, class A>
class Sweep {
 public:
  Sweep(R roundings, S smoothings, L losses, V solvers, C corrections, A adaptations)
      : learned_(boost::hana::cartesian_product(boost::hana::make_tuple(roundings, smoothings, losses))),
        solved_(boost::hana::cartesian_product(boost::hana::make_tuple(solvers, corrections, adaptations))) {}

  /// Calls visit(recipe) for every entry whose types compose; returns how many do not.
  template <class Visit>
  int64_t for_each_composable(const Visit& visit) const {
    int64_t ill_formed = 0;
    each_half(learned_, [&]<class Ri, class Si, class Li>(const Ri& r, const Si& s, const Li& l) {
      each_half(solved_, [&]<class Vi, class Ci, class Ai>(const Vi& v, const Ci& c, const Ai& a) {
        if constexpr (composable<Ri, Vi, Ai>) {
          visit(Recipe<Ri, Si, Li, Vi, Ci, Ai>{r, s, l, v, c, a, Learning{}});
        } else {
          ++ill_formed;
        }
      });
    });
    return ill_formed;
  }

  /// Calls visit(recipe) for every entry that composes, is accepted at `precision` and is not redundant.
  template <class Visit>
  SweepCount for_each(const Precision& precision, const Visit& visit) const {
    SweepCount count;
    std::set<std::string> seen;
    count.ill_formed = for_each_composable([&](const auto& recipe) {
      if (admitted(parts(recipe), precision, seen, count)) visit(recipe);
    });
    return count;
  }

 private:
  /// visit(a, b, c) for every entry of the product of three axes.
  template <class Half, class Visit>
  static void each_half(const Half& half, const Visit& visit) {
    boost::hana::for_each(half, [&](const auto& entry) { boost::hana::unpack(entry, visit); });
  }
  static bool admitted(const Parts& recipe, const Precision& precision, std::set<std::string>& seen, SweepCount& count) {
    Reason why = refuses(recipe, precision);
    if (why.empty()) why = redundant(recipe, precision);
    if (why.empty() && !seen.insert(label(recipe)).second) why = "the same description as another entry";
    ++(why.empty() ? count.run : count.dropped[why]);
    return why.empty();
  }

  // In two halves: a tuple of hundreds of entries costs the compiler gigabytes.
  decltype(boost::hana::cartesian_product(std::declval<boost::hana::tuple<R, S, L>>())) learned_;
  decltype(boost::hana::cartesian_product(std::declval<boost::hana::tuple<V, C, A>>())) solved_;
};

/// Axes left out keep their null object.
template <class R, class S = decltype(axis(NoSmoothing{})), class L = decltype(axis(Mse{})), class V = decltype(axis(Direct{})),
          class C = decltype(axis(NoCorrection{})), class A = decltype(axis(NoAdaptation{}))>
[[nodiscard]] Sweep<R, S, L, V, C, A> sweep(R roundings, S smoothings = axis(NoSmoothing{}), L losses = axis(Mse{}),
                                            V solvers = axis(Direct{}), C corrections = axis(NoCorrection{}),
                                            A adaptations = axis(NoAdaptation{})) {
  return {roundings, smoothings, losses, solvers, corrections, adaptations};
}

}  // namespace ptq
