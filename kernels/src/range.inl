// Minimum and maximum of a run of values. NaN is left out of both; NaN and infinity mark `probed`.

namespace ptq::kernels::PTQ_SET {

template <class T>
PTQ_INLINE void run_range(const T* p, std::ptrdiff_t n, T& lo, T& hi, typename Simd<T>::V& probed) {
  using V = typename Simd<T>::V;
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes;
  const V infinity = splat(std::numeric_limits<T>::infinity());
  V low0 = infinity, low1 = infinity, high0 = -infinity, high1 = -infinity, probe1{};
  std::ptrdiff_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const V a = load(p + i), b = load(p + i + lanes);
    low0 = min(a, low0), high0 = max(a, high0), probed = probe<T>(a, probed);
    low1 = min(b, low1), high1 = max(b, high1), probe1 = probe<T>(b, probe1);
  }
  for (; i < n; i += lanes) {
    V a = load(p + i, i + lanes < n ? lanes : n - i);
    for (std::ptrdiff_t k = n - i; k < lanes; ++k) a[k] = p[i];  // fill up with a value that belongs to the run
    low0 = min(a, low0), high0 = max(a, high0), probed = probe<T>(a, probed);
  }
  const T least = smallest<T>(min(low0, low1)), most = largest<T>(max(high0, high1));
  lo = least < lo ? least : lo, hi = most > hi ? most : hi;
  probed += probe1;
}

}  // namespace ptq::kernels::PTQ_SET
