// Scans for one instruction set.

namespace ptq::kernels::PTQ_SET {

template <class T>
PTQ_TARGET Status all_finite(View<const T> x, Rows rows) {
  using V = typename Simd<T>::V;
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes;
  V a{}, b{};
  for (std::ptrdiff_t r = rows.begin; r < rows.end; ++r) {
    const T* p = x.row(r);
    std::ptrdiff_t c = 0;
    for (; c + 2 * lanes <= x.cols; c += 2 * lanes) a = probe<T>(load(p + c), a), b = probe<T>(load(p + c + lanes), b);
    for (; c < x.cols; c += lanes) a = probe<T>(load(p + c, c + lanes < x.cols ? lanes : x.cols - c), a);
  }
  return finite<T>(a + b) ? Status::ok : Status::non_finite;
}

/// Four rows at a time, so that the running maxima are read and written a quarter as often.
template <class T>
PTQ_TARGET Status column_absmax(View<const T> x, Rows rows, T* absmax) {
  using V = typename Simd<T>::V;
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes;
  const V infinity = splat(std::numeric_limits<T>::infinity());
  V probed{};
  for (std::ptrdiff_t r = rows.begin; r < rows.end; r += 4) {
    const std::ptrdiff_t n = r + 4 < rows.end ? 4 : rows.end - r;
    for (std::ptrdiff_t c = 0; c < x.cols; c += lanes) {
      const std::ptrdiff_t k = c + lanes < x.cols ? lanes : x.cols - c;
      V top = k == lanes ? load(absmax + c) : load(absmax + c, k);
      for (std::ptrdiff_t i = 0; i < n; ++i) {
        const V v = k == lanes ? load(x.row(r + i) + c) : load(x.row(r + i) + c, k), size = abs(v);
        probed = probe<T>(v, probed);
        top = max(v == v ? size : infinity, top);
      }
      k == lanes ? store(absmax + c, top) : store(absmax + c, top, k);
    }
  }
  return finite<T>(probed) ? Status::ok : Status::non_finite;
}

}  // namespace ptq::kernels::PTQ_SET
