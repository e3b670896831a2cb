// CUDA kernels: median time by device events, and the fraction of copy bandwidth measured in the same process. Needs nothing but CUDA.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <ptq/kernels/cuda.hpp>
#include <vector>

using namespace ptq::kernels;

namespace {

constexpr int buffers = 8;  // in turn, so that L2 holds none of the next

template <class F>
double milliseconds(F&& work) {
  cudaEvent_t start, stop;
  cudaEventCreate(&start), cudaEventCreate(&stop);
  std::vector<float> times;
  for (int i = 0; i < 60; ++i) {
    cudaEventRecord(start);
    work(i % buffers);
    cudaEventRecord(stop);
    cudaEventSynchronize(stop);
    float ms = 0;
    cudaEventElapsedTime(&ms, start, stop);
    if (i >= 10) times.push_back(ms);
  }
  cudaEventDestroy(start), cudaEventDestroy(stop);
  std::nth_element(times.begin(), times.begin() + 25, times.end());
  return times[25];
}

}  // namespace

int main() {
  if (cuda::devices() == 0) {
    std::printf("skipped: no device\n");
    return 77;
  }
  cudaDeviceProp properties;
  cudaGetDeviceProperties(&properties, 0);
  std::printf("device: %s\n%-28s %10s %10s %8s\n", properties.name, "case", "ms", "GB/s", "of copy");
  struct Size {
    std::ptrdiff_t rows, cols;
  };
  for (const Size size : {Size{4096, 4096}, Size{11008, 4096}, Size{28672, 8192}}) {
    const std::ptrdiff_t n = size.rows * size.cols;
    const auto bytes = static_cast<std::size_t>(n) * sizeof(float);
    std::vector<float> host(static_cast<std::size_t>(n));
    unsigned state = 1;
    for (float& x : host) state = state * 1664525u + 1013904223u, x = static_cast<float>(state >> 8) / 16777216.0f - 0.5f;
    float *x[buffers], *y[buffers], *scale = nullptr;
    std::int32_t *zero = nullptr, *flag = nullptr;
    void* scratch = nullptr;
    for (int i = 0; i < buffers; ++i) {
      cudaMalloc(reinterpret_cast<void**>(&x[i]), bytes), cudaMalloc(reinterpret_cast<void**>(&y[i]), bytes);
      cudaMemcpy(x[i], host.data(), bytes, cudaMemcpyHostToDevice);
    }
    const std::ptrdiff_t groups = size.cols / 16;
    cudaMalloc(reinterpret_cast<void**>(&scale), static_cast<std::size_t>(size.rows * groups) * 4);
    cudaMalloc(reinterpret_cast<void**>(&zero), static_cast<std::size_t>(size.rows * groups) * 4);
    cudaMalloc(reinterpret_cast<void**>(&flag), 4), cudaMemset(flag, 0, 4);
    cudaMalloc(&scratch, ptq_cuda_tensor_scratch());
    const auto in = [&](int i) { return View<const float>{x[i], size.rows, size.cols, size.cols}; };
    const auto out = [&](int i) { return View<float>{y[i], size.rows, size.cols, size.cols}; };
    const double copy = milliseconds([&](int i) { cudaMemcpyAsync(y[i], x[i], bytes, cudaMemcpyDeviceToDevice); });
    const auto report = [&](const char* name, double passes, double ms) {
      std::printf("%5td x %-5td %-14s %10.4f %10.0f %8.2f\n", size.rows, size.cols, name, ms,
                  passes * static_cast<double>(bytes) * 1e-6 / ms, copy * passes / 2 / ms);
    };
    report("copy", 2, copy);
    for (const std::ptrdiff_t group : {std::ptrdiff_t{0}, std::ptrdiff_t{128}, std::ptrdiff_t{16}}) {
      const std::ptrdiff_t count = group == 0 ? 1 : size.cols / group;
      cuda::fake_quantize_dynamic(in(0), group, {}, {}, {}, scale, zero, flag, nullptr);
      Grid<float> grid;
      grid.scale = scale, grid.zero = zero, grid.row_stride = count, grid.group_stride = 1, grid.group = group;
      report(group == 0     ? "given channel"
             : group == 128 ? "given g128"
                            : "given g16",
             2, milliseconds([&](int i) { cuda::fake_quantize(in(i), grid, out(i), {}, flag, nullptr); }));
      report(group == 0     ? "token"
             : group == 128 ? "dynamic g128"
                            : "dynamic g16",
             2, milliseconds([&](int i) {
               cuda::fake_quantize_dynamic(in(i), group, {Range::gptq, 8}, out(i), {}, nullptr, nullptr, flag, nullptr);
             }));
    }
    report("tensor (3 passes)", 3, milliseconds([&](int i) {
             cuda::fake_quantize_tensor(in(i), {Range::awrq_activation, 8}, out(i), {}, nullptr, nullptr, flag, scratch, nullptr);
           }));
    if (cudaDeviceSynchronize() != cudaSuccess) return 1;
    for (int i = 0; i < buffers; ++i) cudaFree(x[i]), cudaFree(y[i]);
    cudaFree(scale), cudaFree(zero), cudaFree(flag), cudaFree(scratch);
  }
  return 0;
}
