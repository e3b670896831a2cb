// Gradients of rounding for one instruction set: one pass each.

#include "quantize.inl"

namespace ptq::kernels::PTQ_SET {

/// `n` lanes from column c on; returns what they add to the step's gradient. Lanes that do not exist have no upstream.
template <class T>
PTQ_INLINE typename Simd<T>::V follow_lanes(const T* x, const T* upstream, T* d_x, std::ptrdiff_t c, std::ptrdiff_t n,
                                            const GridVector<T>& g, typename Simd<T>::V& probed) {
  using V = typename Simd<T>::V;
  using Bits = typename Simd<T>::Bits;
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes;
  const V given = n == lanes ? load(x + c) : load(x + c, n), u = given / g.scale;
  const V above = n == lanes ? load(upstream + c) : load(upstream + c, n);
  const V k = rne(u), q = min(max(k, g.lo), g.hi);
  const Bits inside = (Bits)(q == k);
  probed = probe<T>(given, probe<T>(above, probed));
  if (d_x != nullptr) {
    const V d = (V)((Bits)above & inside);
    if (n == lanes)
      store(d_x + c, d);
    else
      store(d_x + c, d, n);
  }
  return above * (q - (V)((Bits)u & inside));
}

template <class T>
PTQ_TARGET Status fake_quantize_gradient(View<const T> x, const Grid<T>& grid, const RoundingGradient<T>& gradient, Rows rows) {
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes;
  const std::ptrdiff_t group = grid.group == 0 ? x.cols : grid.group, groups = x.cols == 0 ? 0 : (x.cols + group - 1) / group;
  typename Simd<T>::V probed{};
  for (std::ptrdiff_t r = rows.begin; r < rows.end; ++r) {
    T* const d_x = gradient.x.data == nullptr ? nullptr : gradient.x.row(r);
    for (std::ptrdiff_t i = 0; i < groups; ++i) {
      const std::ptrdiff_t at = r * grid.row_stride + i * grid.group_stride, end = (i + 1) * group < x.cols ? (i + 1) * group : x.cols;
      const GridVector<T> g = spread(grid.scale[at], zero_at(grid, at), grid.codes);
      typename Simd<T>::V total{};
      for (std::ptrdiff_t c = i * group; c < end; c += lanes)
        total += follow_lanes(x.row(r), gradient.upstream.row(r), d_x, c, c + lanes <= end ? lanes : end - c, g, probed);
      if (gradient.step != nullptr) gradient.step[r * groups + i] = static_cast<T>(sum<T>(total));
    }
  }
  return finite<T>(probed) ? Status::ok : Status::non_finite;
}

/// Adds d, shared by the entries of x[0 .. n) that equal `extreme`, to those of out.
template <class T>
PTQ_INLINE void share(const T* x, std::ptrdiff_t n, T extreme, T d, T* out) {
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes;
  const auto wanted = splat(extreme);
  std::ptrdiff_t count = 0, i = 0;
  for (; i + lanes <= n; i += lanes) count += __builtin_popcount(lane_bits<T>(load(x + i) == wanted));
  for (; i < n; ++i) count += x[i] == extreme;
  if (count == 0) return;
  const T each = d / static_cast<T>(count);
  for (i = 0; i + lanes <= n; i += lanes)
    for (unsigned bits = lane_bits<T>(load(x + i) == wanted); bits != 0; bits &= bits - 1) out[i + __builtin_ctz(bits)] += each;
  for (; i < n; ++i)
    if (x[i] == extreme) out[i] += each;
}

template <class T>
PTQ_TARGET Status range_gradient(View<const T> x, std::ptrdiff_t group, const RangeGradient<T>& gradient, View<T> out, Rows rows) {
  const std::ptrdiff_t groups = x.cols == 0 ? 0 : (x.cols + group - 1) / group;
  for (std::ptrdiff_t r = rows.begin; r < rows.end; ++r)
    for (std::ptrdiff_t i = 0; i < groups; ++i) {
      const std::ptrdiff_t begin = i * group, n = (begin + group < x.cols ? begin + group : x.cols) - begin, at = r * groups + i;
      if (gradient.low != nullptr) share(x.row(r) + begin, n, gradient.low[at], gradient.d_low[at], out.row(r) + begin);
      if (gradient.high != nullptr) share(x.row(r) + begin, n, gradient.high[at], gradient.d_high[at], out.row(r) + begin);
    }
  return Status::ok;
}

}  // namespace ptq::kernels::PTQ_SET
