// The column recursion of one instruction set: lanes are rows. A panel of rows is transposed into scratch, so that a column is a few
// vectors; a tile of columns stays in registers while the errors of all earlier columns of the block are added, left-looking.

#include "product.inl"
#include "transpose.inl"

namespace ptq::kernels::PTQ_SET {

inline constexpr int panel_vectors = 2;                      // vectors a column: two independent chains hide the latency of the division
inline constexpr int tile_columns = PTQ_LEVEL == 2 ? 8 : 4;  // tile_columns * panel_vectors accumulators fit the registers

/// Scratch of a panel of P rows; every array holds column j at j * P.
template <class T>
struct Panel {
  static constexpr std::ptrdiff_t P = Simd<T>::lanes * panel_vectors;
  T *e, *x, *q, *code;  // w, then w - q; start value, then the value rounded; value; code - codes.lo
  T *scale, *lo, *hi;   // grid of a column, and the bounds of its rounded coordinate
  T* loss;              // [cols x lanes]
  T* m;                 // M by tiles of columns: row i of the tile that begins at column j lies at m + j * cols + i * tile_columns
  T live[P];            // 1 for rows that exist, 0 for padding

  PTQ_TARGET Panel(T* scratch, std::ptrdiff_t cols)
      : e(scratch),
        x(e + cols * P),
        q(x + cols * P),
        code(q + cols * P),
        scale(code + cols * P),
        lo(scale + cols * P),
        hi(lo + cols * P),
        loss(hi + cols * P),
        m(loss + cols * Simd<T>::lanes),
        live{} {}
};

/// Grid of every column for rows r .. r + rows; padding gets the grid {0}.
template <class T>
PTQ_TARGET inline void load_grid(const ColumnBlock<T>& b, std::ptrdiff_t r, std::ptrdiff_t rows, const Panel<T>& p) {
  constexpr std::ptrdiff_t P = Panel<T>::P;
  const Grid<T>& grid = b.grid;
  std::ptrdiff_t previous = -1;
  for (std::ptrdiff_t j = 0; j < b.w.cols; ++j) {
    T *s = p.scale + j * P, *lo = p.lo + j * P, *hi = p.hi + j * P;
    const std::ptrdiff_t g = grid.g_idx != nullptr ? grid.g_idx[j] : grid.group == 0 ? 0 : j / grid.group;
    if (j > 0 && g == previous) {
      for (std::ptrdiff_t i = 0; i < P; ++i) s[i] = s[i - P], lo[i] = lo[i - P], hi[i] = hi[i - P];
      continue;
    }
    previous = g;
    for (std::ptrdiff_t i = 0; i < P; ++i) s[i] = T(1), lo[i] = T(0), hi[i] = T(0);
    for (std::ptrdiff_t i = 0; i < rows && grid.scale != nullptr; ++i) {
      const std::ptrdiff_t at = (r + i) * grid.row_stride + g * grid.group_stride;
      const T zero = grid.zero == nullptr ? T(0) : static_cast<T>(grid.zero[at]);
      s[i] = grid.scale[at], lo[i] = static_cast<T>(grid.codes.lo) - zero, hi[i] = static_cast<T>(grid.codes.hi) - zero;
    }
  }
}

template <class T>
struct Rounded {
  typename Simd<T>::V q, code;  // code counts from codes.lo
};

/// Nearest point of the uniform grid: the plain case.
template <class T>
PTQ_INLINE Rounded<T> nearest(typename Simd<T>::V x, const T* scale, const T* lo, const T* hi) {
  const auto s = load(scale), low = load(lo), r = min(max(rne(x / s), low), load(hi));
  return {r * s, r - low};
}

/// Divisors, offsets, tables and kept entries; r is the panel's first row, v the vector within the panel.
template <class T>
PTQ_INLINE Rounded<T> nearest_general(const ColumnBlock<T>& b, std::ptrdiff_t r, std::ptrdiff_t rows, std::ptrdiff_t j, std::ptrdiff_t v,
                                      typename Simd<T>::V x, const Panel<T>& p) {
  using V = typename Simd<T>::V;
  constexpr std::ptrdiff_t P = Panel<T>::P, lanes = Simd<T>::lanes;
  const std::ptrdiff_t first = r + v * lanes, live = rows - v * lanes < lanes ? rows - v * lanes : lanes;
  const V s = load(p.scale + j * P + v * lanes);
  V divisor = s, offset{};
  for (std::ptrdiff_t i = 0; i < live; ++i) {
    if (b.divisor.data != nullptr) divisor[i] = b.divisor.row(first + i)[j];
    if (b.offset.data != nullptr) offset[i] = b.offset.row(first + i)[j];
  }
  V coordinate = x / divisor;
  if (b.offset.data != nullptr) coordinate += offset;
  Rounded<T> y;
  if (b.table.levels == nullptr) {
    const V low = load(p.lo + j * P + v * lanes), whole = min(max(rne(coordinate), low), load(p.hi + j * P + v * lanes));
    y = {whole * s, whole - low};
  } else {
    const T* levels = b.table.levels + j * b.table.stride;
    const std::ptrdiff_t size = b.table.sizes != nullptr ? b.table.sizes[j] : b.table.size;
    const T* thresholds = b.table.thresholds;
    y.code = V{}, y.q = splat(levels[0]);
    for (std::ptrdiff_t k = 1; k < size; ++k) {  // ascending: the last level whose lower threshold lies below
      const auto above = coordinate > splat(thresholds != nullptr ? thresholds[k - 1] : (levels[k - 1] + levels[k]) / T(2));
      y.code = above ? splat(static_cast<T>(k)) : y.code;
      y.q = above ? splat(levels[k]) : y.q;
    }
    y.q = y.q * s;
  }
  for (std::ptrdiff_t i = 0; i < live && b.keep.data != nullptr; ++i) {
    if (b.keep.row(first + i)[j] != 0) y.q[i] = x[i];
  }
  return y;
}

/// How a tile rounds: onto the uniform grid, with all options, or not at all (current_weights).
enum class Mode { plain, general, none };

/// Columns j0 .. j0 + columns, given the errors of all before.
template <class T, int columns, Mode mode>
PTQ_TARGET inline void tile(const ColumnBlock<T>& b, std::ptrdiff_t r, std::ptrdiff_t rows, std::ptrdiff_t j0, const Panel<T>& p,
                            typename Simd<T>::V& probed) {
  using V = typename Simd<T>::V;
  constexpr std::ptrdiff_t P = Panel<T>::P, lanes = Simd<T>::lanes;
  V x[columns][panel_vectors];
#pragma GCC unroll 8
  for (int c = 0; c < columns; ++c) {
#pragma GCC unroll 2
    for (int v = 0; v < panel_vectors; ++v) x[c][v] = load(p.x + (j0 + c) * P + v * lanes);
  }
  const T* coefficient = columns == tile_columns ? p.m + j0 * b.w.cols : b.m.data + j0;  // row i of M, columns of the tile
  const std::ptrdiff_t stride = columns == tile_columns ? columns : b.m.stride;
  for (std::ptrdiff_t i = 0; i < j0; ++i, coefficient += stride) {
    V e[panel_vectors];
#pragma GCC unroll 2
    for (int v = 0; v < panel_vectors; ++v) e[v] = load(p.e + i * P + v * lanes);
#pragma GCC unroll 8
    for (int c = 0; c < columns; ++c) {
      const V m = splat(coefficient[c]);
#pragma GCC unroll 2
      for (int v = 0; v < panel_vectors; ++v) x[c][v] = fma(e[v], m, x[c][v]);
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < columns; ++c) {
    const std::ptrdiff_t j = j0 + c;
    V loss{}, e[panel_vectors];
#pragma GCC unroll 2
    for (int v = 0; v < panel_vectors; ++v) {
      const std::ptrdiff_t at = j * P + v * lanes;
      Rounded<T> y{x[c][v], V{}};
      if constexpr (mode == Mode::general) y = nearest_general(b, r, rows, j, v, x[c][v], p);
      if constexpr (mode == Mode::plain) y = nearest<T>(x[c][v], p.scale + at, p.lo + at, p.hi + at);
      e[v] = load(p.e + at) - y.q;
      V miss = x[c][v] - y.q;
      if constexpr (mode == Mode::general) miss = miss * load(p.live + v * lanes);
      loss = fma(miss, miss, loss);
      probed = probe<T>(x[c][v], probe<T>(e[v], probed));
      store(p.e + at, e[v]), store(p.x + at, x[c][v]), store(p.q + at, y.q), store(p.code + at, y.code);
    }
    store(p.loss + j * lanes, load(p.loss + j * lanes) + loss);
    if (c + 1 == columns) continue;
    const T* m = p.m + j0 * b.w.cols + j * columns;
#pragma GCC unroll 8
    for (int d = c + 1; d < columns; ++d) {
#pragma GCC unroll 2
      for (int v = 0; v < panel_vectors; ++v) x[d][v] = fma(e[v], splat(m[d]), x[d][v]);
    }
  }
}

/// Codes of a panel as integers, in place of the counts, then transposed out.
template <class T>
PTQ_TARGET inline void write_codes(const ColumnBlock<T>& b, std::ptrdiff_t r, std::ptrdiff_t rows, const Panel<T>& p) {
  constexpr std::ptrdiff_t P = Panel<T>::P, lanes = Simd<T>::lanes;
  const std::ptrdiff_t n = b.w.cols;
  const std::int32_t base = b.table.levels != nullptr ? 0 : b.grid.codes.lo;
  auto* whole = reinterpret_cast<std::int32_t*>(p.code);
  for (std::ptrdiff_t i = 0; i < n * P; i += lanes) {
    const auto code = __builtin_convertvector(load(p.code + i), typename Simd<T>::Code) + base;
    __builtin_memcpy(whole + i, &code, sizeof code);
  }
  if (b.codes.bytes == 4) {
    transpose(whole, P, n, rows, static_cast<std::int32_t*>(b.codes.data) + r * b.codes.stride, b.codes.stride);
    return;
  }
  auto* y = static_cast<std::uint8_t*>(b.codes.data) + r * b.codes.stride;
  for (std::ptrdiff_t j = 0; j < n; ++j) {
    for (std::ptrdiff_t i = 0; i < rows; ++i) y[i * b.codes.stride + j] = static_cast<std::uint8_t>(whole[j * P + i]);
  }
}

/// Adds the panel's losses to the caller's and clears them.
template <class T>
PTQ_TARGET inline void flush_loss(const ColumnBlock<T>& b, const Panel<T>& p) {
  for (std::ptrdiff_t j = 0; j < b.w.cols; ++j) {
    const double weight = b.loss_weight == nullptr ? 1.0 : static_cast<double>(b.loss_weight[j]);
    if (b.loss != nullptr) b.loss[j] += sum<T>(load(p.loss + j * Simd<T>::lanes)) * weight;
    store(p.loss + j * Simd<T>::lanes, typename Simd<T>::V{});
  }
}

/// The part of M above the diagonal, tile by tile, so that every panel reads it as one stream.
template <class T>
PTQ_TARGET inline void pack(const ColumnBlock<T>& b, const Panel<T>& p) {
  const std::ptrdiff_t n = b.w.cols;
  for (std::ptrdiff_t j = 0; j + tile_columns <= n; j += tile_columns) {
    for (std::ptrdiff_t i = 0; i + 1 < j + tile_columns; ++i) {
      for (std::ptrdiff_t c = 0; c < tile_columns; ++c) p.m[j * n + i * tile_columns + c] = i < j + c ? b.m.row(i)[j + c] : T(0);
    }
  }
}

template <class T, Mode mode>
PTQ_TARGET inline Status walk(const ColumnBlock<T>& b, Rows rows, T* scratch) {
  constexpr std::ptrdiff_t P = Panel<T>::P;
  constexpr int panels_a_flush = 8;  // a float lane sums at most 16 squares before it goes into the double
  const std::ptrdiff_t n = b.w.cols;
  Panel<T> p(scratch, n);
  typename Simd<T>::V probed{};
  for (std::ptrdiff_t j = 0; j < n; ++j) store(p.loss + j * Simd<T>::lanes, typename Simd<T>::V{});
  pack(b, p);
  int pending = 0;
  for (std::ptrdiff_t r = rows.begin; r < rows.end; r += P) {
    const std::ptrdiff_t live = r + P < rows.end ? P : rows.end - r;
    if (live < P) {
      for (std::ptrdiff_t i = 0; i < n * P; ++i) p.e[i] = p.x[i] = T(0);
    }
    for (std::ptrdiff_t i = 0; i < P; ++i) p.live[i] = i < live ? T(1) : T(0);
    const View<const T>& start = b.x.data != nullptr ? b.x : b.w;
    transpose(b.w.row(r), b.w.stride, live, n, p.e, P);
    transpose(start.row(r), start.stride, live, n, p.x, P);
    if constexpr (mode != Mode::none) load_grid(b, r, live, p);
    std::ptrdiff_t j = 0;
    for (; j + tile_columns <= n; j += tile_columns) tile<T, tile_columns, mode>(b, r, live, j, p, probed);
    for (; j < n; ++j) tile<T, 1, mode>(b, r, live, j, p, probed);
    if (b.q.data != nullptr) transpose(p.q, P, n, live, b.q.row(r), b.q.stride);
    if (b.e.data != nullptr) transpose(p.e, P, n, live, b.e.row(r), b.e.stride);
    if (b.seen.data != nullptr) transpose(p.x, P, n, live, b.seen.row(r), b.seen.stride);
    if (b.codes.data != nullptr) write_codes(b, r, live, p);
    if (++pending == panels_a_flush) flush_loss(b, p), pending = 0;
  }
  flush_loss(b, p);
  return finite<T>(probed) ? Status::ok : Status::non_finite;
}

template <class T>
PTQ_TARGET Status column_block(const ColumnBlock<T>& b, Rows rows, T* scratch) {
  const bool general = b.table.levels != nullptr || b.divisor.data != nullptr || b.offset.data != nullptr || b.keep.data != nullptr;
  return general ? walk<T, Mode::general>(b, rows, scratch) : walk<T, Mode::plain>(b, rows, scratch);
}

template <class T>
PTQ_TARGET Status current_weights(const ColumnBlock<T>& b, Rows rows, T* scratch) {
  return walk<T, Mode::none>(b, rows, scratch);
}

}  // namespace ptq::kernels::PTQ_SET
