// Grid fitting for one instruction set.

#include "range.inl"

namespace ptq::kernels::PTQ_SET {

/// e^p for e >= 0, p = 2 + rest: e^2 2^(rest log2 e), relative error below 1e-6 (polynomials fitted at Chebyshev nodes).
PTQ_INLINE VF power(VF e, float rest) {
  using Bits = Simd<float>::Bits;
  const Bits bits = (Bits)e, shifted = bits - 0x3f3504f3;  // mantissa in [sqrt(1/2), sqrt(2))
  const Bits k = shifted >> 23;
  const VF f = (VF)(bits - (k << 23)) - 1.0f;
  VF p = splat(0.126148462f);
  p = fma(p, f, splat(-0.207421035f)), p = fma(p, f, splat(0.21566987f)), p = fma(p, f, splat(-0.238920346f));
  p = fma(p, f, splat(0.287918329f)), p = fma(p, f, splat(-0.360704839f)), p = fma(p, f, splat(0.480910599f));
  p = fma(p, f, splat(-0.721347332f)), p = fma(p, f, splat(1.44269502f));
  const VF logarithm = fma(p, f, __builtin_convertvector(k, VF));
  const VF y = max(min(logarithm * rest, splat(126.0f)), splat(-126.0f)), whole = rne(y), t = y - whole;
  VF q = splat(0.000154697322f);
  q = fma(q, t, splat(0.00134004327f)), q = fma(q, t, splat(0.00961802527f)), q = fma(q, t, splat(0.0555032715f));
  q = fma(q, t, splat(0.240226507f)), q = fma(q, t, splat(0.693147182f)), q = fma(q, t, splat(1.0f));
  return e * e * (VF)((Bits)q + (__builtin_convertvector(whole, Bits) << 23));
}

PTQ_INLINE VD power(VD e, double rest) {
  VD result{};
  for (int i = 0; i < Simd<double>::lanes; ++i) result[i] = std::pow(e[i], 2.0 + rest);
  return result;
}

/// sum |w - fake_quantize(w)|^p / unit^p, or something above `cap` as soon as the partial sum is.
template <class T>
PTQ_TARGET inline double grid_error(const T* w, std::ptrdiff_t n, T scale, std::int32_t zero, CodeRange codes, T inverse_unit, T rest,
                                    double cap) {
  using V = typename Simd<T>::V;
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes, check = 16 * lanes;
  const V s = splat(scale), lo = splat(static_cast<T>(codes.lo - zero)), hi = splat(static_cast<T>(codes.hi - zero)),
          u = splat(inverse_unit);
  double total = 0;
  std::ptrdiff_t i = 0;
  while (i + lanes <= n && total <= cap) {
    const std::ptrdiff_t stop = i + check < n ? i + check : n;
    V part{};
    for (; i + lanes <= stop; i += lanes) {
      const V x = load(w + i), y = min(max(rne(x / s), lo), hi) * s;
      part += power(abs(x - y) * u, rest);
    }
    total += sum<T>(part);
  }
  if (i < n && total <= cap) {
    const V x = load(w + i, n - i), e = power(abs(x - min(max(rne(x / s), lo), hi) * s) * u, rest);
    for (std::ptrdiff_t k = 0; k < n - i; ++k) total += static_cast<double>(e[k]);
  }
  return total;
}

template <class T>
struct Candidate {
  T lo, hi;
  std::int32_t index;
};

/// Best of the candidates of one run of weights. Those whose partial error passes the best error known are left early, which changes
/// nothing.
template <class T>
struct Contest {
  const T* w;
  std::ptrdiff_t n;
  const Convention& convention;
  CodeRange codes;
  T inverse_unit, rest;
  double cap = std::numeric_limits<double>::infinity(), best = cap;
  Candidate<T> winner{T(0), T(0), -1};

