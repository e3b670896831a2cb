// Block floating point, for one instruction set.

#include "streams.inl"

namespace ptq::kernels::PTQ_SET {

/// Any block, by the definition.
template <class T>
[[gnu::noinline]] PTQ_TARGET void round_block(const T* x, std::ptrdiff_t n, const BlockFloat& f, T* y) {
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

/// What all blocks of a format share, in registers.
struct BlockConstants {
  using Bits = Simd<float>::Bits;
  static constexpr std::int32_t one = 1 << 23;  // an exponent more
  VF top, nudge = splat(1e-9f), kept = splat(1e-8f);
  Bits exponent = Bits{} + 255 * one, sign = Bits{} + ~0x7fffffff, inverse = Bits{} + 254 * one, shift;

  PTQ_TARGET explicit BlockConstants(const BlockFloat& f)
      : top(splat(static_cast<float>((1 << (f.bits - 1)) - 1))), shift(Bits{} + (2 - f.bits) * one) {}
};

/// A block of `vectors` vectors of float. Its step comes from the bits of the maximum, in every lane at once. Blocks whose step or its
/// inverse is no normal number, and those a few units above a power of two, where the released logarithm decides, go by the definition.
template <bool Ceil, bool Streaming>
PTQ_INLINE void round_vectors(const float* x, std::ptrdiff_t vectors, const BlockFloat& f, const BlockConstants& k, float* y, VF& probed) {
  using Bits = Simd<float>::Bits;
  constexpr std::ptrdiff_t lanes = Simd<float>::lanes;
  constexpr std::int32_t one = BlockConstants::one;
  VF most{};
  for (std::ptrdiff_t i = 0; i < vectors; ++i) most = max(abs(load(x + i * lanes)), most);
  const Bits bits = (Bits)largest_everywhere<float>(most);
  const auto first = static_cast<std::uint32_t>(bits[0]), mantissa = first & (one - 1);
  if (first - 32u * one >= 222u * one || (Ceil && mantissa - 1u < 4095u)) [[unlikely]] {
    for (std::ptrdiff_t i = 0; i < vectors; ++i) probed = probe<float>(load(x + i * lanes), probed);
    round_block(x, vectors * lanes, f, y);
    return;
  }
  const Bits step = ((Ceil ? bits - 1 : bits) & k.exponent) + k.shift;  // ceil: a power of two counts as the binade below it
  const VF s = (VF)step, inverse = (VF)(k.inverse - step);
  for (std::ptrdiff_t i = 0; i < vectors; ++i) {
    const VF v = load(x + i * lanes);
    probed = probe<float>(v, probed);
    VF rounded;
    if constexpr (Ceil) {
      const VF magnitude = abs(v), code = min(rne((magnitude + k.nudge) * inverse), k.top);
      rounded = (VF)((Bits)(code * s) | ((Bits)v & k.sign));
      rounded = magnitude <= k.kept ? v : rounded;
    } else {
      rounded = max(min(rne(v * inverse), k.top), -k.top) * s;
    }
    if constexpr (Streaming) {
      stream(y + i * lanes, rounded);
    } else {
      store(y + i * lanes, rounded);
    }
  }
}

/// Whole blocks from the start of a row, of `fixed` vectors where that is not 0; returns the columns done.
template <bool Ceil, bool Streaming, int fixed>
PTQ_INLINE std::ptrdiff_t round_whole_blocks(const float* x, std::ptrdiff_t cols, std::ptrdiff_t vectors, const BlockFloat& f, float* y,
                                             VF& probed) {
  if constexpr (fixed != 0) vectors = fixed;  // so that the loop over them unrolls
  const BlockConstants constants(f);
  const std::ptrdiff_t block = vectors * Simd<float>::lanes;
  VF seen = probed;
  std::ptrdiff_t c = 0;
  for (; c + block <= cols; c += block) round_vectors<Ceil, Streaming>(x + c, vectors, f, constants, y + c, seen);
  probed = seen;
  return c;
}

template <bool Ceil, bool Streaming>
PTQ_TARGET inline std::ptrdiff_t round_whole_blocks(const float* x, std::ptrdiff_t cols, std::ptrdiff_t vectors, const BlockFloat& f,
                                                    float* y, VF& probed) {
  if (vectors == 1) return round_whole_blocks<Ceil, Streaming, 1>(x, cols, vectors, f, y, probed);
  if (vectors == 2) return round_whole_blocks<Ceil, Streaming, 2>(x, cols, vectors, f, y, probed);
  return round_whole_blocks<Ceil, Streaming, 0>(x, cols, vectors, f, y, probed);
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
    std::ptrdiff_t c = 0;
    if constexpr (sizeof(T) == 4) {
      const std::ptrdiff_t vectors = block / lanes;
      if (usual && f.ceil)
        c = streaming ? round_whole_blocks<true, true>(row, x.cols, vectors, f, out, probed)
                      : round_whole_blocks<true, false>(row, x.cols, vectors, f, out, probed);
      if (usual && !f.ceil)
        c = streaming ? round_whole_blocks<false, true>(row, x.cols, vectors, f, out, probed)
                      : round_whole_blocks<false, false>(row, x.cols, vectors, f, out, probed);
    }
    for (; c < x.cols; c += block) {
      const std::ptrdiff_t n = c + block < x.cols ? block : x.cols - c;
      for (std::ptrdiff_t i = 0; i < n; i += lanes) probed = probe<T>(load(row + c + i, i + lanes < n ? lanes : n - i), probed);
      round_block(row + c, n, f, out + c);
    }
  }
  if (streaming) fence();
  return finite<T>(probed) ? Status::ok : Status::non_finite;
}

}  // namespace ptq::kernels::PTQ_SET
