// x Wᵀ + b, by the fastest exact multiplication at hand.
#pragma once

#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <utility>
#include <vector>

#include <ptq/core/autograd.hpp>
#include <ptq/core/transpose.hpp>

namespace ptq {
namespace detail {

/// oneDNN's float32 product, which runs on every instruction set alike; at::linear's MKL holds back on processors of other makers
/// (measured on a Zen 5: 2.3 times slower). An operator of libtorch without a header, hence by name.
inline const std::optional<c10::OperatorHandle>& onednn_linear() {
  static const auto found = at::hasMKLDNN() ? c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""}) : std::nullopt;
  return found;
}

/// Whether it computes x Wᵀ + b of these.
[[nodiscard]] inline bool onednn_takes(const Tensor& x, const Tensor& weight, const Tensor& bias = {}) {
  const auto fits = [](const Tensor& t) { return t.is_cpu() && t.scalar_type() == at::kFloat && t.layout() == at::kStrided; };
  return onednn_linear() && fits(x) && fits(weight) && (!bias.defined() || fits(bias)) && x.numel() > 0 && weight.numel() > 0;
}

/// Whether gradients are wanted of any of these.
[[nodiscard]] inline bool taught(const Tensor& x, const Tensor& weight, const Tensor& bias = {}) {
  return at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad() || (bias.defined() && bias.requires_grad()));
}

/// x by rows; the weight as it lies, by rows or transposed: oneDNN packs it in any case.
[[nodiscard]] inline Tensor onednn_affine(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias = {}) {
  const Tensor w = weight.t().is_contiguous() ? weight : by_rows(weight);
  std::vector<c10::IValue> stack{by_rows(x), w, bias, "none", c10::List<std::optional<at::Scalar>>(), std::string()};
  onednn_linear()->callBoxed(&stack);
  return std::move(stack.front()).toTensor();
}

/// gᵀ x, of g (n, a) and x (n, b) → (a, b), by rows or transposed: the narrower of the two is the one that is copied.
[[nodiscard]] inline Tensor onednn_crossed(const Tensor& g, const Tensor& x) {
  return g.size(1) <= x.size(1) ? onednn_affine(g.t(), x.t()) : onednn_affine(x.t(), g.t()).t();
}

/// Factors as they are multiplied: rounded to bfloat16 where that is asked for.
[[nodiscard]] inline Tensor as_factor(const Tensor& t, bool narrow) { return narrow ? t.to(at::kBFloat16) : t; }

/// x Wᵀ + b of such factors, in float32.
[[nodiscard]] inline Tensor factor_product(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias = {}) {
  if (x.scalar_type() != at::kBFloat16) return onednn_affine(x, weight, bias);
  const Tensor y = onednn_affine(x, weight).to(at::kFloat);
  return bias ? y + *bias : y;
}

/// The same with gradients: G W for x, Gᵀ x for W, sums of G for b. An absent bias is a tensor without entries.
struct OnednnAffine : Differentiable<OnednnAffine> {
  static Tensor forward(Context* context, const Tensor& x, const Tensor& weight, const Tensor& bias, bool narrow) {
    const Tensor a = as_factor(x, narrow), w = as_factor(weight, narrow);
    context->save_for_backward({a, w});
    context->saved_data["x"] = x.requires_grad(), context->saved_data["weight"] = weight.requires_grad();
    context->saved_data["bias"] = bias.requires_grad(), context->saved_data["narrow"] = narrow;
    return factor_product(a, w, bias.numel() > 0 ? std::optional(bias) : std::nullopt);
  }
  static TensorList backward(Context* context, const TensorList& upstream) {
    const TensorList kept = context->get_saved_variables();
    const Tensor &x = kept[0], &weight = kept[1];
    const Tensor whole = upstream[0].reshape({-1, weight.size(0)});  // (tokens, out)
    const Tensor g = as_factor(whole, context->saved_data["narrow"].toBool());
    TensorList all(4);
    if (context->saved_data["x"].toBool()) all[0] = factor_product(g, weight.t()).view(x.sizes());
    if (context->saved_data["weight"].toBool()) {       // laid out as the weight is
      const Tensor flat = x.reshape({-1, x.size(-1)});  // (tokens, in)
      all[1] = weight.is_contiguous() ? factor_product(g.t(), flat.t()) : factor_product(flat.t(), g.t()).t();
    }
    if (context->saved_data["bias"].toBool()) all[2] = whole.sum(0);
    return all;
  }
};

/// a_i b_iᵀ for every i, without gradient.
[[nodiscard]] inline Tensor each_product(const Tensor& a, const Tensor& b) {
  Tensor y = at::empty({a.size(0), a.size(1), b.size(1)}, a.options());
  for (int64_t i = 0; i < a.size(0); ++i) y[i].copy_(onednn_affine(a[i], b[i]));
  return y;
}

/// The same with gradients: G_i b_i and G_iᵀ a_i.
struct OnednnProducts : Differentiable<OnednnProducts> {
  static Tensor forward(Context* context, const Tensor& a, const Tensor& b) {
    context->save_for_backward({a, b});
    return each_product(a, b);
  }
  static TensorList backward(Context* context, const TensorList& upstream) {
    const TensorList kept = context->get_saved_variables();
    const Tensor &g = upstream[0], &a = kept[0];  // (n, rows, columns), (n, rows, k)
    Tensor d_b = at::empty(kept[1].sizes(), g.options());
    for (int64_t i = 0; i < g.size(0); ++i) d_b[i].copy_(onednn_crossed(g[i], a[i]));
    return {each_product(g, kept[1].transpose(1, 2)), d_b};
  }
};

/// Whether products under gradient round their factors to bfloat16, on this thread.
inline thread_local bool narrow_products = false;

}  // namespace detail

/// While it lives, `affine` of float32 under gradient multiplies factors rounded to bfloat16, there and on the way back: sums are float32
/// inside, results are rounded to bfloat16 once. For machines that multiply bfloat16 faster: kernels/isa.hpp.
class NarrowProducts {
 public:
  explicit NarrowProducts(bool on) : before_(detail::narrow_products) { detail::narrow_products = on; }
  ~NarrowProducts() { detail::narrow_products = before_; }
  NarrowProducts(const NarrowProducts&) = delete;
  NarrowProducts& operator=(const NarrowProducts&) = delete;

 private:
  bool before_;
};

/// x Wᵀ + b. x (…, in), weight (out, in), bias (out) or undefined → (…, out), of x's type. Differentiable; float32 on the CPU goes through
/// oneDNN.
[[nodiscard]] inline Tensor affine(const Tensor& x, const Tensor& weight, const Tensor& bias = {}) {
  const std::optional<Tensor> b = bias.defined() ? std::optional(bias) : std::nullopt;
  if (!detail::onednn_takes(x, weight, bias)) return at::linear(x, weight, b);
  if (detail::taught(x, weight, bias))
    return detail::OnednnAffine::apply(x, weight, b.value_or(at::empty({0}, x.options())), detail::narrow_products);
  return detail::onednn_affine(x, weight, b);
}

/// a_i b_iᵀ for every i. a (n, rows, k), b (n, columns, k) → (n, rows, columns); differentiable as `affine` is.
[[nodiscard]] inline Tensor products(const Tensor& a, const Tensor& b) {
  if (!detail::onednn_takes(a, b)) return at::bmm(a, b.transpose(1, 2));
  return detail::taught(a, b) ? detail::OnednnProducts::apply(a, b) : detail::each_product(a, b);
}

}  // namespace ptq
