#pragma once
// Rounding onto a given grid, and dynamic activation quantization. Float and double.

#include <ptq/kernels/grid.hpp>

namespace ptq::kernels {

/// Uniform grid of a matrix: (row r, group g) uses scale[i], zero[i] with i = r * row_stride + g * group_stride.
/// Per tensor: both strides 0. Per channel: row_stride 1. Groups: group columns each, or any map g_idx[column] (act-order).
template <class T>
struct Grid {
  const T* scale = nullptr;
  const std::int32_t* zero = nullptr;  ///< null: 0. May lie outside the codes.
  std::ptrdiff_t row_stride = 0, group_stride = 0;
  std::ptrdiff_t group = 0;             ///< columns a group; 0: one group
  const std::int32_t* g_idx = nullptr;  ///< column -> group, overrides `group`
  CodeRange codes;
};

/// What a learned rounding adds to w / s: code = clamp(rne(w / divisor + offset) + z, lo, hi), value = s (code - z).
/// The divisor of an element is whole, scale included (FlexRound: exp(l1 + A + rho)); offset is in steps. Both [rows x cols], optional.
template <class T>
struct Coordinates {
  View<const T> divisor, offset;
};

/// values and/or codes of rows [begin, end) of w; either output may be absent (data == nullptr). values may be w itself.
template <class T>
Status fake_quantize(View<const T> w, const Grid<T>& grid, View<T> values, Codes codes, Rows rows, const Coordinates<T>& coordinates = {});

/// values = s (code - z).
template <class T>
Status dequantize(Codes codes, const Grid<T>& grid, View<T> values, Rows rows);

/// Dynamic quantization: every row (token, or token and head) gets its own grid from its own range, or every `group` columns of it (0: the
/// row). scale and zero, [rows x groups] (row_stride = groups), values and codes are optional outputs.
template <class T>
Status fake_quantize_dynamic(View<const T> x, std::ptrdiff_t group, const Convention& convention, View<T> values, Codes codes, T* scale,
                             std::int32_t* zero, Rows rows);

/// Dynamic quantization with one grid for the whole of x. Threads: value_range over rows, grid_from_range, fake_quantize over rows.
template <class T>
Status fake_quantize_tensor(View<const T> x, const Convention& convention, View<T> values, Codes codes, T* scale, std::int32_t* zero);

}  // namespace ptq::kernels
