// Transposes of whole matrices for one instruction set.

#include "transpose.inl"

namespace ptq::kernels::PTQ_SET {

/// A square of rows at a time over a few cache lines of columns: every line that is read is used up while it is near, and rows of the
/// result grow side by side.
template <class T>
PTQ_TARGET Status transpose(View<const T> from, View<T> to, Rows rows) {
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes, band = 256 / static_cast<std::ptrdiff_t>(sizeof(T));
  for (std::ptrdiff_t c = rows.begin; c < rows.end; c += band) {
    const std::ptrdiff_t cols = std::min(band, rows.end - c);
    for (std::ptrdiff_t r = 0; r < from.rows; r += lanes)
      transpose(from.row(r) + c, from.stride, std::min(lanes, from.rows - r), cols, to.row(c) + r, to.stride);
  }
  return Status::ok;
}

}  // namespace ptq::kernels::PTQ_SET