  PTQ_TARGET double error(T lo, T hi) const {
    T scale;
    std::int32_t zero;
    formula::grid(convention, lo, hi, scale, zero);
    return grid_error(w, n, scale, zero, codes, inverse_unit, rest, cap);
  }
  PTQ_TARGET void seed(T lo, T hi) {
    const double e = error(lo, hi);
    cap = e < cap ? e : cap;
  }
  PTQ_TARGET void enter(T lo, T hi, std::int32_t index) {
    const double e = error(lo, hi);
    if (e < best) best = e, winner = {lo, hi, index};
    cap = e < cap ? e : cap;
  }
};

/// FlexRound's candidate (width i, zero point c): [-c d, width - c d], d = width / maxq, in the authors' order of operations.
template <class T>
PTQ_TARGET void search_width_and_zero(Contest<T>& contest, T lo, T hi, int steps, std::int32_t maxq) {
  const T range = hi - lo;
  const auto width = [&](int i) { return range / static_cast<T>(steps) * static_cast<T>(i); };
  for (int i = steps; 4 * i >= steps && i > 0; i -= steps / 10 + 1) {
    const T whole = width(i), d = whole / static_cast<T>(maxq);
    const T c = formula::least(formula::most(formula::rne(-lo / d), T(0)), static_cast<T>(maxq));
    if (formula::is_finite(c)) contest.seed(-(c * d), whole - c * d);
  }
  for (int i = 1; i <= steps; ++i) {
    const T whole = width(i), d = whole / static_cast<T>(maxq);
    for (std::int32_t c = 0; c <= maxq; ++c) {
      contest.enter(T(0) - static_cast<T>(c) * d, whole - static_cast<T>(c) * d, i * (maxq + 1) + c);
    }
  }
}

template <class T>
PTQ_TARGET void fit_run(const T* w, std::ptrdiff_t n, T lo, T hi, const Convention& convention, const Search& search, T& scale,
                        std::int32_t& zero, std::int32_t* winner) {
  using Kind = Search::Kind;
  formula::grid(convention, lo, hi, scale, zero);
  if (winner != nullptr) *winner = -1;
  if (search.kind == Kind::none || !formula::is_finite(lo) || !formula::is_finite(hi)) return;
  if (search.kind != Kind::shrink || formula::holds_zero(convention)) lo = formula::least(lo, T(0)), hi = formula::most(hi, T(0));
  const T widest = formula::most(-lo, hi), unit = formula::is_finite(hi - lo) ? hi - lo : widest;
  const CodeRange codes = formula::code_range(convention);
  Contest<T> contest{
      w, n, convention, codes, unit >= formula::Limits<T>::smallest ? T(1) / unit : T(1), static_cast<T>(search.exponent - 2)};
  if (search.kind == Kind::shrink) {
    const int last = static_cast<int>(search.maxshrink * search.steps);
    for (int i = 0; i < last; ++i) {
      const T p = static_cast<T>(1.0 - static_cast<double>(i) / search.steps);
      contest.enter(p * lo, p * hi, i);
    }
  } else if (search.kind == Kind::width_and_zero && !convention.symmetric) {
    search_width_and_zero(contest, lo, hi, search.steps, (std::int32_t{1} << convention.bits) - 1);
  } else {
    for (int i = 1; i <= search.steps; ++i) {
      const T t = widest / static_cast<T>(search.steps) * static_cast<T>(i);
      contest.enter(search.kind == Kind::width_positive ? T(0) : -t, search.kind == Kind::width_negative ? T(0) : t, i);
    }
  }
  if (contest.winner.index < 0) return;
  formula::grid(convention, contest.winner.lo, contest.winner.hi, scale, zero);
  if (winner != nullptr) *winner = contest.winner.index;
}

template <class T>
PTQ_TARGET Status fit_grid(View<const T> w, std::ptrdiff_t group, const Convention& convention, const Search& search,
                           const GridTable<T>& out, Rows rows) {
  typename Simd<T>::V probed{};
  for (std::ptrdiff_t r = rows.begin; r < rows.end; ++r) {
    for (std::ptrdiff_t c = 0, g = 0; c < w.cols; c += group, ++g) {
      const std::ptrdiff_t n = c + group < w.cols ? group : w.cols - c, at = r * out.row_stride + g * out.group_stride;
      T lo = std::numeric_limits<T>::infinity(), hi = -lo;
      run_range(w.row(r) + c, n, lo, hi, probed);
      fit_run(w.row(r) + c, n, lo, hi, convention, search, out.scale[at], out.zero[at], out.winner == nullptr ? nullptr : out.winner + at);
    }
  }
  return finite<T>(probed) ? Status::ok : Status::non_finite;
}

template <class T>
PTQ_TARGET Status value_range(View<const T> x, Rows rows, T& lo, T& hi) {
  typename Simd<T>::V probed{};
  for (std::ptrdiff_t r = rows.begin; r < rows.end; ++r) run_range(x.row(r), x.cols, lo, hi, probed);
  return finite<T>(probed) ? Status::ok : Status::non_finite;
}

}  // namespace ptq::kernels::PTQ_SET
