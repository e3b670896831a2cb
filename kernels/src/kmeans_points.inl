// Sorted distinct values, their weights and prefix sums, and what follows from them in closed form.

namespace ptq::kernels::PTQ_SET {

/// m distinct values z, ascending, times a power of two that brings the largest magnitude into [1/2, 1); sums over points before border j,
/// 0 <= j <= m: p of weights from the left; s of w y and q of w y^2 with y = z - middle, counted from the middle point outwards.
struct Points {
  std::ptrdiff_t m = 0;
  double *z, *p, *s, *q;
  double middle = 0;
  int exponent = 0, weight_exponent = 0;  // z = value 2^-exponent, w = weight 2^-weight_exponent

  Points(Scratch& from, std::ptrdiff_t n)
      : z(from.take<double>(n)), p(from.take<double>(n + 1)), s(from.take<double>(n + 1)), q(from.take<double>(n + 1)) {}

  PTQ_INLINE double weight(std::ptrdiff_t j) const { return p[j + 1] - p[j]; }

  /// sum of w (y - c)^2 over points a .. b - 1.
  PTQ_INLINE double around(double c, std::ptrdiff_t a, std::ptrdiff_t b) const {
    const double sum = (q[b] - q[a]) - c * (2 * (s[b] - s[a]) - c * (p[b] - p[a]));
    return sum > 0 ? sum : 0;
  }

  /// Number of points at or left of y = c, looked for between borders a and b.
  PTQ_INLINE std::ptrdiff_t border(double c, std::ptrdiff_t a, std::ptrdiff_t b) const {
    const double v = c + middle;
    const double* base = z + a;
    for (std::ptrdiff_t n = b - a; n > 0;) {
      const std::ptrdiff_t half = (n + 1) / 2;
      base += base[half - 1] <= v ? half : 0;
      n -= half;
    }
    return base - z;
  }
};

inline constexpr std::ptrdiff_t sums = 8;  // partial sums of a long one, in every instruction set: the same bits

/// Mean of points a .. b - 1, a < b, not through the prefix sums: relative to one of them.
PTQ_TARGET inline double mean(const Points& x, std::ptrdiff_t a, std::ptrdiff_t b) {
  const double base = x.z[(a + b) / 2];
  double part[sums] = {};
  std::ptrdiff_t j = a;
  for (; j + sums <= b; j += sums) {
    for (std::ptrdiff_t i = 0; i < sums; ++i) part[i] += x.weight(j + i) * (x.z[j + i] - base);
  }
  for (; j < b; ++j) part[0] += x.weight(j) * (x.z[j] - base);
  double sum = 0;
  for (const double t : part) sum += t;
  const double c = base + sum / (x.p[b] - x.p[a]);
  return c < x.z[a] ? x.z[a] : c > x.z[b - 1] ? x.z[b - 1] : c;
}

/// sum of w (z - c)^2 over points a .. b - 1.
PTQ_TARGET inline double distance(const Points& x, double c, std::ptrdiff_t a, std::ptrdiff_t b) {
  double part[sums] = {};
  std::ptrdiff_t j = a;
  for (; j + sums <= b; j += sums) {
    for (std::ptrdiff_t i = 0; i < sums; ++i) part[i] += x.weight(j + i) * ((x.z[j + i] - c) * (x.z[j + i] - c));
  }
  for (; j < b; ++j) part[0] += x.weight(j) * ((x.z[j] - c) * (x.z[j] - c));
  double sum = 0;
  for (const double t : part) sum += t;
  return sum;
}

PTQ_TARGET inline void prefix_sums(Points& x) {
  const std::ptrdiff_t half = x.m / 2;
  x.middle = x.z[half];
  x.s[half] = x.q[half] = 0;
  double s = 0, q = 0;
  for (std::ptrdiff_t j = half; j < x.m; ++j) {
    const double y = x.z[j] - x.middle, w = x.weight(j);
    s += w * y, q += w * (y * y);
    x.s[j + 1] = s, x.q[j + 1] = q;
  }
  s = q = 0;
  for (std::ptrdiff_t j = half; j-- > 0;) {
    const double y = x.z[j] - x.middle, w = x.weight(j);
    s -= w * y, q -= w * (y * y);
    x.s[j] = s, x.q[j] = q;
  }
}

inline int exponent_of(double largest) {
  if (!(largest > 0)) return 0;
  const int e = std::ilogb(largest) + 1;
  return e < -1000 ? -1000 : e;
}

/// Points of n ascending values. bad_argument: not ascending, a negative weight, or no positive one.
template <class T>
PTQ_TARGET Status gather(Points& x, const T* sorted, std::ptrdiff_t n, const T* weights) {
  bool ascending = true, finite = true, positive = true;
  for (std::ptrdiff_t i = 0; i < n; ++i) finite &= sorted[i] - sorted[i] == T(0);
  for (std::ptrdiff_t i = 1; i < n; ++i) ascending &= sorted[i - 1] <= sorted[i];
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
  if (weights == nullptr) {
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
