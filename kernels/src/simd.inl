// Vectors of one instruction set. Compiler vector types carry the arithmetic; only what they lack is an intrinsic.
// No include guard: see for_each_isa.inl.

#define PTQ_INLINE [[gnu::always_inline]] PTQ_TARGET inline

namespace ptq::kernels::PTQ_SET {

template <class T>
struct Simd;

template <>
struct Simd<float> {
  static constexpr int lanes = PTQ_VECTOR_BYTES / 4;
  typedef float V __attribute__((vector_size(PTQ_VECTOR_BYTES)));
  typedef std::int32_t Bits __attribute__((vector_size(PTQ_VECTOR_BYTES)));
  typedef std::int32_t Code __attribute__((vector_size(PTQ_VECTOR_BYTES)));
  typedef std::uint8_t Byte __attribute__((vector_size(PTQ_VECTOR_BYTES / 4)));
};

template <>
struct Simd<double> {
  static constexpr int lanes = PTQ_VECTOR_BYTES / 8;
  typedef double V __attribute__((vector_size(PTQ_VECTOR_BYTES)));
  typedef std::int64_t Bits __attribute__((vector_size(PTQ_VECTOR_BYTES)));
  typedef std::int32_t Code __attribute__((vector_size(PTQ_VECTOR_BYTES / 2)));
  typedef std::uint8_t Byte __attribute__((vector_size(PTQ_VECTOR_BYTES / 8)));
};

template <>
struct Simd<std::int32_t> {
  static constexpr int lanes = PTQ_VECTOR_BYTES / 4;
  typedef std::int32_t V __attribute__((vector_size(PTQ_VECTOR_BYTES)));
};

#if PTQ_LEVEL == 2
inline constexpr __mmask16 all_16 = 0xffff;  // masked forms throughout: the plain ones of GCC 12 warn of an uninitialized operand
inline constexpr __mmask8 all_8 = 0xff;
#endif

using VF = Simd<float>::V;
using VD = Simd<double>::V;

template <class T>
PTQ_INLINE typename Simd<T>::V splat(T x) {
  return x - typename Simd<T>::V{};
}

template <class T>
PTQ_INLINE typename Simd<T>::V load(const T* p) {
  typename Simd<T>::V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <class T>
PTQ_INLINE void store(T* p, typename Simd<T>::V v) {
  __builtin_memcpy(p, &v, sizeof v);
}

/// The first n lanes; the rest is zero (load) or left alone (store).
template <class T>
PTQ_INLINE typename Simd<T>::V load(const T* p, std::ptrdiff_t n) {
  typename Simd<T>::V v{};
  __builtin_memcpy(&v, p, static_cast<std::size_t>(n) * sizeof(T));
  return v;
}

template <class T>
PTQ_INLINE void store(T* p, typename Simd<T>::V v, std::ptrdiff_t n) {
  __builtin_memcpy(p, &v, static_cast<std::size_t>(n) * sizeof(T));
}

/// Larger / smaller of two; b where a is NaN.
PTQ_INLINE VF max(VF a, VF b) {
#if PTQ_LEVEL == 2
  return (VF)_mm512_mask_max_ps((__m512)a, all_16, (__m512)a, (__m512)b);
#elif PTQ_LEVEL == 1
  return (VF)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

PTQ_INLINE VF min(VF a, VF b) {
#if PTQ_LEVEL == 2
  return (VF)_mm512_mask_min_ps((__m512)a, all_16, (__m512)a, (__m512)b);
#elif PTQ_LEVEL == 1
  return (VF)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return a < b ? a : b;
#endif
}

PTQ_INLINE VD max(VD a, VD b) {
#if PTQ_LEVEL == 2
  return (VD)_mm512_mask_max_pd((__m512d)a, all_8, (__m512d)a, (__m512d)b);
#elif PTQ_LEVEL == 1
  return (VD)_mm256_max_pd((__m256d)a, (__m256d)b);
#else
  return a > b ? a : b;
#endif
}

PTQ_INLINE VD min(VD a, VD b) {
#if PTQ_LEVEL == 2
  return (VD)_mm512_mask_min_pd((__m512d)a, all_8, (__m512d)a, (__m512d)b);
#elif PTQ_LEVEL == 1
  return (VD)_mm256_min_pd((__m256d)a, (__m256d)b);
#else
  return a < b ? a : b;
#endif
}

/// a b + c, rounded once where the instruction set can.
PTQ_INLINE VF fma(VF a, VF b, VF c) {
#if PTQ_LEVEL == 2
  return (VF)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif PTQ_LEVEL == 1
  return (VF)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

PTQ_INLINE VD fma(VD a, VD b, VD c) {
#if PTQ_LEVEL == 2
  return (VD)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif PTQ_LEVEL == 1
  return (VD)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return a * b + c;
#endif
}

PTQ_INLINE VF abs(VF a) { return (VF)((Simd<float>::Bits)a & 0x7fffffff); }
PTQ_INLINE VD abs(VD a) { return (VD)((Simd<double>::Bits)a & 0x7fffffffffffffff); }

/// Round half to even. Portable: adding 2^23 (2^52) leaves no room for a fraction; larger numbers have none.
PTQ_INLINE VF rne(VF a) {
#if PTQ_LEVEL == 2
  return (VF)_mm512_mask_roundscale_ps((__m512)a, all_16, (__m512)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif PTQ_LEVEL == 1
  return (VF)_mm256_round_ps((__m256)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  const VF magnitude = abs(a), whole = (magnitude + 0x1p23f) - 0x1p23f;
  const VF rounded = (VF)((Simd<float>::Bits)whole | ((Simd<float>::Bits)a & ~0x7fffffff));
  return magnitude < 0x1p23f ? rounded : a;
#endif
}

PTQ_INLINE VD rne(VD a) {
#if PTQ_LEVEL == 2
  return (VD)_mm512_mask_roundscale_pd((__m512d)a, all_8, (__m512d)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif PTQ_LEVEL == 1
  return (VD)_mm256_round_pd((__m256d)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  const VD magnitude = abs(a), whole = (magnitude + 0x1p52) - 0x1p52;
  const VD rounded = (VD)((Simd<double>::Bits)whole | ((Simd<double>::Bits)a & ~0x7fffffffffffffff));
  return magnitude < 0x1p52 ? rounded : a;
#endif
}

/// Store past the caches; p is aligned to the vector. fence() before anyone else reads.
template <class T>
PTQ_INLINE void stream(T* p, typename Simd<T>::V v) {
#if PTQ_LEVEL == 2
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#elif PTQ_LEVEL == 1
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
#else
  store(p, v);
#endif
}

PTQ_INLINE void fence() {
#if PTQ_LEVEL > 0
  _mm_sfence();
#endif
}

/// Fixed order, so that it does not depend on the compiler.
template <class T>
PTQ_INLINE double sum(typename Simd<T>::V v) {
  double total = 0;
  for (int i = 0; i < Simd<T>::lanes; ++i) total += static_cast<double>(v[i]);
  return total;
}

/// Lane k from lane k + step, around the end.
template <class T, int step, int... k>
PTQ_INLINE typename Simd<T>::V rotated(typename Simd<T>::V v, std::integer_sequence<int, k...>) {
  return __builtin_shufflevector(v, v, ((k + step) % Simd<T>::lanes)...);
}

/// The largest lane in every lane.
template <class T, int step = Simd<T>::lanes / 2>
PTQ_INLINE typename Simd<T>::V largest_everywhere(typename Simd<T>::V v) {
  v = max(v, rotated<T, step>(v, std::make_integer_sequence<int, Simd<T>::lanes>{}));
  if constexpr (step > 1) {
    return largest_everywhere<T, step / 2>(v);
  } else {
    return v;
  }
}

template <class T>
PTQ_INLINE T largest(typename Simd<T>::V v) {
  return largest_everywhere<T>(v)[0];
}

template <class T>
PTQ_INLINE T smallest(typename Simd<T>::V v) {
  return -largest<T>(-v);
}

/// Finite inputs leave probe + x * 0 at zero; NaN and infinity do not.
template <class T>
PTQ_INLINE typename Simd<T>::V probe(typename Simd<T>::V x, typename Simd<T>::V so_far) {
  return fma(x, typename Simd<T>::V{}, so_far);
}

template <class T>
PTQ_INLINE bool finite(typename Simd<T>::V probed) {
  bool good = true;
  for (int i = 0; i < Simd<T>::lanes; ++i) good = good && probed[i] == T(0);
  return good;
}

/// One bit a lane of a comparison.
template <class T>
PTQ_INLINE unsigned lane_bits(typename Simd<T>::Bits comparison) {
#if PTQ_LEVEL == 2
  if constexpr (sizeof(T) == 4) {
    return _mm512_movepi32_mask((__m512i)comparison);
  } else {
    return _mm512_movepi64_mask((__m512i)comparison);
  }
#elif PTQ_LEVEL == 1
  if constexpr (sizeof(T) == 4) {
    return static_cast<unsigned>(_mm256_movemask_ps((__m256)comparison));
  } else {
    return static_cast<unsigned>(_mm256_movemask_pd((__m256d)comparison));
  }
#else
  unsigned bits = 0;
  for (int i = 0; i < Simd<T>::lanes; ++i) bits |= comparison[i] != 0 ? 1u << i : 0u;
  return bits;
#endif
}

/// Integer-valued lanes to codes of 1 or 4 bytes; n < lanes writes the first n.
template <class T>
PTQ_INLINE void store_codes(void* p, int bytes, typename Simd<T>::V integral, std::ptrdiff_t n) {
  const auto code = __builtin_convertvector(integral, typename Simd<T>::Code);
  if (bytes == 1) {
    const auto small = __builtin_convertvector(code, typename Simd<T>::Byte);
    __builtin_memcpy(p, &small, n == Simd<T>::lanes ? sizeof small : static_cast<std::size_t>(n));
  } else {
    __builtin_memcpy(p, &code, n == Simd<T>::lanes ? sizeof code : static_cast<std::size_t>(n) * 4);
  }
}

}  // namespace ptq::kernels::PTQ_SET
