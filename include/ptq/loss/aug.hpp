// The augmented term: a loss against the float block on the learned block's own input.
#pragma once

#include <ptq/loss.hpp>

namespace ptq {

/// L(B(x_q), B_q(x_q)) beside L(B(x), B_q(x_q)): what this block adds to the error, apart from what it was given.
/// Shao et al.: OmniQuant, arXiv 2308.13137, whose code calls it aug_loss and uses Mse.
template <Loss L = Mse>
struct Aug {
  static constexpr std::string_view tag = joined_tags<'_', Tagged<'a', 'u', 'g'>, L>.text();
  static constexpr bool reads_own_target = true;

  L loss{};

  template <class Visit>
  void each(const Visit& visit) {
    ptq::detail::visit_members(loss, visit);
  }
  template <class Visit>
  void each(const Visit& visit) const {
    ptq::detail::visit_members(loss, visit);
  }

  [[nodiscard]] Tensor operator()(const Tensor& target, const Tensor& output) const { return loss(target, output); }
  [[nodiscard]] Tensor operator()(const Targets& targets, const Tensor& output) const { return loss(targets.own, output); }
  [[nodiscard]] bool averages() const { return loss.averages(); }
  [[nodiscard]] Reason refuses(const Scheme& scheme) const {
    if constexpr (requires { loss.refuses(scheme); }) return loss.refuses(scheme);
    return {};
  }
};

}  // namespace ptq
