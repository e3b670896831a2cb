// Whether an output goes past the caches, for one instruction set.

namespace ptq::kernels::PTQ_SET {

/// Whether values go past the caches: they are many, nothing else is written, and every vector of them is aligned.
template <class T>
PTQ_TARGET inline bool streams(View<const T> w, View<T> values, Codes codes, std::ptrdiff_t group) {
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes;
  constexpr std::size_t far_beyond_cache = std::size_t{16} << 20;
  if (PTQ_LEVEL == 0 || values.data == nullptr || codes.data != nullptr || static_cast<const T*>(values.data) == w.data) return false;
  return static_cast<std::size_t>(w.rows) * static_cast<std::size_t>(w.cols) * sizeof(T) >= far_beyond_cache &&
         reinterpret_cast<std::uintptr_t>(values.data) % PTQ_VECTOR_BYTES == 0 && values.stride % lanes == 0 && group % lanes == 0;
}

}  // namespace ptq::kernels::PTQ_SET
