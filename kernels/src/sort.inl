// Sorting floating-point numbers, with or without the index that each had. Equal numbers keep their order.

namespace ptq::kernels::PTQ_SET {

/// Unsigned integers in the order of the numbers; there is no -0 among them.
template <class T>
struct SortKey {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  static constexpr int bits = 8 * static_cast<int>(sizeof(T));
  static constexpr Bits sign = Bits(1) << (bits - 1);

  PTQ_INLINE static Bits of(T x) {
    Bits b;
    __builtin_memcpy(&b, &x, sizeof b);
    return b ^ ((Bits(0) - (b >> (bits - 1))) | sign);
  }
  PTQ_INLINE static T value(Bits b) {
    b ^= ((b >> (bits - 1)) - Bits(1)) | sign;
    T x;
    __builtin_memcpy(&x, &b, sizeof b);
    return x;
  }
};

inline constexpr int digit_bits = 11, digit_values = 1 << digit_bits;

template <class T>
inline constexpr int digits = (SortKey<T>::bits + digit_bits - 1) / digit_bits;

template <class T>
struct SortScratch {
  using Bits = typename SortKey<T>::Bits;
  T* value;             // [n] without -0
  std::uint32_t* code;  // [n]
  std::uint64_t* pair;  // [n]
  Bits *key, *other;    // [n]
  std::int32_t *index, *other_index;
  std::uint32_t* count;  // [digits x digit_values]

  SortScratch(Scratch& s, std::ptrdiff_t n)
      : value(s.take<T>(n)),
        code(s.take<std::uint32_t>(n)),
        pair(s.take<std::uint64_t>(n)),
        key(s.take<Bits>(n)),
        other(s.take<Bits>(n)),
        index(s.take<std::int32_t>(n)),
        other_index(s.take<std::int32_t>(n)),
        count(s.take<std::uint32_t>(digits<T> * digit_values)) {}
};

/// Counts become the places where each digit begins.
PTQ_TARGET inline void begins(std::uint32_t* count, std::ptrdiff_t values) {
  std::uint32_t before = 0;
  for (std::ptrdiff_t v = 0; v < values; ++v) {
    const std::uint32_t c = count[v];
    count[v] = before, before += c;
  }
}

/// By all bits, least significant digit first: any numbers.
template <class T, bool indexed>
PTQ_TARGET void radix_sort(SortScratch<T> s, std::ptrdiff_t n, T* sorted, std::int32_t* order) {
  using Key = SortKey<T>;
  const auto digit = [](typename Key::Bits b, int d) { return static_cast<std::ptrdiff_t>(b >> (d * digit_bits) & (digit_values - 1)); };
  for (std::ptrdiff_t i = 0; i < digits<T> * digit_values; ++i) s.count[i] = 0;
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    s.key[i] = Key::of(s.value[i]);
    if constexpr (indexed) s.index[i] = static_cast<std::int32_t>(i);
    for (int d = 0; d < digits<T>; ++d) ++s.count[d * digit_values + digit(s.key[i], d)];
  }
  for (int d = 0; d < digits<T>; ++d) {
    std::uint32_t* const count = s.count + d * digit_values;
    if (count[digit(s.key[0], d)] == static_cast<std::uint32_t>(n)) continue;  // all alike
    begins(count, digit_values);
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      const std::uint32_t to = count[digit(s.key[i], d)]++;
      s.other[to] = s.key[i];
      if constexpr (indexed) s.other_index[to] = s.index[i];
    }
    std::swap(s.key, s.other), std::swap(s.index, s.other_index);
  }
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    sorted[i] = Key::value(s.key[i]);
    if constexpr (indexed) order[i] = s.index[i];
  }
}

/// Ends an almost finished sort by insertion; false, with some order, where that would take long.
template <class T, bool indexed>
PTQ_TARGET bool insertion_sort(std::ptrdiff_t n, T* sorted, std::int32_t* order) {
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes;
  std::ptrdiff_t moves = 4 * n;
  for (std::ptrdiff_t b = 1; b < n; b += lanes) {
    if (b + lanes <= n && lane_bits<T>(load(sorted + b) < load(sorted + b - 1)) == 0) continue;
    for (std::ptrdiff_t i = b; i < n && i < b + lanes; ++i) {
      const T x = sorted[i];
      const std::int32_t at = indexed ? order[i] : 0;
      std::ptrdiff_t j = i;
      for (; j > 0 && sorted[j - 1] > x && moves > 0; --j, --moves) {
        sorted[j] = sorted[j - 1];
        if constexpr (indexed) order[j] = order[j - 1];
      }
      sorted[j] = x;
      if constexpr (indexed) order[j] = at;
    }
    if (moves <= 0) return false;
  }
  return true;
}

