// Block floating point, for one instruction set.

#include "streams.inl"

namespace ptq::kernels::PTQ_SET {

/// Any block, by the definition.
template <class T>
PTQ_TARGET inline void round_block(const T* x, std::ptrdiff_t n, const BlockFloat& f, T* y) {
  const T smallest_kept = f.ceil ? T(0) : formula::Limits<T>::smallest;
  T most = 0;
  for (std::ptrdiff_t i = 0; i < n; ++i) most = formula::most(most, formula::magnitude(x[i]));
  if (!(most > T(0)) || most < smallest_kept || !formula::is_finite(most)) {
    for (std::ptrdiff_t i = 0; i < n; ++i) y[i] = most < smallest_kept ? T(0) : x[i];
    return;
  }
  const int p = f.bits - 1, highest = (1 << f.exponent_bits) - 1 - f.bias;
  const int e = formula::least(formula::most(formula::shared_exponent(most, f.ceil), -f.bias), highest);
  const T top = static_cast<T>((1 << p) - 1);
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const T magnitude = formula::magnitude(x[i]);
    if (f.ceil && magnitude <= T(1e-8)) {
      y[i] = x[i];
    } else {
      const T code = magnitude < smallest_kept ? T(0) : formula::rne(std::ldexp(f.ceil ? magnitude + T(1e-9) : magnitude, p - e));
      y[i] = std::copysign(std::ldexp(formula::least(code, top), e - p), x[i]);
    }
  }
}

/// `vectors` vectors of float whose step and its inverse are normal numbers: the exponent comes from the bits of the maximum.
template <bool Streaming>
PTQ_INLINE void round_vectors(const float* x, std::ptrdiff_t vectors, const BlockFloat& f, float* y, VF& probed) {
  constexpr std::ptrdiff_t lanes = Simd<float>::lanes;
  VF most{};
  for (std::ptrdiff_t i = 0; i < vectors; ++i) most = max(abs(load(x + i * lanes)), most);
  const float m = largest<float>(most);
  std::int32_t bits;
  __builtin_memcpy(&bits, &m, sizeof bits);
  const std::int32_t mantissa = bits & 0x7fffff, exponent = bits >> 23;
  if (exponent < 32 || exponent > 253 || (f.ceil && mantissa > 0 && mantissa < 4096)) {
    for (std::ptrdiff_t i = 0; i < vectors; ++i) probed = probe<float>(load(x + i * lanes), probed);
    round_block(x, vectors * lanes, f, y);
    return;
  }
  const std::int32_t step = exponent + 2 - f.bits - (f.ceil && mantissa == 0 ? 1 : 0);  // biased exponent of 2^(E - p)
  const std::int32_t step_bits = step << 23, inverse_bits = (254 - step) << 23;
  float s, inverse;
  __builtin_memcpy(&s, &step_bits, sizeof s);
  __builtin_memcpy(&inverse, &inverse_bits, sizeof inverse);
  const VF top = splat(static_cast<float>((1 << (f.bits - 1)) - 1)), nudge = splat(f.ceil ? 1e-9f : 0.0f);
  const VF kept = splat(f.ceil ? 1e-8f : 0.0f), least = splat(f.ceil ? 0.0f : formula::Limits<float>::smallest);
  for (std::ptrdiff_t i = 0; i < vectors; ++i) {
    const VF v = load(x + i * lanes), magnitude = abs(v);
    probed = probe<float>(v, probed);
    VF rounded = min(rne((magnitude + nudge) * splat(inverse)), top) * splat(s);
    rounded = magnitude < least ? VF{} : rounded;
    rounded = (VF)((Simd<float>::Bits)rounded | ((Simd<float>::Bits)v & ~0x7fffffff));
    rounded = magnitude <= kept ? v : rounded;
    if constexpr (Streaming) {
      stream(y + i * lanes, rounded);
    } else {
      store(y + i * lanes, rounded);
    }
  }
}

template <class T>
PTQ_TARGET Status block_float(View<const T> x, std::ptrdiff_t block, const BlockFloat& f, View<T> values, Rows rows) {
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes;
  const bool usual = sizeof(T) == 4 && block % lanes == 0 && f.exponent_bits == 8 && f.bias == 127;
  const bool streaming = usual && streams(x, values, Codes(), block);
  typename Simd<T>::V probed{};
  for (std::ptrdiff_t r = rows.begin; r < rows.end; ++r) {
    const T* row = x.row(r);
    T* out = values.row(r);
    for (std::ptrdiff_t c = 0; c < x.cols; c += block) {
      const std::ptrdiff_t n = c + block < x.cols ? block : x.cols - c;
      if constexpr (sizeof(T) == 4) {
        if (usual && n % lanes == 0) {
          if (streaming) {
            round_vectors<true>(row + c, n / lanes, f, out + c, probed);
          } else {
            round_vectors<false>(row + c, n / lanes, f, out + c, probed);
          }
          continue;
        }
      }
      for (std::ptrdiff_t i = 0; i < n; i += lanes) probed = probe<T>(load(row + c + i, i + lanes < n ? lanes : n - i), probed);
      round_block(row + c, n, f, out + c);
    }
  }
  if (streaming) fence();
  return finite<T>(probed) ? Status::ok : Status::non_finite;
}

}  // namespace ptq::kernels::PTQ_SET
