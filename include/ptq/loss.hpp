// Loss: how far is the block's output off?
#pragma once

#include <ptq/core/policy.hpp>

namespace ptq {

/// Whether a loss sums over tokens (FlexRound, LRQ) or averages (LRQuant); features are averaged in both.
enum class Reduce { sum, mean };
template <>
struct EnumNames<Reduce> {
  static constexpr std::array<std::string_view, 2> names{"sum", "mean"};
};

/// Minimal definition: call operator, `averages`. A loss that compares with both targets also has an operator of (Targets, output).
/// Laws: smallest at equality; finite on finite input; a scalar of the outputs' dtype that autograd can follow.
template <class P>
concept Loss = Policy<P> && requires(const P p, const Tensor& target, const Tensor& output) {
  { p(target, output) } -> std::same_as<Tensor>;  // (B, T, n), (B, T, n) → scalar
  { p.averages() } -> std::same_as<bool>;         // whether the value is a mean over tokens
};

/// What the output of the learned block may be compared with.
struct Targets {
  Tensor reference;  // (B, T, n) the float block on the reference stream
  Tensor own;        // (B, T, n) the float block on the learned block's own input; undefined where no loss asks
};

/// Whether a loss reads Targets::own, which costs one more pass of the float block.
template <class P>
inline constexpr bool reads_own_target = requires {
  requires P::reads_own_target;
};

/// The loss of an output, whichever targets it reads.
template <class P>
[[nodiscard]] Tensor loss_value(const P& loss, const Targets& targets, const Tensor& output) {
  if constexpr (requires { loss(targets, output); })
    return loss(targets, output);
  else
    return loss(targets.reference, output);
}

/// ‖F − Q‖² averaged over features, over samples, and summed or averaged over tokens
/// FlexRound, arXiv 2306.00317 (sum); LRQuant, ACL 2024 (mean).
struct Mse {
  static constexpr std::string_view tag = "mse";
  Reduce reduce = Reduce::mean;

  [[nodiscard]] Tensor operator()(const Tensor& target, const Tensor& output) const {
    const Tensor mean = at::mse_loss(output, target);  // scalar
    return reduce == Reduce::mean || output.dim() < 2 ? mean : mean * output.size(-2);
  }
  [[nodiscard]] bool averages() const { return reduce == Reduce::mean; }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::Mse, reduce);
