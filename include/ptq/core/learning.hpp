// How parameters are minimised: optimizer, steps, order, schedule. Learning rates belong to the policies that own the parameters.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include <ptq/core/describe.hpp>
#include <ptq/core/scheme.hpp>
#include <ptq/kernels/isa.hpp>

namespace ptq {

enum class Optimizer { adam, adamw };
enum class Schedule { constant, cosine };
enum class SampleOrder { sequential, shuffled };
/// What is kept: the last iterate, or the best on the tracked sequences (on mini-batches where none are tracked).
enum class Iterate { last, best };

template <>
struct EnumNames<Optimizer> {
  static constexpr std::array<std::string_view, 2> names{"adam", "adamw"};
};
template <>
struct EnumNames<Schedule> {
  static constexpr std::array<std::string_view, 2> names{"constant", "cosine"};
};
template <>
struct EnumNames<SampleOrder> {
  static constexpr std::array<std::string_view, 2> names{"sequential", "shuffled"};
};
template <>
struct EnumNames<Iterate> {
  static constexpr std::array<std::string_view, 2> names{"last", "best"};
};

/// Where the learned block's input comes from; its target is always the float block's output on the reference stream.
enum class LearningInput { quantized, reference };
template <>
struct EnumNames<LearningInput> {
  static constexpr std::array<std::string_view, 2> names{"quantized", "reference"};
};

/// In what the linears of a learned block multiply, forward and back: float32, or factors rounded to bfloat16.
enum class LearningProducts { f32, bf16 };
template <>
struct EnumNames<LearningProducts> {
  static constexpr std::array<std::string_view, 2> names{"f32", "bf16"};
};

struct Learning {
  static constexpr std::string_view tag = "learning";

  Optimizer optimizer = Optimizer::adam;
  int64_t steps = 0;  ///< updates a block; 0: `epochs` times the number of batches
  int64_t epochs = 20;
  int64_t batch = 1;  ///< sequences an update
  SampleOrder order = SampleOrder::sequential;
  Schedule schedule = Schedule::constant;
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;  ///< meant for a loss summed over tokens; divided by the number of tokens when the loss averages
  double decay = 0;       ///< AdamW's weight decay
  LearningInput input = LearningInput::quantized;
  LearningProducts products = LearningProducts::f32;  ///< bf16: about half the time of a product, where the machine has it
  bool activations = true;  ///< formats of activations and attention are on while learning; false: weights alone are rounded
  Iterate keep = Iterate::last;
  int64_t tracked = 4;   ///< sequences on which the loss is followed from the start to what is kept; 0: none
  double growth = 100;   ///< learning has diverged when that loss is so many times the start's; 0: only when it is not finite
  int64_t restarts = 0;  ///< a block that diverged begins again, at half the rates, at most so many times

  /// Why these numbers mean nothing, whatever the format; empty: they do.
  [[nodiscard]] std::string refuses(const Scheme&) const {
    if (steps < 0) return cat("learning.steps must not be negative, it is ", steps);
    if (epochs < 0) return cat("learning.epochs must not be negative, it is ", epochs);
    if (batch < 1) return cat("learning.batch must be at least 1, it is ", batch);
    for (const double beta : {beta1, beta2})
      if (!(beta >= 0 && beta < 1)) return "learning.beta1 and learning.beta2 must lie in [0, 1), one is " + number_text(beta);
    if (!(epsilon > 0)) return "learning.epsilon must be positive, it is " + number_text(epsilon);
    if (tracked < 0) return cat("learning.tracked must not be negative, it is ", tracked);
    if (!(growth == 0 || growth > 1)) return "learning.growth must be 0 or above 1, it is " + number_text(growth);
    if (restarts < 0 || restarts > 30) return cat("learning.restarts must lie in 0 to 30, it is ", restarts);
    if (products == LearningProducts::bf16 && !kernels::multiplies_bfloat16())
      return "learning.products bf16 needs a processor that multiplies bfloat16 (AVX-512 BF16 or AMX); use f32";
    if (!(decay >= 0)) return "learning.decay must not be negative, it is " + number_text(decay);
    return {};
  }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::Learning, optimizer, steps, epochs, batch, order, schedule, beta1, beta2, epsilon, decay, input, products,
                        activations, keep, tracked, growth, restarts);
