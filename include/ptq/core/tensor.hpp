// The one door to ATen.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#if __has_include(<torch/headeronly/version.h>)
#include <torch/headeronly/version.h>
#else
#include <torch/version.h>
#endif

#include <cmath>
#include <cstdint>
#include <map>
#include <string>

#include <ptq/core/error.hpp>

namespace ptq {

using at::Tensor;

/// Tensors by name, in the order of their names: what a policy learns at one site, what a file holds.
using NamedTensors = std::map<std::string, Tensor>;

/// "2.15.0"
inline constexpr const char* torch_version = TORCH_VERSION;

/// "(64, 576) float32", for messages.
[[nodiscard]] inline std::string shape_text(const Tensor& t) {
  if (!t.defined()) return "(none)";
  std::string text = "(";
  for (int64_t i = 0; i < t.dim(); ++i) text += (i ? ", " : "") + std::to_string(t.size(i));
  return text + ") " + std::string(c10::toString(t.scalar_type()));
}

/// Throws when `t` holds NaN or infinity; `what` names it ("block 3, input of self_attn.q_proj").
inline void require_finite(const Tensor& t, const std::string& what) {
  if (!t.defined() || t.numel() == 0) return;
  if (!std::isfinite(t.detach().sum().item<double>()) && !at::isfinite(t).all().item<bool>())
    fail(what, " ", shape_text(t), " holds NaN or infinity");
}

}  // namespace ptq
