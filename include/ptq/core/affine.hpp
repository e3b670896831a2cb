// x Wᵀ + b, by the fastest exact multiplication at hand.
#pragma once

#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <utility>
#include <vector>

#include <ptq/core/tensor.hpp>

namespace ptq {
namespace detail {

/// oneDNN's float32 product, which runs on every instruction set alike; at::linear's MKL holds back on processors of other makers
/// (measured on a Zen 5: 2.3 times slower). An operator of libtorch without a header, hence by name.
inline const std::optional<c10::OperatorHandle>& onednn_linear() {
  static const auto found = at::hasMKLDNN() ? c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""}) : std::nullopt;
  return found;
}

/// Whether it computes x Wᵀ + b of these, with no gradient wanted.
[[nodiscard]] inline bool onednn_takes(const Tensor& x, const Tensor& weight, const Tensor& bias = {}) {
  const auto plain = [](const Tensor& t) { return t.is_cpu() && t.scalar_type() == at::kFloat && t.layout() == at::kStrided; };
  const auto taught = [](const Tensor& t) { return at::GradMode::is_enabled() && t.requires_grad(); };
  const auto fits = [&](const Tensor& t) { return plain(t) && !taught(t); };
  return onednn_linear() && fits(x) && fits(weight) && (!bias.defined() || fits(bias)) && x.numel() > 0 && weight.numel() > 0;
}

}  // namespace detail

/// x Wᵀ + b. x (…, in), weight (out, in), bias (out) or undefined → (…, out), of x's type. Differentiable; where no gradient is wanted,
/// float32 on the CPU goes through oneDNN.
[[nodiscard]] inline Tensor affine(const Tensor& x, const Tensor& weight, const Tensor& bias = {}) {
  const std::optional<Tensor> b = bias.defined() ? std::optional(bias) : std::nullopt;
  if (!detail::onednn_takes(x, weight, bias)) return at::linear(x, weight, b);
  std::vector<c10::IValue> stack{x.contiguous(), weight.contiguous(), b, "none", c10::List<std::optional<at::Scalar>>(), std::string()};
  detail::onednn_linear()->callBoxed(&stack);
  return std::move(stack.front()).toTensor();
}

/// a_i b_iᵀ for every i. a (n, rows, k), b (n, columns, k) → (n, rows, columns); differentiable as `affine` is.
[[nodiscard]] inline Tensor products(const Tensor& a, const Tensor& b) {
  if (!detail::onednn_takes(a, b)) return at::bmm(a, b.transpose(1, 2));
  std::vector<Tensor> each;
  for (int64_t i = 0; i < a.size(0); ++i) each.push_back(affine(a[i], b[i]));
  return at::stack(each);
}

}  // namespace ptq
