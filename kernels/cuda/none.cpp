// Stands in for the CUDA kernels where they are not compiled: every call answers Status::no_device.

#include <ptq/kernels/cuda.hpp>

namespace {

constexpr int no_device = static_cast<int>(ptq::kernels::Status::no_device);

}  // namespace

extern "C" {

int ptq_cuda_devices(void) { return 0; }
const char* ptq_cuda_error_text(void) { return "built without CUDA"; }
unsigned long long ptq_cuda_tensor_scratch(void) { return 0; }

int ptq_cuda_fake_quantize(const float*, long long, long long, long long, const float*, const int*, long long, long long, long long,
                           const int*, int, int, float*, long long, void*, long long, int, int*, void*) {
  return no_device;
}

int ptq_cuda_fake_quantize_dynamic(const float*, long long, long long, long long, long long, int, int, int, int, float*, long long, void*,
                                   long long, int, float*, int*, int*, void*) {
  return no_device;
}

int ptq_cuda_fake_quantize_tensor(const float*, long long, long long, long long, int, int, int, int, float*, long long, void*, long long,
                                  int, float*, int*, int*, void*, void*) {
  return no_device;
}
}