/// By place between the extremes in 2^20 or 2^22 steps, two digits, then by insertion: few numbers share a step unless outliers crowd the
/// others together. The fast way for columns of weights; false where it is not.
template <class T, bool indexed, int bits>
PTQ_TARGET bool proportional_sort(const SortScratch<T>& s, std::ptrdiff_t n, T lowest, T highest, T* sorted, std::int32_t* order) {
  constexpr std::uint32_t values = 1u << bits;
  const T width = highest - lowest, scale = static_cast<T>(values * values - 1) / width;
  if (!(width - width == T(0)) || !(scale - scale == T(0))) return false;
  const T* const value = s.value;
  std::uint32_t* const __restrict code = s.code;
  std::uint64_t* const __restrict pair = s.pair;
  std::uint32_t* const __restrict low = s.count;  // of each digit: how often, then where its next number goes
  std::uint32_t* const __restrict high = s.count + values;
  for (std::uint32_t v = 0; v < values; ++v) low[v] = high[v] = 0;
  for (std::ptrdiff_t i = 0; i < n; ++i) code[i] = static_cast<std::uint32_t>(static_cast<std::int32_t>((value[i] - lowest) * scale));
#pragma GCC unroll 4
  for (std::ptrdiff_t i = 0; i < n; ++i) ++low[code[i] % values], ++high[code[i] / values];
  begins(low, values), begins(high, values);
#pragma GCC unroll 4
  for (std::ptrdiff_t i = 0; i < n; ++i) {  // a pair holds the high digit and what is sorted: the number if it is short, else its index
    std::uint32_t payload = static_cast<std::uint32_t>(i);
    if constexpr (!indexed && sizeof(T) == 4) __builtin_memcpy(&payload, value + i, 4);
    pair[low[code[i] % values]++] = std::uint64_t(code[i] / values) << 32 | payload;
  }
#pragma GCC unroll 4
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const std::uint32_t to = high[pair[i] >> 32]++, payload = static_cast<std::uint32_t>(pair[i]);
    if constexpr (!indexed && sizeof(T) == 4) {
      __builtin_memcpy(sorted + to, &payload, 4);
    } else {
      sorted[to] = value[payload];
      if constexpr (indexed) order[to] = static_cast<std::int32_t>(payload);
    }
  }
  return insertion_sort<T, indexed>(n, sorted, order);
}

template <class T, bool indexed>
PTQ_TARGET Status sort_values(const T* x, std::ptrdiff_t n, std::ptrdiff_t stride, T* sorted, std::int32_t* order,
                              const SortScratch<T>& s) {
  T lowest = std::numeric_limits<T>::infinity(), highest = -lowest;
  typename Simd<T>::V probed{};
  if (stride == 1) {
    for (std::ptrdiff_t i = 0; i < n; ++i) s.value[i] = x[i] + T(0);
  } else {
    for (std::ptrdiff_t i = 0; i < n; ++i) s.value[i] = x[i * stride] + T(0);
  }
  run_range(s.value, n, lowest, highest, probed);
  const bool good = finite<T>(probed);
  if (good && lowest < highest) {
    const bool done = n < 8192 ? proportional_sort<T, indexed, 10>(s, n, lowest, highest, sorted, order)
                               : proportional_sort<T, indexed, 11>(s, n, lowest, highest, sorted, order);
    if (!done) radix_sort<T, indexed>(s, n, sorted, order);
    return Status::ok;
  }
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    sorted[i] = s.value[i];
    if constexpr (indexed) order[i] = static_cast<std::int32_t>(i);
  }
  return good ? Status::ok : Status::non_finite;
}

template <class T>
PTQ_TARGET Status sort_values(const T* x, std::ptrdiff_t n, std::ptrdiff_t stride, T* sorted, std::int32_t* order, Scratch scratch) {
  const SortScratch<T> s(scratch, n);
  return order != nullptr ? sort_values<T, true>(x, n, stride, sorted, order, s) : sort_values<T, false>(x, n, stride, sorted, order, s);
}

}  // namespace ptq::kernels::PTQ_SET
