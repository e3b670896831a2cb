// Optimal intervals by dynamic programming over prefix sums: D_k[i] = min over j of D_(k-1)[j] + cost(j, i), the least squared error of
// points 0 .. i - 1 in k intervals. The cost satisfies the quadrangle inequality, so the leftmost best j does not decrease with i, and
// a row need only be searched between the results of rows already known (divide and conquer, O(m log m) a layer).

namespace ptq::kernels::PTQ_SET {

/// Prefix sums over m items, and scratch: two layers and the splits of all.
struct Split {
  std::ptrdiff_t m;
  const double *p, *s, *q;  // [m + 1]
  double *before, *now;     // [m + 1]
  std::int32_t* best;       // [k x (m + 1)]
};

/// before[j] + cost(j, i) for the j of as many lanes from b on, infinite for those after hi.
PTQ_INLINE VD split_values(const Split& x, VD p, VD s, VD q, std::ptrdiff_t b, std::ptrdiff_t hi) {
  VD lane;
  for (int l = 0; l < Simd<double>::lanes; ++l) lane[l] = static_cast<double>(l);
  const VD sum = s - load(x.s + b), rest = (q - load(x.q + b)) - sum * sum / (p - load(x.p + b));
  return lane <= splat(static_cast<double>(hi - b)) ? load(x.before + b) + max(rest, VD{}) : splat(std::numeric_limits<double>::infinity());
}

/// Least before[j] + cost(j, i) for lo <= j <= hi < i, the first j of equal ones.
PTQ_INLINE double best_split(const Split& x, std::ptrdiff_t i, std::ptrdiff_t lo, std::ptrdiff_t hi, std::int32_t& split) {
  constexpr std::ptrdiff_t lanes = Simd<double>::lanes;
  const VD p = splat(x.p[i]), s = splat(x.s[i]), q = splat(x.q[i]);
  VD least = split_values(x, p, s, q, lo, hi);
  if (hi - lo < lanes) {
    const double value = smallest<double>(least);
    split = static_cast<std::int32_t>(lo + __builtin_ctz(lane_bits<double>(least == splat(value))));
    return value;
  }
  VD at = splat(static_cast<double>(lo));  // where each lane's least value was found
  for (std::ptrdiff_t b = lo + lanes; b <= hi; b += lanes) {
    const VD value = split_values(x, p, s, q, b, hi);
    const auto better = value < least;
    least = better ? value : least, at = better ? splat(static_cast<double>(b)) : at;
  }
  const double value = smallest<double>(least);
  VD lane;
  for (int l = 0; l < lanes; ++l) lane[l] = static_cast<double>(l);
  split = static_cast<std::int32_t>(smallest<double>(least == splat(value) ? at + lane : splat(std::numeric_limits<double>::infinity())));
  return value;
}

/// Borders of the k optimal intervals, 1 <= k <= m: border[0] = 0, border[k] = m.
PTQ_TARGET inline void optimal_intervals(const Split& in, std::ptrdiff_t k, std::int32_t* border) {
  Split x = in;
  const std::ptrdiff_t m = x.m, row = m + 1;
  border[0] = 0, border[k] = static_cast<std::int32_t>(m);
  if (k == 1) return;
  for (std::ptrdiff_t i = 1; i <= m - k + 1; ++i) {
    const double sum = x.s[i] - x.s[0], rest = (x.q[i] - x.q[0]) - sum * sum / (x.p[i] - x.p[0]);
    x.now[i] = rest > 0 ? rest : 0;
  }
  for (std::ptrdiff_t layer = 2; layer < k; ++layer) {
    std::swap(x.before, x.now);
    std::int32_t* const best = x.best + layer * row + layer;  // of row i = layer + r at r
    const std::ptrdiff_t rows = m - k + 1;
    std::ptrdiff_t step = 1;
    while (step * 2 <= rows) step *= 2;
    for (; step >= 1; step /= 2) {
      for (std::ptrdiff_t r = step - 1; r < rows; r += 2 * step) {
        const std::ptrdiff_t lo = r >= step ? best[r - step] : layer - 1, last = layer + r - 1;
        const std::ptrdiff_t hi = r + step < rows && best[r + step] < last ? best[r + step] : last;
        x.now[layer + r] = best_split(x, layer + r, lo, hi, best[r]);
      }
    }
  }
  std::swap(x.before, x.now);
  best_split(x, m, k - 1, m - 1, border[k - 1]);
  for (std::ptrdiff_t layer = k - 1; layer > 1; --layer) border[layer - 1] = x.best[layer * row + border[layer]];
}

}  // namespace ptq::kernels::PTQ_SET
