// The three methods of k-means for one instruction set.

#include "kmeans_points.inl"
#include "kmeans_split.inl"
#include "range.inl"
#include "sort.inl"

namespace ptq::kernels::PTQ_SET {

/// Centroids c (in y) and the points of each: border[j] .. border[j + 1] - 1.
struct Clusters {
  std::ptrdiff_t k;
  double c[max_levels];
  std::int32_t border[max_levels + 1];
};

/// Means of the intervals; one without points keeps its centroid.
PTQ_TARGET inline void update(const Points& x, Clusters& y) {
  for (std::ptrdiff_t j = 0; j < y.k; ++j) {
    const std::ptrdiff_t a = y.border[j], b = y.border[j + 1];
    if (b > a) y.c[j] = (x.s[b] - x.s[a]) / (x.p[b] - x.p[a]);
  }
}

/// Lloyd's steps from the centroids until the borders repeat; the steps taken.
PTQ_TARGET inline std::int32_t lloyd(const Points& x, Clusters& y, std::int32_t max_steps) {
  for (std::int32_t step = 0; step < max_steps; ++step) {
    bool same = y.border[y.k] == x.m;
    y.border[0] = 0, y.border[y.k] = static_cast<std::int32_t>(x.m);
    for (std::ptrdiff_t j = 1; j < y.k; ++j) {
      const auto b = static_cast<std::int32_t>(x.border_near((y.c[j - 1] + y.c[j]) / 2, y.border[j]));
      same &= b == y.border[j], y.border[j] = b;
    }
    if (same) return step;
    update(x, y);
  }
  return max_steps;
}

/// Uniform number in [0, 1) of a seed and a position: the finaliser of SplitMix64 (Steele et al. 2014).
inline double uniform(std::uint64_t seed, std::uint64_t position) {
  std::uint64_t v = (seed << 32) + position + 1;
  v *= 0x9e3779b97f4a7c15u;
  v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9u;
  v = (v ^ (v >> 27)) * 0x94d049bb133111ebu;
  return static_cast<double>((v ^ (v >> 31)) >> 11) * 0x1p-53;
}

/// Greedy k-means++: each next centroid is the best of a few points drawn in proportion to weight times squared distance.
PTQ_TARGET inline void plus_plus(const Points& x, Clusters& y, std::uint64_t seed) {
  const auto candidates = 2 + static_cast<int>(std::log(static_cast<double>(y.k)));
  double potential[max_levels];
  std::uint64_t position = 0;
  const double first = uniform(seed, position++) * x.p[x.m];
  std::ptrdiff_t a = 0, b = x.m - 1;
  while (a < b) {  // the first point with p[j + 1] > first
    const std::ptrdiff_t j = (a + b) / 2;
    if (x.p[j + 1] > first)
      b = j;
    else
      a = j + 1;
  }
  y.c[0] = x.z[a] - x.middle, y.border[0] = 0, y.border[1] = static_cast<std::int32_t>(x.m);
  potential[0] = x.around(y.c[0], 0, x.m);
  for (std::ptrdiff_t n = 1; n < y.k; ++n) {
    double total = 0;
    for (std::ptrdiff_t j = 0; j < n; ++j) total += potential[j];
    double best = std::numeric_limits<double>::infinity(), chosen = 0;
    std::ptrdiff_t left = 0, low = 0, high = 0;
    for (int t = 0; t < candidates; ++t) {
      double r = uniform(seed, position++) * total;
      std::ptrdiff_t j = 0;
      while (j + 1 < n && r >= potential[j]) r -= potential[j++];
      a = y.border[j];
      for (std::ptrdiff_t rest = y.border[j + 1] - a; rest > 1;) {  // the point whose share of the potential holds r
        const std::ptrdiff_t half = rest / 2;
        a += x.around(y.c[j], y.border[j], a + half) <= r ? half : 0;
        rest -= half;
      }
      const double v = x.z[a] - x.middle;
      const std::ptrdiff_t l = v < y.c[j] ? j - 1 : j;  // between centroids l and l + 1, -1 and n being none
      const std::ptrdiff_t lo = l < 0 ? 0 : x.border((y.c[l] + v) / 2, y.border[l], y.border[l + 1]);
      const std::ptrdiff_t hi = l + 1 == n ? x.m : x.border((v + y.c[l + 1]) / 2, y.border[l + 1], y.border[l + 2]);
      double change = x.around(v, lo, hi);
      if (l >= 0) change -= x.around(y.c[l], lo, y.border[l + 1]);
      if (l + 1 < n) change -= x.around(y.c[l + 1], y.border[l + 1], hi);
      if (change < best) best = change, chosen = v, left = l, low = lo, high = hi;
    }
    for (std::ptrdiff_t j = n; j > left + 1; --j) y.c[j] = y.c[j - 1], potential[j] = potential[j - 1], y.border[j + 1] = y.border[j];
    y.c[left + 1] = chosen;
    if (left >= 0) y.border[left + 1] = static_cast<std::int32_t>(low);
    y.border[left + 2] = static_cast<std::int32_t>(high);
    for (std::ptrdiff_t j = left < 0 ? 0 : left; j <= left + 2 && j <= n; ++j)
      potential[j] = x.around(y.c[j], y.border[j], y.border[j + 1]);
  }
}

/// Scratch of the dynamic programming over at most `items`, and of the bins.
struct SplitScratch {
  double *p, *s, *q, *before, *now, *gap;
  std::int32_t *best, *cut;

