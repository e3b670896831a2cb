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

/// One vector of a block on its step.
template <bool Ceil, bool Streaming>
PTQ_INLINE void round_vector(const float* x, VF s, VF inverse, const BlockConstants& k, float* y, VF& probed) {
  using Bits = Simd<float>::Bits;
  const VF v = load(x);
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
    stream(y, rounded);
  } else {
    store(y, rounded);
  }
}

/// Steps as bits, from the bits of the largest magnitudes. Ceil: a power of two counts as the binade below it.
template <bool Ceil>
PTQ_INLINE Simd<float>::Bits steps(Simd<float>::Bits most, const BlockConstants& k) {
  return ((Ceil ? most - 1 : most) & k.exponent) + k.shift;
}

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
  const Bits step = steps<Ceil>(bits, k);
  for (std::ptrdiff_t i = 0; i < vectors; ++i)
    round_vector<Ceil, Streaming>(x + i * lanes, (VF)step, (VF)(k.inverse - step), k, y + i * lanes, probed);
}

/// The larger of lanes that are `width` apart, of a in the first `width` lanes out of 2 width, of b in the others.
template <int width, int... k>
PTQ_INLINE VF merged(VF a, VF b, std::integer_sequence<int, k...>) {
  constexpr int lanes = Simd<float>::lanes, two = 2 * width;
  return max(__builtin_shufflevector(a, b, (k / two * two + k % width + (k % two < width ? 0 : lanes))...),
             __builtin_shufflevector(a, b, (k / two * two + k % width + (k % two < width ? 0 : lanes) + width)...));
}

/// The largest magnitudes of `blocks` blocks in a row: that of block i in the lanes i modulo `blocks`.
template <int blocks, int vectors>
PTQ_INLINE VF largest_of_blocks(const float* x) {
  if constexpr (blocks == 1) {
    VF most = abs(load(x));
#pragma GCC unroll 4
    for (int i = 1; i < vectors; ++i) most = max(abs(load(x + i * Simd<float>::lanes)), most);
    return most;
  } else {
    constexpr int half = blocks / 2;
    return merged<half>(largest_of_blocks<half, vectors>(x), largest_of_blocks<half, vectors>(x + half * vectors * Simd<float>::lanes),
                        std::make_integer_sequence<int, Simd<float>::lanes>{});
  }
}

/// As many blocks as a vector has lanes, whose steps are then computed together.
template <bool Ceil, bool Streaming, int vectors>
PTQ_INLINE void round_blocks(const float* x, const BlockFloat& f, const BlockConstants& k, float* y, VF& probed) {
  using Bits = Simd<float>::Bits;
  constexpr int lanes = Simd<float>::lanes;
  constexpr std::int32_t one = BlockConstants::one;
  const Bits bits = (Bits)largest_of_blocks<lanes, vectors>(x), mantissa = bits & (one - 1);
  Bits unusual = (bits < 32 * one) | (bits >= 254 * one);
  if constexpr (Ceil) unusual |= (mantissa > 0) & (mantissa < 4096);
  if (lane_bits<float>(unusual) != 0) [[unlikely]] {
    for (std::ptrdiff_t i = 0; i < lanes; ++i)
      round_vectors<Ceil, Streaming>(x + i * vectors * lanes, vectors, f, k, y + i * vectors * lanes, probed);
    return;
  }
  const Bits step = steps<Ceil>(bits, k);
  float s[lanes], inverse[lanes];
  store(s, (VF)step), store(inverse, (VF)(k.inverse - step));
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) {
      const int at = (i * vectors + j) * lanes;
      round_vector<Ceil, Streaming>(x + at, splat(s[i]), splat(inverse[i]), k, y + at, probed);
    }
  }
}

/// Whole blocks from the start of a row, of `fixed` vectors where that is not 0; returns the columns done.
template <bool Ceil, bool Streaming, int fixed>
PTQ_INLINE std::ptrdiff_t round_whole_blocks(const float* x, std::ptrdiff_t cols, std::ptrdiff_t vectors, const BlockFloat& f, float* y,
                                             VF& probed) {
  const BlockConstants constants(f);
  const std::ptrdiff_t block = vectors * Simd<float>::lanes;
  VF seen = probed;
  std::ptrdiff_t c = 0;
  if constexpr (fixed != 0) {
    constexpr std::ptrdiff_t many = fixed * Simd<float>::lanes * Simd<float>::lanes;
    for (; c + many <= cols; c += many) round_blocks<Ceil, Streaming, fixed>(x + c, f, constants, y + c, seen);
  }
  for (; c + block <= cols; c += block) round_vectors<Ceil, Streaming>(x + c, vectors, f, constants, y + c, seen);
  probed = seen;
  return c;
}

template <bool Ceil, bool Streaming>
PTQ_TARGET inline std::ptrdiff_t round_whole_blocks(const float* x, std::ptrdiff_t cols, std::ptrdiff_t vectors, const BlockFloat& f,
                                                    float* y, VF& probed) {
  if (vectors == 1) return round_whole_blocks<Ceil, Streaming, 1>(x, cols, 1, f, y, probed);
  if (vectors == 2) return round_whole_blocks<Ceil, Streaming, 2>(x, cols, 2, f, y, probed);
  if (vectors == 4) return round_whole_blocks<Ceil, Streaming, 4>(x, cols, 4, f, y, probed);
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
