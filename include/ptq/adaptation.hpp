// Adaptation: what is refitted on the unlabelled test stream?
#pragma once

#include <cstdint>

#include <ptq/core/policy.hpp>

namespace ptq {

/// Which text one adaptation sees before it is scored.
enum class AdaptationScope { nothing, data_set, segment };

/// Minimal definition: `scope`, `steps`.                                                             Null object: NoAdaptation
/// Laws: zero steps are the identity, bit for bit; nothing is written back into the committed run.
template <class P>
concept Adaptation = Policy<P> && requires(const P p) {
  { p.scope() } -> std::same_as<AdaptationScope>;
  { p.steps() } -> std::same_as<int64_t>;
};

struct NoAdaptation {
  static constexpr std::string_view tag = "none";

  [[nodiscard]] constexpr AdaptationScope scope() const { return AdaptationScope::nothing; }
  [[nodiscard]] int64_t steps() const { return 0; }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::NoAdaptation);