  SplitScratch(Scratch& from, std::ptrdiff_t n, std::ptrdiff_t items, std::ptrdiff_t k)
      : p(from.take<double>(items + 1)),
        s(from.take<double>(items + 1)),
        q(from.take<double>(items + 1)),
        before(from.take<double>(items + 1)),
        now(from.take<double>(items + 1)),
        gap(from.take<double>(n)),
        best(from.take<std::int32_t>(k * (items + 1))),
        cut(from.take<std::int32_t>(items + 1)) {}
};

/// Cuts the points into at most `bins` + 1 bins of about equal sums of (gap^2 weight)^(1/3); their number. cut[b] .. cut[b + 1] - 1.
PTQ_TARGET inline std::ptrdiff_t compand(const Points& x, std::ptrdiff_t bins, double* gap, std::int32_t* cut) {
  double total = 0;
  for (std::ptrdiff_t j = 1; j < x.m; ++j) {
    const double d = x.z[j] - x.z[j - 1], t = d * d * (x.p[j + 1] - x.p[j - 1]);
    std::uint64_t bits;
    __builtin_memcpy(&bits, &t, 8);
    bits = ((((bits >> 32) * 0x55555556u) >> 32) + (682u << 20)) << 32;  // cube root to 6 percent, enough for bins
    __builtin_memcpy(gap + j, &bits, 8);
    total += gap[j];
  }
  for (int round = 0; round < 8; ++round) {  // a gap wider than a bin needs one cut: what it has more would starve the rest
    const double cap = total / static_cast<double>(bins);
    double capped = 0;
    for (std::ptrdiff_t j = 1; j < x.m; ++j) gap[j] = gap[j] < cap ? gap[j] : cap, capped += gap[j];
    const bool done = capped > 0.9 * total;
    total = capped;
    if (done) break;
  }
  const double per_bin = static_cast<double>(bins) / total;
  double sum = 0;
  std::ptrdiff_t n = 0;
  std::int32_t bin = 0;
  cut[0] = 0;
  for (std::ptrdiff_t j = 1; j < x.m; ++j) {
    sum += gap[j];
    const auto next = static_cast<std::int32_t>(sum * per_bin);
    cut[n + 1] = static_cast<std::int32_t>(j), n += next != bin, bin = next;
  }
  cut[++n] = static_cast<std::int32_t>(x.m);
  return n;
}

/// Optimal intervals of the points, or of at most `bins` bins of them.
PTQ_TARGET inline void intervals(const Points& x, std::ptrdiff_t bins, const SplitScratch& s, Clusters& y) {
  if (x.m <= bins) {
    optimal_intervals({x.m, x.p, x.s, x.q, s.before, s.now, s.best}, y.k, y.border);
  } else {
    std::ptrdiff_t n = compand(x, bins, s.gap, s.cut);
    if (n < y.k) {
      n = bins;
      for (std::ptrdiff_t b = 0; b <= n; ++b) s.cut[b] = static_cast<std::int32_t>(b * x.m / n);
    }
    for (std::ptrdiff_t b = 0; b <= n; ++b) s.p[b] = x.p[s.cut[b]], s.s[b] = x.s[s.cut[b]], s.q[b] = x.q[s.cut[b]];
    optimal_intervals({n, s.p, s.s, s.q, s.before, s.now, s.best}, y.k, y.border);
    for (std::ptrdiff_t j = 0; j <= y.k; ++j) y.border[j] = s.cut[y.border[j]];
  }
  update(x, y);
}

/// Levels of the clusters, as means of their points taken directly.
template <class T>
PTQ_TARGET void levels_of(const Points& x, const Clusters& y, T* levels) {
  const double scale = std::ldexp(1.0, x.exponent);
  for (std::ptrdiff_t j = 0; j < y.k; ++j) {
    const std::ptrdiff_t a = y.border[j], b = y.border[j + 1];
    levels[j] = static_cast<T>((b > a ? mean(x, a, b) : y.c[j] + x.middle) * scale);
    if (j > 0 && levels[j] < levels[j - 1]) levels[j] = levels[j - 1];
  }
}

/// Squared error with the nearest of ascending levels.
template <class T>
PTQ_TARGET double error_of(const Points& x, const T* levels, std::ptrdiff_t k) {
  const double scale = std::ldexp(1.0, -x.exponent);
  double sum = 0;
  std::ptrdiff_t a = 0;
  for (std::ptrdiff_t j = 0; j < k; ++j) {
    const double c = static_cast<double>(levels[j]) * scale;
    const double next = j + 1 < k ? static_cast<double>(levels[j + 1]) * scale : c;
    const std::ptrdiff_t b = j + 1 < k ? x.border((c + next) / 2 - x.middle, a, x.m) : x.m;
    sum += moment<2>(x, c, a, b), a = b;
  }
  return std::ldexp(sum, 2 * x.exponent + x.weight_exponent);
}

inline std::ptrdiff_t bins_of(std::ptrdiff_t k) { return k <= 32 ? 512 : 16 * k; }

/// Scratch of kmeans_sorted.
struct KMeansScratch {
  Points x;
  SplitScratch split;

