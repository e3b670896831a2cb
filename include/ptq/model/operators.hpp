// The float model's operators: what every other kind of forward starts from.
#pragma once

#include <optional>
#include <utility>

#include <ptq/core/affine.hpp>
#include <ptq/io/model_config.hpp>
#include <ptq/model/block.hpp>

namespace ptq {

/// x / √(mean(x²) + ε), in float32 for types below, rounded to x's type, then times the gain, plus a bias where smoothing added one.
/// Zhang and Sennrich, arXiv 1910.07467, eq. 4. x (…, n), gain and bias (n) or undefined.
[[nodiscard]] inline Tensor rms_norm(const Tensor& x, const NormParameters& p, double eps) {
  const Tensor wide = at::isReducedFloatingType(x.scalar_type()) ? x.to(at::kFloat) : x;
  const Tensor square = at::linalg_vector_norm(wide, 2, -1, true).square();     // (…, 1) n · mean(x²)
  Tensor y = wide * at::rsqrt(square / static_cast<double>(x.size(-1)) + eps);  // (…, n)
  if (y.scalar_type() != x.scalar_type()) y = y.to(x.scalar_type());
  if (p.weight.defined()) y = y * p.weight;
  return p.bias.defined() ? y + p.bias : y;
}

/// The family's norm: layer norm for OPT, RMS norm for the others.
[[nodiscard]] inline Tensor normalize(const ModelConfig& config, const Tensor& x, const NormParameters& p) {
  if (!config.is_opt()) return rms_norm(x, p, config.norm_eps);
  const auto given = [](const Tensor& t) { return t.defined() ? std::optional(t) : std::nullopt; };
  return at::layer_norm(x, {x.size(-1)}, given(p.weight), given(p.bias), config.norm_eps);
}

/// The block as it is in the file, or as a smoothing has fused it.
struct FloatOperators : Operators {
  FloatOperators(const ModelConfig& config, BlockParameters block) : parameters(std::move(block)), config_(config) {}

  Tensor norm(int norm, const Tensor& x) override {
    if (norm == Layout::query_norm) return rms_norm(x, {parameters.query_norm, {}}, config_.norm_eps);
    if (norm == Layout::key_norm) return rms_norm(x, {parameters.key_norm, {}}, config_.norm_eps);
    return normalize(config_, x, parameters.norms.at(static_cast<size_t>(norm)));
  }
  Tensor input(int group, const Tensor& x) override {
    const auto g = static_cast<size_t>(group);
    return g < parameters.input_scale.size() && parameters.input_scale[g].defined() ? x / parameters.input_scale[g] : x;
  }
  Tensor linear(int site, const Tensor& x) override {
    const LinearParameters& l = parameters.linears.at(static_cast<size_t>(site));
    return affine(x, l.weight, l.bias);
  }

  BlockParameters parameters;

 protected:
  ModelConfig config_;
};

}  // namespace ptq
