// Rounding onto a given grid, for one instruction set.

#include "range.inl"
#include "streams.inl"

namespace ptq::kernels::PTQ_SET {

/// Scale, bounds of the rounded coordinate, and zero point, the same in all lanes or one each.
template <class T>
struct GridVector {
  typename Simd<T>::V scale, lo, hi, zero;
};

template <class T>
PTQ_INLINE GridVector<T> spread(T scale, std::int32_t zero, CodeRange codes) {
  return {splat(scale), splat(static_cast<T>(codes.lo) - static_cast<T>(zero)), splat(static_cast<T>(codes.hi) - static_cast<T>(zero)),
          splat(static_cast<T>(zero))};
}

template <class T>
PTQ_INLINE std::int32_t zero_at(const Grid<T>& grid, std::ptrdiff_t at) {
  return grid.zero == nullptr ? 0 : grid.zero[at];
}

/// Where one row goes; `coordinates` are this row's, or null.
template <class T>
struct RowOutput {
  T* values;
  std::uint8_t* codes;
  int bytes;
  const T *divisor, *offset;
};

/// `n` columns from c on, all with the grid g.
template <class T, bool Learned, bool Streaming>
PTQ_INLINE void round_run(const T* w, std::ptrdiff_t c, std::ptrdiff_t n, const GridVector<T>& g, const RowOutput<T>& out,
                          typename Simd<T>::V& probed) {
  using V = typename Simd<T>::V;
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes;
  const std::ptrdiff_t end = c + n;
  for (; c + lanes <= end; c += lanes) {
    const V x = load(w + c);
    V coordinate;
    if constexpr (Learned) {
      const V divisor = out.divisor != nullptr ? load(out.divisor + c) : g.scale,
              offset = out.offset != nullptr ? load(out.offset + c) : V{};
      coordinate = x / divisor + offset;
      probed = probe<T>(divisor, probe<T>(offset, probed));
    } else {
      coordinate = x / g.scale;
    }
    const V r = min(max(rne(coordinate), g.lo), g.hi);
    probed = probe<T>(x, probed);
    if constexpr (Streaming) {
      stream(out.values + c, r * g.scale);
    } else {
      if (out.values != nullptr) store(out.values + c, r * g.scale);
      if (out.codes != nullptr) store_codes<T>(out.codes + c * out.bytes, out.bytes, r + g.zero, lanes);
    }
  }
  if (c == end) return;
  const std::ptrdiff_t rest = end - c;
  const V x = load(w + c, rest);
  V divisor = g.scale, offset{};
  if constexpr (Learned) {
    for (std::ptrdiff_t i = 0; i < rest && out.divisor != nullptr; ++i) divisor[i] = out.divisor[c + i];
    if (out.offset != nullptr) offset = load(out.offset + c, rest);
    probed = probe<T>(divisor, probe<T>(offset, probed));
  }
  const V r = min(max(rne(x / divisor + offset), g.lo), g.hi);
  probed = probe<T>(x, probed);
  if (out.values != nullptr) store(out.values + c, r * g.scale, rest);
  if (out.codes != nullptr) store_codes<T>(out.codes + c * out.bytes, out.bytes, r + g.zero, rest);
}

/// Any map column -> group: gathers the grid lane by lane.
template <class T>
PTQ_INLINE GridVector<T> gather(const Grid<T>& grid, std::ptrdiff_t row, std::ptrdiff_t c, std::ptrdiff_t n) {
  GridVector<T> g = spread(T(1), 0, grid.codes);
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const std::ptrdiff_t group = grid.g_idx != nullptr ? grid.g_idx[c + i] : grid.group == 0 ? 0 : (c + i) / grid.group;
    const std::ptrdiff_t at = row * grid.row_stride + group * grid.group_stride;
    const T zero = static_cast<T>(zero_at(grid, at));
    g.scale[i] = grid.scale[at], g.zero[i] = zero;
    g.lo[i] = static_cast<T>(grid.codes.lo) - zero, g.hi[i] = static_cast<T>(grid.codes.hi) - zero;
  }
  return g;
}

template <class T, bool Learned, bool Streaming>
PTQ_INLINE void round_row(const T* w, std::ptrdiff_t cols, std::ptrdiff_t row, const Grid<T>& grid, const RowOutput<T>& out,
                          typename Simd<T>::V& probed) {
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes;
  const std::ptrdiff_t group = grid.group == 0 ? cols : grid.group;
  if (grid.g_idx == nullptr && (group >= lanes || grid.group_stride == 0)) {
    for (std::ptrdiff_t c = 0, g = 0; c < cols; c += group, ++g) {
      const std::ptrdiff_t at = row * grid.row_stride + g * grid.group_stride;
      round_run<T, Learned, Streaming>(w, c, c + group < cols ? group : cols - c, spread(grid.scale[at], zero_at(grid, at), grid.codes),
                                       out, probed);
    }
  } else {
    for (std::ptrdiff_t c = 0; c < cols; c += lanes) {
      const std::ptrdiff_t n = c + lanes < cols ? lanes : cols - c;
      round_run<T, Learned, Streaming>(w, c, n, gather(grid, row, c, n), out, probed);
    }
  }
}

