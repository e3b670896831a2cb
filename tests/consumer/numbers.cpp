// Uses the installed headers, libtorch and the kernels from outside.
#include <ATen/ATen.h>
#include <ptq/core/error.hpp>

int main() { return ptq::cat("W", 4).size() == 2 && at::eye(3).sum().item<float>() == 3.0F ? 0 : 1; }
