// Radix sort of floating-point numbers, least significant digit first, with or without the index that each number had.

namespace ptq::kernels::PTQ_SET {

/// Unsigned integers in the order of the numbers.
template <class T>
struct SortKey {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  static constexpr Bits sign = Bits(1) << (8 * sizeof(T) - 1);

  PTQ_INLINE static Bits of(T x) {
    Bits b;
    x += T(0);  // -0 becomes 0
    __builtin_memcpy(&b, &x, sizeof b);
    return b ^ ((Bits(0) - (b >> (8 * sizeof(T) - 1))) | sign);
  }
  PTQ_INLINE static T value(Bits b) {
    b ^= ((b >> (8 * sizeof(T) - 1)) - Bits(1)) | sign;
    T x;
    __builtin_memcpy(&x, &b, sizeof b);
    return x;
  }
};

inline constexpr int digit_bits = 11, digit_values = 1 << digit_bits;

template <class T>
inline constexpr int digits = (8 * static_cast<int>(sizeof(T)) + digit_bits - 1) / digit_bits;

template <class T>
struct SortScratch {
  using Bits = typename SortKey<T>::Bits;
  Bits *key, *other;
  std::int32_t *index, *other_index;
  std::uint32_t* count;  // [digits x digit_values]

  SortScratch(Scratch& s, std::ptrdiff_t n)
      : key(s.take<Bits>(n)),
        other(s.take<Bits>(n)),
        index(s.take<std::int32_t>(n)),
        other_index(s.take<std::int32_t>(n)),
        count(s.take<std::uint32_t>(digits<T> * digit_values)) {}
};

template <class T, bool indexed>
PTQ_TARGET void radix_sort(const T* x, std::ptrdiff_t n, std::ptrdiff_t stride, T* sorted, std::int32_t* order, SortScratch<T> s) {
  using Key = SortKey<T>;
  using Bits = typename Key::Bits;
  for (std::ptrdiff_t i = 0; i < digits<T> * digit_values; ++i) s.count[i] = 0;
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const Bits b = Key::of(x[i * stride]);
    s.key[i] = b;
    if constexpr (indexed) s.index[i] = static_cast<std::int32_t>(i);
    for (int d = 0; d < digits<T>; ++d)
      ++s.count[d * digit_values + static_cast<std::ptrdiff_t>(b >> (d * digit_bits) & (digit_values - 1))];
  }
  for (int d = 0; d < digits<T>; ++d) {
    std::uint32_t* const count = s.count + d * digit_values;
    if (count[s.key[0] >> (d * digit_bits) & (digit_values - 1)] == static_cast<std::uint32_t>(n)) continue;  // all alike
    std::uint32_t sum = 0;
    for (int v = 0; v < digit_values; ++v) {
      const std::uint32_t c = count[v];
      count[v] = sum, sum += c;
    }
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      const Bits b = s.key[i];
      const std::uint32_t to = count[b >> (d * digit_bits) & (digit_values - 1)]++;
      s.other[to] = b;
      if constexpr (indexed) s.other_index[to] = s.index[i];
    }
    std::swap(s.key, s.other), std::swap(s.index, s.other_index);
  }
  for (std::ptrdiff_t i = 0; i < n; ++i) sorted[i] = Key::value(s.key[i]);
  if constexpr (indexed) {
    for (std::ptrdiff_t i = 0; i < n; ++i) order[i] = s.index[i];
  }
}

template <class T>
PTQ_TARGET Status sort_values(const T* x, std::ptrdiff_t n, std::ptrdiff_t stride, T* sorted, std::int32_t* order, Scratch scratch) {
  const SortScratch<T> s(scratch, n);
  if (order != nullptr) {
    radix_sort<T, true>(x, n, stride, sorted, order, s);
  } else {
    radix_sort<T, false>(x, n, stride, sorted, nullptr, s);
  }
  const T low = sorted[0], high = sorted[n - 1];  // infinities and NaN sort to the ends
  return low - low == T(0) && high - high == T(0) ? Status::ok : Status::non_finite;
}

}  // namespace ptq::kernels::PTQ_SET
