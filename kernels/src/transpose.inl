// Transposes of float, double and 32-bit integers for one instruction set.

namespace ptq::kernels::PTQ_SET {

/// lanes x lanes values in registers. Transposing exchanges, for every bit, that bit of the row index with that of the column index.
template <class T>
struct Square {
  using V = typename Simd<T>::V;
  static constexpr int lanes = Simd<T>::lanes;
  V row[lanes];

  template <int bit, int... k>
  PTQ_INLINE void exchange(V& a, V& b, std::integer_sequence<int, k...>) {
    const V upper = __builtin_shufflevector(a, b, ((k & bit) != 0 ? lanes + k - bit : k)...);
    b = __builtin_shufflevector(a, b, ((k & bit) != 0 ? lanes + k : k + bit)...);
    a = upper;
  }
  template <int bit>
  PTQ_INLINE void exchange_all() {
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) {
      if ((i & bit) == 0) exchange<bit>(row[i], row[i + bit], std::make_integer_sequence<int, lanes>{});
    }
    if constexpr (2 * bit < lanes) exchange_all<2 * bit>();
  }
  PTQ_INLINE void load(const T* p, std::ptrdiff_t stride) {
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) row[i] = PTQ_SET::load(p + i * stride);
  }
  PTQ_INLINE void store(T* p, std::ptrdiff_t stride) const {
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) PTQ_SET::store(p + i * stride, row[i]);
  }
};

/// to[c * to_stride + r] = from[r * from_stride + c]
template <class T>
PTQ_TARGET inline void transpose(const T* from, std::ptrdiff_t from_stride, std::ptrdiff_t rows, std::ptrdiff_t cols, T* to,
                                 std::ptrdiff_t to_stride) {
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes;
  std::ptrdiff_t r = 0;
  for (; r + lanes <= rows; r += lanes) {
    std::ptrdiff_t c = 0;
    for (; c + lanes <= cols; c += lanes) {
      Square<T> square;
      square.load(from + r * from_stride + c, from_stride);
      square.template exchange_all<1>();
      square.store(to + c * to_stride + r, to_stride);
    }
    for (; c < cols; ++c) {
      for (std::ptrdiff_t i = r; i < r + lanes; ++i) to[c * to_stride + i] = from[i * from_stride + c];
    }
  }
  for (; r < rows; ++r) {
    for (std::ptrdiff_t c = 0; c < cols; ++c) to[c * to_stride + r] = from[r * from_stride + c];
  }
}

}  // namespace ptq::kernels::PTQ_SET