template <class T, bool Learned>
PTQ_TARGET inline Status round_rows(View<const T> w, const Grid<T>& grid, View<T> values, Codes codes, Rows rows,
                                    const Coordinates<T>& coordinates) {
  const bool streaming = streams(w, values, codes, grid.g_idx != nullptr ? 0 : grid.group);
  typename Simd<T>::V probed{};
  for (std::ptrdiff_t r = rows.begin; r < rows.end; ++r) {
    const RowOutput<T> out{values.data == nullptr ? nullptr : values.row(r),
                           codes.data == nullptr ? nullptr : static_cast<std::uint8_t*>(codes.data) + r * codes.stride * codes.bytes,
                           codes.bytes, coordinates.divisor.data == nullptr ? nullptr : coordinates.divisor.row(r),
                           coordinates.offset.data == nullptr ? nullptr : coordinates.offset.row(r)};
    if (streaming) {
      round_row<T, Learned, true>(w.row(r), w.cols, r, grid, out, probed);
    } else {
      round_row<T, Learned, false>(w.row(r), w.cols, r, grid, out, probed);
    }
  }
  if (streaming) fence();
  return finite<T>(probed) ? Status::ok : Status::non_finite;
}

template <class T>
PTQ_TARGET Status fake_quantize(View<const T> w, const Grid<T>& grid, View<T> values, Codes codes, Rows rows,
                                const Coordinates<T>& coordinates) {
  const bool learned = coordinates.divisor.data != nullptr || coordinates.offset.data != nullptr;
  return learned ? round_rows<T, true>(w, grid, values, codes, rows, coordinates)
                 : round_rows<T, false>(w, grid, values, codes, rows, coordinates);
}

template <class T>
PTQ_TARGET Status fake_quantize_dynamic(View<const T> x, std::ptrdiff_t group, const Convention& convention, View<T> values, Codes codes,
                                        T* scale, std::int32_t* zero, Rows rows) {
  const std::ptrdiff_t groups = (x.cols + group - 1) / group;
  const CodeRange range = formula::code_range(convention);
  const bool streaming = streams(x, values, codes, group == x.cols ? 0 : group);
  typename Simd<T>::V probed{}, ignored{};
  for (std::ptrdiff_t r = rows.begin; r < rows.end; ++r) {
    const RowOutput<T> out{values.data == nullptr ? nullptr : values.row(r),
                           codes.data == nullptr ? nullptr : static_cast<std::uint8_t*>(codes.data) + r * codes.stride * codes.bytes,
                           codes.bytes, nullptr, nullptr};
    for (std::ptrdiff_t g = 0; g < groups; ++g) {
      const std::ptrdiff_t c = g * group, n = c + group < x.cols ? group : x.cols - c;
      T lo = std::numeric_limits<T>::infinity(), hi = -lo, s;
      std::int32_t z;
      run_range(x.row(r) + c, n, lo, hi, probed);
      formula::grid(convention, lo, hi, s, z);
      if (scale != nullptr) scale[r * groups + g] = s;
      if (zero != nullptr) zero[r * groups + g] = z;
      if (streaming) {
        round_run<T, false, true>(x.row(r), c, n, spread(s, z, range), out, ignored);
      } else {
        round_run<T, false, false>(x.row(r), c, n, spread(s, z, range), out, ignored);
      }
    }
  }
  if (streaming) fence();
  return finite<T>(probed) ? Status::ok : Status::non_finite;
}

template <class T>
PTQ_TARGET Status dequantize(Codes codes, const Grid<T>& grid, View<T> values, Rows rows) {
  for (std::ptrdiff_t r = rows.begin; r < rows.end; ++r) {
    const auto* bytes = static_cast<const std::uint8_t*>(codes.data) + r * codes.stride * codes.bytes;
    T* y = values.row(r);
    const std::ptrdiff_t group = grid.group == 0 ? values.cols : grid.group;
    for (std::ptrdiff_t c = 0; c < values.cols;) {
      const std::ptrdiff_t g = grid.g_idx != nullptr ? grid.g_idx[c] : c / group;
      const std::ptrdiff_t end = grid.g_idx != nullptr ? c + 1 : (c + group < values.cols ? c + group : values.cols);
      const std::ptrdiff_t at = r * grid.row_stride + g * grid.group_stride;
      const T s = grid.scale[at], z = static_cast<T>(zero_at(grid, at));
      if (codes.bytes == 1) {
        for (; c < end; ++c) y[c] = s * (static_cast<T>(bytes[c]) - z);
      } else {
        const auto* wide = reinterpret_cast<const std::int32_t*>(bytes);
        for (; c < end; ++c) y[c] = s * (static_cast<T>(wide[c]) - z);
      }
    }
  }
  return Status::ok;
}

}  // namespace ptq::kernels::PTQ_SET
