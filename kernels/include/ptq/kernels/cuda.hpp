#pragma once
// CUDA twins. Pointers are device memory; work is put on `stream` (a cudaStream_t) and not waited for. Float only. Without CUDA:
// Status::no_device.

#include <ptq/kernels/quantize.hpp>

extern "C" {
/// Number of usable devices (0: none, or built without CUDA), and the text of the last error on this thread.
int ptq_cuda_devices(void);
const char* ptq_cuda_error_text(void);

/// Twin of fake_quantize: code_bytes 1 or 4; values, codes, zero, g_idx, flag may be null. flag (int on the device) is set to 1 on NaN or
/// infinity.
int ptq_cuda_fake_quantize(const float* w, long long rows, long long cols, long long stride, const float* scale, const int* zero,
                           long long row_stride, long long group_stride, long long group, const int* g_idx, int code_lo, int code_hi,
                           float* values, long long values_stride, void* codes, long long codes_stride, int code_bytes, int* flag,
                           void* stream);

/// Twin of fake_quantize_dynamic; range is the integer value of ptq::kernels::Range; scale and zero are [rows x groups] and optional.
int ptq_cuda_fake_quantize_dynamic(const float* x, long long rows, long long cols, long long stride, long long group, int range, int bits,
                                   int symmetric, int as_published, float* values, long long values_stride, void* codes,
                                   long long codes_stride, int code_bytes, float* scale, int* zero, int* flag, void* stream);

/// Twin of fake_quantize_tensor; scratch is ptq_cuda_tensor_scratch() bytes of device memory.
unsigned long long ptq_cuda_tensor_scratch(void);
int ptq_cuda_fake_quantize_tensor(const float* x, long long rows, long long cols, long long stride, int range, int bits, int symmetric,
                                  int as_published, float* values, long long values_stride, void* codes, long long codes_stride,
                                  int code_bytes, float* scale, int* zero, int* flag, void* scratch, void* stream);
}

namespace ptq::kernels::cuda {

inline int devices() { return ptq_cuda_devices(); }
inline const char* error_text() { return ptq_cuda_error_text(); }

inline Status fake_quantize(View<const float> w, const Grid<float>& grid, View<float> values, Codes codes, int* flag, void* stream) {
  return static_cast<Status>(ptq_cuda_fake_quantize(w.data, w.rows, w.cols, w.stride, grid.scale, grid.zero, grid.row_stride,
                                                    grid.group_stride, grid.group, grid.g_idx, grid.codes.lo, grid.codes.hi, values.data,
                                                    values.stride, codes.data, codes.stride, codes.bytes, flag, stream));
}

inline Status fake_quantize_dynamic(View<const float> x, std::ptrdiff_t group, const Convention& c, View<float> values, Codes codes,
                                    float* scale, std::int32_t* zero, int* flag, void* stream) {
  return static_cast<Status>(ptq_cuda_fake_quantize_dynamic(x.data, x.rows, x.cols, x.stride, group, static_cast<int>(c.range), c.bits,
                                                            c.symmetric, c.as_published, values.data, values.stride, codes.data,
                                                            codes.stride, codes.bytes, scale, zero, flag, stream));
}

inline Status fake_quantize_tensor(View<const float> x, const Convention& c, View<float> values, Codes codes, float* scale,
                                   std::int32_t* zero, int* flag, void* scratch, void* stream) {
  return static_cast<Status>(ptq_cuda_fake_quantize_tensor(x.data, x.rows, x.cols, x.stride, static_cast<int>(c.range), c.bits, c.symmetric,
                                                           c.as_published, values.data, values.stride, codes.data, codes.stride,
                                                           codes.bytes, scale, zero, flag, scratch, stream));
}

}  // namespace ptq::kernels::cuda
