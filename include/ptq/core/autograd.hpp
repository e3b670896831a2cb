// The door to functions with a backward of their own.
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include <ptq/core/tensor.hpp>

namespace ptq {

/// F offers static forward(Context*, arguments…) → Tensor and backward(Context*, gradients of the outputs) → gradients of the arguments,
/// one for each of them, undefined where there is none; F::apply(arguments…) calls it.
template <class F>
using Differentiable = torch::autograd::Function<F>;
using Context = torch::autograd::AutogradContext;
using TensorList = torch::autograd::variable_list;

}  // namespace ptq
