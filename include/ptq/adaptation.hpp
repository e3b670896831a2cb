// Adaptation: what is refitted on the unlabelled test stream?
#pragma once

#include <cstdint>
#include <optional>

#include <ptq/core/policy.hpp>

namespace ptq {

/// Which text one adaptation sees before it is scored.
enum class AdaptationScope { nothing, data_set, segment };

/// What a block reads while it is refitted, and what its output is compared with.
///   same_input:   the quantized stream; the float block on that same stream. Needs nothing of the float model but this block
///   full_teacher: the quantized stream; the float model's stream, as in calibration
///   literal:      embeddings; the float block on embeddings. From factors of one, activation formats off, then and afterwards
enum class RefitInput { same_input, full_teacher, literal };
template <>
struct EnumNames<RefitInput> {
  static constexpr std::array<std::string_view, 3> names{"same_input", "full_teacher", "literal"};
};

/// What an adaptation asks of whoever owns model, recipe and committed run; quantize/refit.hpp does it.
struct Refit {
  int64_t blocks = 1;  ///< the last ones
  int64_t epochs = 0;  ///< passes over the text
  int64_t batch = 1;   ///< sequences an update
  RefitInput input = RefitInput::same_input;
  std::optional<double> smoothing_rate{}, rounding_rate{};  ///< in place of the policies' own
};

/// Minimal definition: `scope`, `steps`, `refit`.                                                    Null object: NoAdaptation
/// Laws: zero steps are the identity, bit for bit; nothing is written back into the committed run.
template <class P>
concept Adaptation = Policy<P> && requires(const P p) {
  { p.scope() } -> std::same_as<AdaptationScope>;
  { p.steps() } -> std::same_as<int64_t>;  // times each sequence is seen
  { p.refit() } -> std::same_as<Refit>;
};

struct NoAdaptation {
  static constexpr std::string_view tag = "none";

  [[nodiscard]] constexpr AdaptationScope scope() const { return AdaptationScope::nothing; }
  [[nodiscard]] int64_t steps() const { return 0; }
  [[nodiscard]] Refit refit() const { return {}; }
};

/// Why a refit cannot be; empty: it can.
[[nodiscard]] inline Reason refuses_refit(const Refit& r) {
  if (r.epochs < 0) return "the passes of an adaptation must not be negative, they are " + std::to_string(r.epochs);
  if (r.blocks < 1) return "adaptation.blocks must be at least 1, it is " + std::to_string(r.blocks);
  if (r.batch < 1) return "adaptation.batch must be at least 1, it is " + std::to_string(r.batch);
  for (const auto& rate : {r.smoothing_rate, r.rounding_rate})
    if (rate && !(*rate >= 0)) return "rates of an adaptation must not be negative, one is " + number_text(*rate);
  if (r.input == RefitInput::literal && r.blocks != 1)
    return "adaptation.input=literal refits the last block alone; adaptation.blocks is more";
  return {};
}

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::NoAdaptation);
