#pragma once
// Outcome of a kernel, and the plain views every kernel takes.

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace ptq::kernels {

/// Outcome of a kernel. Everything but `bad_argument` and `no_device` has written its outputs.
enum class Status : int {
  ok = 0,
  bad_argument = 1,  ///< sizes, strides, bits or a pointer make no sense; nothing was written
  non_finite = 2,    ///< NaN or infinity among the inputs; outputs are written, their entries for such inputs carry no meaning
  no_device = 3,     ///< built without CUDA, or no device is present
  device_error = 4,  ///< the CUDA runtime refused; cuda_error_text() says why
};

constexpr const char* text(Status status) {
  switch (status) {
    case Status::ok:
      return "ok";
    case Status::bad_argument:
      return "bad argument";
    case Status::non_finite:
      return "NaN or infinity in the input";
    case Status::no_device:
      return "no CUDA device";
    case Status::device_error:
      return "CUDA error";
  }
  return "unknown status";
}

/// The worse of two outcomes, to merge what several threads report.
constexpr Status worst(Status a, Status b) {
  if (a == Status::ok || a == b) return b;
  return b == Status::ok || a != Status::non_finite ? a : b;
}

/// Row-major matrix in foreign memory: element (r, c) at data[r * stride + c], stride >= cols.
template <class T>
struct View {
  T* data = nullptr;
  std::ptrdiff_t rows = 0, cols = 0, stride = 0;

  constexpr T* row(std::ptrdiff_t r) const { return data + r * stride; }
  template <class U, std::enable_if_t<std::is_same_v<U, const T> && !std::is_const_v<T>, int> = 0>
  constexpr operator View<U>() const {
    return {data, rows, cols, stride};
  }
};

/// Half-open range of rows, so that threads of the caller can share a matrix.
struct Rows {
  std::ptrdiff_t begin = 0, end = 0;
};

template <class T>
constexpr Rows all(const View<T>& x) {
  return {0, x.rows};
}

/// Integer codes in foreign memory, one byte (codes 0 to 255) or four each.
struct Codes {
  void* data = nullptr;
  std::ptrdiff_t stride = 0;
  int bytes = 4;

  constexpr Codes() = default;
  constexpr Codes(std::uint8_t* p, std::ptrdiff_t row_stride) : data(p), stride(row_stride), bytes(1) {}
  constexpr Codes(std::int32_t* p, std::ptrdiff_t row_stride) : data(p), stride(row_stride), bytes(4) {}
};

}  // namespace ptq::kernels
