// Sorted distinct values, their weights and prefix sums, and what follows from them in closed form.

namespace ptq::kernels::PTQ_SET {

/// m distinct values z, ascending, times a power of two that brings the largest magnitude into [1/2, 1); sums over points before border j,
/// 0 <= j <= m: p of weights from the left; s of w y and q of w y^2 with y = z - middle, counted from the middle point outwards.
struct Points {
  std::ptrdiff_t m = 0;
  double *z, *p, *s, *q;
  double middle = 0;
  bool unit = false;                      // every weight is 1
  int exponent = 0, weight_exponent = 0;  // z = value 2^-exponent, w = weight 2^-weight_exponent

  Points(Scratch& from, std::ptrdiff_t n)
      : z(from.take<double>(n)), p(from.take<double>(n + 1)), s(from.take<double>(n + 1)), q(from.take<double>(n + 1)) {}

  PTQ_INLINE double weight(std::ptrdiff_t j) const { return p[j + 1] - p[j]; }

  /// sum of w (y - c)^2 over points a .. b - 1.
  PTQ_INLINE double around(double c, std::ptrdiff_t a, std::ptrdiff_t b) const {
    const double sum = (q[b] - q[a]) - c * (2 * (s[b] - s[a]) - c * (p[b] - p[a]));
    return sum > 0 ? sum : 0;
  }

  /// Number of points at or left of y = c, looked for between borders a and b. No branch depends on the values.
  PTQ_INLINE std::ptrdiff_t border(double c, std::ptrdiff_t a, std::ptrdiff_t b) const {
    const double v = c + middle;
    for (std::ptrdiff_t n = b - a; n > 0;) {
      const std::ptrdiff_t half = (n + 1) / 2;
      a += z[a + half - 1] <= v ? half : 0;
      n -= half;
    }
    return a;
  }

