// exp on vectors: x = n ln 2 + r, |r| <= ln 2 / 2, exp(r) by its Taylor polynomial, 2^n by the exponent's bits. Within an ulp for
// |x| <= max_exponent, where neither overflows.

namespace ptq::kernels::PTQ_SET {

/// Σ r^(i-k) / i! for i = k .. Degree.
template <class T, int k, int Degree>
PTQ_INLINE typename Simd<T>::V taylor(typename Simd<T>::V r) {
  constexpr T coefficient = [] {
    double factorial = 1;
    for (int i = 2; i <= k; ++i) factorial *= i;
    return static_cast<T>(1 / factorial);
  }();
  if constexpr (k == Degree) {
    return splat(coefficient);
  } else {
    return fma(taylor<T, k + 1, Degree>(r), r, splat(coefficient));
  }
}

/// Adding it leaves the nearest whole number in the low bits.
template <class T>
inline constexpr T whole_magic = sizeof(T) == 4 ? T(0x1.8p23) : T(0x1.8p52);

template <class T>
PTQ_INLINE typename Simd<T>::V exponential(typename Simd<T>::V x) {
  using V = typename Simd<T>::V;
  using Bits = typename Simd<T>::Bits;
  constexpr bool single = sizeof(T) == 4;
  // ln 2 in two parts; n times the first is exact.
  constexpr T high = single ? T(0x1.63p-1) : T(0x1.62e42p-1), low = single ? T(-2.12194440054690582768e-4) : T(0x1.fdf473de6af28p-22);
  const V shifted = fma(x, splat(T(1.44269504088896340736)), splat(whole_magic<T>)), n = shifted - whole_magic<T>;
  const V r = fma(n, splat(-low), fma(n, splat(-high), x));
  const V y = fma(taylor < T, 2, single ? 7 : 13 > (r), r * r, r) + T(1);
  return (V)((Bits)y + ((Bits)shifted << (single ? 23 : 52)));
}

}  // namespace ptq::kernels::PTQ_SET
