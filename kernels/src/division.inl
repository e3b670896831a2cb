// Element-wise division for one instruction set: one pass forward, one pass backward, nothing kept between them but the inputs.

#include "exponential.inl"
#include "quantize.inl"

namespace ptq::kernels::PTQ_SET {

/// What one row reads and writes; absent parts are null.
template <class T>
struct DivisionRow {
  const T *w, *matrix, *column, *upstream;
  T row;  ///< row part of T
  T bound;
  T *values, *divisors, *d_matrix, *d_weight, *d_column;
};

/// Sums over a row and over a run of one grid.
template <class T>
struct DivisionSums {
  typename Simd<T>::V row{}, step{};
};

template <class T>
PTQ_INLINE typename Simd<T>::V load_some(const T* p, std::ptrdiff_t c, std::ptrdiff_t n) {
  return n == Simd<T>::lanes ? load(p + c) : load(p + c, n);
}
template <class T>
PTQ_INLINE void store_some(T* p, std::ptrdiff_t c, std::ptrdiff_t n, typename Simd<T>::V v) {
  if (n == Simd<T>::lanes)
    store(p + c, v);
  else
    store(p + c, v, n);
}

/// Asks for what is read in a while. The hardware looks ahead by itself, but stops at the end of every page, and a row of each operand has
/// but a few of them.
template <class T>
PTQ_INLINE void ahead(const T* p) {
  __builtin_prefetch(reinterpret_cast<const char*>(p) + 2048);
}

/// `n` lanes from column c on; l: log step, in all lanes.
template <class T, bool Backward, bool Streaming>
PTQ_INLINE void divide_lanes(const DivisionRow<T>& x, std::ptrdiff_t c, std::ptrdiff_t n, const GridVector<T>& g, typename Simd<T>::V l,
                             DivisionSums<T>& sums, typename Simd<T>::V& largest_log, typename Simd<T>::V& probed) {
  using V = typename Simd<T>::V;
  using Bits = typename Simd<T>::Bits;
  if (n == Simd<T>::lanes) {
    ahead(x.w + c);
    if (x.matrix != nullptr) ahead(x.matrix + c);
    if constexpr (Backward) ahead(x.upstream + c);
  }
  const V w = load_some(x.w, c, n);
  V part = x.matrix != nullptr ? load_some(x.matrix, c, n) : V{}, t;
  Bits free = ~Bits{};
  if (x.bound == T(0)) {
    t = (l + part) + x.row;
    if (x.column != nullptr) t += load_some(x.column, c, n);
  } else {
    part += x.row;
    if (x.column != nullptr) part += load_some(x.column, c, n);
    free = (Bits)(abs(part) <= x.bound);
    t = l + min(max(part, splat(-x.bound)), splat(x.bound));
  }
  largest_log = max(abs(t), largest_log);
  probed = probe<T>(w, probe<T>(t, probed));
  const V divisor = exponential<T>(t), v = w / divisor, k = rne(v), q = min(max(k, g.lo), g.hi);
  if constexpr (!Backward) {
    if constexpr (Streaming) {
      stream(x.values + c, q * g.scale);
    } else if (x.values != nullptr) {
      store_some(x.values, c, n, q * g.scale);
    }
    if (x.divisors != nullptr) store_some(x.divisors, c, n, divisor);
  } else {
    const V upstream = load_some(x.upstream, c, n), gs = upstream * g.scale;  // zero in lanes that do not exist
    const Bits inside = (Bits)(q == k);
    const V followed = (V)((Bits)v & inside);
    probed = probe<T>(upstream, probed);
    sums.step += gs * (q - followed);
    const V d = (V)((Bits)(-gs * followed) & free);
    sums.row += d;
    if constexpr (Streaming) {
      stream(x.d_matrix + c, d);
    } else if (x.d_matrix != nullptr) {
      store_some(x.d_matrix, c, n, d);
    }
    if (x.d_column != nullptr) store_some(x.d_column, c, n, load_some<T>(x.d_column, c, n) + d);
    if (x.d_weight != nullptr) store_some(x.d_weight, c, n, (V)((Bits)(gs / divisor) & inside));
  }
}

template <class T, bool Backward, bool Streaming>
PTQ_INLINE void divide_row(const DivisionRow<T>& x, std::ptrdiff_t cols, std::ptrdiff_t r, const Grid<T>& grid, const T* log_step,
                           T* d_log_step, T* d_row, typename Simd<T>::V& largest_log, typename Simd<T>::V& probed) {
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes;
  const std::ptrdiff_t group = grid.group == 0 ? cols : grid.group;
  DivisionSums<T> sums;
  for (std::ptrdiff_t begin = 0, i = 0; begin < cols; begin += group, ++i) {
    const std::ptrdiff_t at = r * grid.row_stride + i * grid.group_stride, end = begin + group < cols ? begin + group : cols;
    const GridVector<T> g = spread(grid.scale[at], zero_at(grid, at), grid.codes);
    const typename Simd<T>::V l = splat(log_step[at]);
    sums.step = typename Simd<T>::V{};
    std::ptrdiff_t c = begin;
    for (; c + lanes <= end; c += lanes) divide_lanes<T, Backward, Streaming>(x, c, lanes, g, l, sums, largest_log, probed);
    if (c < end) divide_lanes<T, Backward, false>(x, c, end - c, g, l, sums, largest_log, probed);
    if (Backward && d_log_step != nullptr) {
      const T sum_of_step = static_cast<T>(sum<T>(sums.step));
      d_log_step[at] = grid.row_stride == 0 ? d_log_step[at] + sum_of_step : sum_of_step;
    }
  }
  if (Backward && d_row != nullptr) *d_row = static_cast<T>(sum<T>(sums.row));
}

template <class T>
PTQ_TARGET inline Status division_status(typename Simd<T>::V largest_log, typename Simd<T>::V probed) {
  return finite<T>(probed) && largest<T>(largest_log) <= max_exponent<T> ? Status::ok : Status::non_finite;
}

template <class T>
PTQ_INLINE DivisionRow<T> division_row(View<const T> w, const LogDivisor<T>& t, std::ptrdiff_t r) {
  DivisionRow<T> x{};
  x.w = w.row(r), x.matrix = t.matrix.data == nullptr ? nullptr : t.matrix.row(r), x.column = t.column;
  x.row = t.row == nullptr ? T(0) : t.row[r], x.bound = t.bound;
  return x;
}

template <class T>
PTQ_TARGET Status divide(View<const T> w, const Grid<T>& grid, const LogDivisor<T>& t, View<T> values, View<T> divisors, Rows rows) {
  const bool streaming = streams(w, values, {}, grid.group);
  typename Simd<T>::V largest_log{}, probed{};
  for (std::ptrdiff_t r = rows.begin; r < rows.end; ++r) {
    DivisionRow<T> x = division_row(w, t, r);
    x.values = values.data == nullptr ? nullptr : values.row(r), x.divisors = divisors.data == nullptr ? nullptr : divisors.row(r);
    if (streaming) {
      divide_row<T, false, true>(x, w.cols, r, grid, t.log_step, nullptr, nullptr, largest_log, probed);
    } else {
      divide_row<T, false, false>(x, w.cols, r, grid, t.log_step, nullptr, nullptr, largest_log, probed);
    }
  }
  if (streaming) fence();
  return division_status<T>(largest_log, probed);
}

template <class T>
PTQ_TARGET Status divide_gradient(View<const T> w, const Grid<T>& grid, const LogDivisor<T>& t, const DivisionGradient<T>& gradient,
                                  Rows rows) {
  const bool streaming = streams(gradient.upstream, gradient.matrix, {}, grid.group);
  typename Simd<T>::V largest_log{}, probed{};
  for (std::ptrdiff_t r = rows.begin; r < rows.end; ++r) {
    DivisionRow<T> x = division_row(w, t, r);
    x.upstream = gradient.upstream.row(r), x.d_column = gradient.column;
    x.d_matrix = gradient.matrix.data == nullptr ? nullptr : gradient.matrix.row(r);
    x.d_weight = gradient.weight.data == nullptr ? nullptr : gradient.weight.row(r);
    T* const d_row = gradient.row == nullptr ? nullptr : gradient.row + r;
    if (streaming) {
      divide_row<T, true, true>(x, w.cols, r, grid, t.log_step, gradient.log_step, d_row, largest_log, probed);
    } else {
      divide_row<T, true, false>(x, w.cols, r, grid, t.log_step, gradient.log_step, d_row, largest_log, probed);
    }
  }
  if (streaming) fence();
  return division_status<T>(largest_log, probed);
}

template <class T>
PTQ_TARGET Status exponentials(const T* x, T* out, std::ptrdiff_t n) {
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes;
  typename Simd<T>::V largest_log{}, probed{};
  for (std::ptrdiff_t i = 0; i < n; i += lanes) {
    const std::ptrdiff_t some = i + lanes <= n ? lanes : n - i;
    const auto v = load_some(x, i, some);
    largest_log = max(abs(v), largest_log), probed = probe<T>(v, probed);
    store_some(out, i, some, exponential<T>(v));
  }
  return division_status<T>(largest_log, probed);
}

}  // namespace ptq::kernels::PTQ_SET
