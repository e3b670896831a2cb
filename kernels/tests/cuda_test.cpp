// CUDA kernels against their CPU twins, where a device exists.

#include <ptq/kernels/cuda.hpp>

#include <cstdio>

int main() {
  if (ptq::kernels::cuda::devices() == 0) {
    std::printf("skipped: no device\n");
    return 77;
  }
  return 1;
}
