// x Wᵀ + b, by the fastest exact multiplication at hand.
#pragma once

#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <utility>

#include <ptq/core/tensor.hpp>

namespace ptq {
namespace detail {

/// oneDNN's float32 product, which runs on every instruction set alike; at::linear's MKL holds back on processors of other makers
/// (measured on a Zen 5: 2.3 times slower). An operator of libtorch without a header, hence by name.
inline const std::optional<c10::OperatorHandle>& onednn_linear() {
  static const auto found = at::hasMKLDNN() ? c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""}) : std::nullopt;
  return found;
}

}  // namespace detail

/// x Wᵀ + b. x (…, in), weight (out, in), bias (out) or undefined → (…, out), of x's type. Differentiable; where no gradient is wanted,
/// float32 on the CPU goes through oneDNN.
[[nodiscard]] inline Tensor affine(const Tensor& x, const Tensor& weight, const Tensor& bias = {}) {
  const std::optional<Tensor> b = bias.defined() ? std::optional(bias) : std::nullopt;
  const auto plain = [](const Tensor& t) { return t.is_cpu() && t.scalar_type() == at::kFloat && t.layout() == at::kStrided; };
  const bool grad = at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad() || (b && b->requires_grad()));
  const auto& op = detail::onednn_linear();
  if (grad || !op || !plain(x) || !plain(weight) || (b && !plain(*b)) || x.numel() == 0) return at::linear(x, weight, b);
  std::vector<c10::IValue> stack{x.contiguous(), weight.contiguous(), b, "none", c10::List<std::optional<at::Scalar>>(), std::string()};
  op->callBoxed(&stack);
  return std::move(stack.front()).toTensor();
}

}  // namespace ptq