  KMeansScratch(Scratch& s, std::ptrdiff_t n, std::ptrdiff_t k, KMeans method)
      : x(s, n),
        split(s, n,
              method == KMeans::lloyd                       ? 0
              : method == KMeans::optimal || n < bins_of(k) ? n
                                                            : bins_of(k),
              k) {}
};

template <class T>
PTQ_TARGET Status kmeans_sorted(const T* sorted, std::ptrdiff_t n, const Clustering<T>& how, Scratch scratch) {
  KMeansScratch s(scratch, n, how.k, how.method);
  Points& x = s.x;
  const Status status = gather(x, sorted, n, how.weights);
  if (status != Status::ok) return status;
  std::int32_t steps = 0;
  const std::ptrdiff_t k = how.k;
  if (how.start != nullptr && how.max_steps == 0) {
    for (std::ptrdiff_t j = 0; j < k; ++j) how.levels[j] = how.start[j];
  } else if (x.m <= k) {
    const double scale = std::ldexp(1.0, x.exponent);
    for (std::ptrdiff_t j = 0; j < k; ++j) how.levels[j] = static_cast<T>(x.z[j < x.m ? j : x.m - 1] * scale);
  } else {
    x.unit ? prefix_sums<true>(x) : prefix_sums<false>(x);
    Clusters y;
    y.k = k;
    const std::int32_t longest = how.max_steps >= 0 ? how.max_steps : how.method == KMeans::coarse && how.start == nullptr ? 100 : 300;
    if (how.start != nullptr) {
      const double scale = std::ldexp(1.0, -x.exponent);
      for (std::ptrdiff_t j = 0; j < k; ++j) y.c[j] = static_cast<double>(how.start[j]) * scale - x.middle;
      for (std::ptrdiff_t j = 0; j <= k; ++j) y.border[j] = 0;
      steps = lloyd(x, y, longest);
    } else if (how.method == KMeans::lloyd) {
      plus_plus(x, y, how.seed);
      for (std::ptrdiff_t j = 0; j <= k; ++j) y.border[j] = 0;
      steps = lloyd(x, y, longest);
    } else if (how.method == KMeans::coarse) {
      intervals(x, bins_of(k), s.split, y);
      steps = lloyd(x, y, longest);
    } else {
      intervals(x, x.m, s.split, y);
    }
    levels_of(x, y, how.levels);
  }
  if (how.sse != nullptr) *how.sse = error_of(x, how.levels, k);
  if (how.steps != nullptr) *how.steps = steps;
  return Status::ok;
}

}  // namespace ptq::kernels::PTQ_SET