  /// The same where it is likely to lie near `guess`.
  PTQ_INLINE std::ptrdiff_t border_near(double c, std::ptrdiff_t guess) const {
    constexpr std::ptrdiff_t lanes = Simd<double>::lanes, window = 32;
    if (m < window) return border(c, 0, m);
    const std::ptrdiff_t first = guess < window / 2 ? 0 : guess > m - window / 2 ? m - window : guess - window / 2;
    const VD v = splat(c + middle);
    std::ptrdiff_t count = 0;
    for (std::ptrdiff_t i = 0; i < window; i += lanes) count += __builtin_popcount(lane_bits<double>(load(z + first + i) <= v));
    if (count == 0 && first > 0) return border(c, 0, first);
    if (count == window && first + window < m) return border(c, first + window, m);
    return first + count;
  }
};

PTQ_INLINE VD weights_at(const Points& x, std::ptrdiff_t j) { return load(x.p + j + 1) - load(x.p + j); }

/// sum of w (z - c)^power over points a .. b - 1, not through the prefix sums; power is 1 or 2. Eight partial sums in every instruction
/// set: the same bits.
template <int power>
PTQ_TARGET double moment(const Points& x, double c, std::ptrdiff_t a, std::ptrdiff_t b) {
  constexpr std::ptrdiff_t lanes = Simd<double>::lanes;
  VD parts[8 / lanes] = {};
  for (; a + 8 <= b; a += 8) {
    for (std::ptrdiff_t i = 0; i < 8 / lanes; ++i) {
      const VD y = load(x.z + a + i * lanes) - splat(c), wy = x.unit ? y : weights_at(x, a + i * lanes) * y;
      parts[i] += power == 1 ? wy : wy * y;
    }
  }
  double part[8], sum = 0;
  for (std::ptrdiff_t i = 0; i < 8 / lanes; ++i) store(part + i * lanes, parts[i]);
  for (std::ptrdiff_t l = 0; a < b; ++a, ++l) {
    const double y = x.z[a] - c, wy = x.weight(a) * y;
    part[l] += power == 1 ? wy : wy * y;
  }
  for (const double t : part) sum += t;
  return sum;
}

/// Mean of points a .. b - 1, a < b, relative to one of them.
PTQ_TARGET inline double mean(const Points& x, std::ptrdiff_t a, std::ptrdiff_t b) {
  const double base = x.z[(a + b) / 2], c = base + moment<1>(x, base, a, b) / (x.p[b] - x.p[a]);
  return c < x.z[a] ? x.z[a] : c > x.z[b - 1] ? x.z[b - 1] : c;
}

/// Both directions in one loop: two chains of sums hide each other's latency. unit: all weights are 1.
template <bool unit>
PTQ_TARGET void prefix_sums(Points& x) {
  const std::ptrdiff_t m = x.m, half = m / 2;
  const double* const z = x.z;
  const double* const p = x.p;
  double* const __restrict sums = x.s;
  double* const __restrict squares = x.q;
  const double middle = x.middle = z[half];
  double s = sums[half] = 0, q = squares[half] = 0, left_s = 0, left_q = 0;
  const auto right = [&](std::ptrdiff_t j) PTQ_TARGET {
    const double y = z[j] - middle, t = unit ? y : (p[j + 1] - p[j]) * y;
    sums[j + 1] = s += t, squares[j + 1] = q += t * y;
  };
  const auto left = [&](std::ptrdiff_t j) PTQ_TARGET {
    const double y = z[j] - middle, t = unit ? y : (p[j + 1] - p[j]) * y;
    sums[j] = left_s -= t, squares[j] = left_q -= t * y;
  };
#pragma GCC unroll 4
  for (std::ptrdiff_t i = 0; i < half; ++i) right(half + i), left(half - 1 - i);
  if (2 * half < m) right(m - 1);
}

inline int exponent_of(double largest) {
  if (!(largest > 0)) return 0;
  const int e = std::ilogb(largest) + 1;
  return e < -1000 ? -1000 : e;
}

/// How n values follow each other: `ascending` without NaN among them, `distinct` if no two neighbours are equal.
template <class T>
PTQ_TARGET void inspect(const T* sorted, std::ptrdiff_t n, bool& ascending, bool& distinct) {
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes;
  typename Simd<T>::Bits rises{}, differs{};
  rises = differs = ~rises;
  std::ptrdiff_t i = 1;
  for (; i + lanes <= n; i += lanes) {
    const auto a = load(sorted + i - 1), b = load(sorted + i);
    rises &= a <= b, differs &= a < b;
  }
  constexpr unsigned all_lanes = (1u << lanes) - 1;
  ascending = lane_bits<T>(rises) == all_lanes, distinct = lane_bits<T>(differs) == all_lanes;
  for (; i < n; ++i) ascending &= sorted[i - 1] <= sorted[i], distinct &= sorted[i - 1] < sorted[i];
}

/// Points of n ascending values. bad_argument: not ascending, a negative weight, or no positive one.
template <class T>
PTQ_TARGET Status gather(Points& x, const T* sorted, std::ptrdiff_t n, const T* weights) {
  bool ascending, distinct, finite = sorted[0] - sorted[0] == T(0) && sorted[n - 1] - sorted[n - 1] == T(0), positive = true;
  inspect(sorted, n, ascending, distinct);
  if (!ascending) {
    for (std::ptrdiff_t i = 0; i < n; ++i) finite &= sorted[i] - sorted[i] == T(0);
  }
  double heaviest = 0;
  for (std::ptrdiff_t i = 0; weights != nullptr && i < n; ++i) {
    const double w = static_cast<double>(weights[i]);
    finite &= w - w == 0, positive &= !(w < 0);
    heaviest = w > heaviest ? w : heaviest;
  }
  if (!finite) return Status::non_finite;
  if (!ascending || !positive || (weights != nullptr && heaviest == 0)) return Status::bad_argument;
  const double first = std::abs(static_cast<double>(sorted[0])), last = std::abs(static_cast<double>(sorted[n - 1]));
  x.exponent = exponent_of(first > last ? first : last);
  const double scale = std::ldexp(1.0, -x.exponent);
  std::ptrdiff_t m = 0;
  x.p[0] = 0;
  if (weights == nullptr && distinct) {
    for (std::ptrdiff_t i = 0; i < n; ++i) x.z[i] = static_cast<double>(sorted[i]) * scale, x.p[i + 1] = static_cast<double>(i + 1);
    m = n, x.unit = true;
  } else if (weights == nullptr) {
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      x.z[m] = static_cast<double>(sorted[i]) * scale;
      x.p[m + 1] = static_cast<double>(i + 1);
      m += i + 1 == n || sorted[i + 1] != sorted[i];
    }
  } else {
    x.weight_exponent = exponent_of(heaviest);
    const double down = std::ldexp(1.0, -x.weight_exponent);
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      if (weights[i] == T(0)) continue;
      const double z = static_cast<double>(sorted[i]) * scale, w = static_cast<double>(weights[i]) * down;
      if (m > 0 && x.z[m - 1] == z) {
        x.p[m] += w;
      } else {
        x.z[m] = z;
        x.p[m + 1] = x.p[m] + w > x.p[m] ? x.p[m] + w : std::nextafter(x.p[m], 2 * x.p[m]);  // borders stay distinct
        ++m;
      }
    }
  }
  x.m = m;
  return Status::ok;
}

}  // namespace ptq::kernels::PTQ_SET
