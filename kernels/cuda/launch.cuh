#pragma once
// The one place where a kernel is started, and where a CUDA error becomes a Status.

#include <cuda_runtime.h>

#include <ptq/kernels/status.hpp>
#include <tuple>

namespace ptq::kernels::cuda {

/// Text of the last error of this thread.
inline const char*& last_error() {
  thread_local const char* text = "no error";
  return text;
}

inline Status status_of(cudaError_t error) {
  if (error == cudaSuccess) return Status::ok;
  last_error() = cudaGetErrorString(error);
  return error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver ? Status::no_device : Status::device_error;
}

/// kernel<<<grid, block, shared_bytes, stream>>>(args...) as a plain function; arguments are converted to the kernel's parameters.
template <class... Parameters, class... Arguments>
Status launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, void* stream, const Arguments&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments), "launch: as many arguments as the kernel has parameters");
  std::tuple<Parameters...> values(arguments...);
  return std::apply(
      [&](auto&... value) {
        void* pointers[] = {&value...};
        return status_of(cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, pointers, shared_bytes,
                                          static_cast<cudaStream_t>(stream)));
      },
      values);
}

}  // namespace ptq::kernels::cuda
