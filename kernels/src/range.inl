// Minimum and maximum of a run of values; NaN is left out of both and makes `good` false, as infinity does.

namespace ptq::kernels::PTQ_SET {

template <class T>
PTQ_INLINE bool run_range(const T* p, std::ptrdiff_t n, T& lo, T& hi) {
  using V = typename Simd<T>::V;
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes;
  const T infinity = std::numeric_limits<T>::infinity();
  V low0 = splat(infinity), low1 = low0, high0 = -low0, high1 = high0, probe0{}, probe1{};
  std::ptrdiff_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const V a = load(p + i), b = load(p + i + lanes);
    low0 = min(a, low0), high0 = max(a, high0), probe0 = probe<T>(a, probe0);
    low1 = min(b, low1), high1 = max(b, high1), probe1 = probe<T>(b, probe1);
  }
  for (; i + lanes <= n; i += lanes) {
    const V a = load(p + i);
    low0 = min(a, low0), high0 = max(a, high0), probe0 = probe<T>(a, probe0);
  }
  const T least = smallest<T>(min(low0, low1)), most = largest<T>(max(high0, high1));
  lo = least < lo ? least : lo, hi = most > hi ? most : hi;
  bool good = finite<T>(probe0 + probe1);
  for (; i < n; ++i) {
    lo = p[i] < lo ? p[i] : lo, hi = p[i] > hi ? p[i] : hi;
    good = good && p[i] - p[i] == T(0);
  }
  return good;
}

}  // namespace ptq::kernels::PTQ_SET
