// x += e m of one instruction set: m is packed by tiles of two vectors of columns, a few rows times a tile stay in registers. Every sum
// runs over the rows of m in their order, so a result depends on no size of pack or tile.

namespace ptq::kernels::PTQ_SET {

inline constexpr int product_rows = PTQ_LEVEL == 2 ? 8 : 4;  // product_rows * 2 sums fit the registers
inline constexpr std::ptrdiff_t product_depth = 256;         // rows of m a pack
inline constexpr std::ptrdiff_t product_tiles = 4;           // tiles a pack: at most 128 KiB, which stay in the L2 cache while rows pass

/// `height` rows times the tile of columns at c; `packed` holds rows begin .. begin + depth of m's tile.
template <class T, int height>
PTQ_INLINE void product_tile(View<const T> e, const T* packed, std::ptrdiff_t begin, std::ptrdiff_t depth, View<T> x, std::ptrdiff_t r,
                             std::ptrdiff_t c) {
  using V = typename Simd<T>::V;
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes;
  V sum[height][2];
#pragma GCC unroll 8
  for (int h = 0; h < height; ++h) sum[h][0] = load(x.row(r + h) + c), sum[h][1] = load(x.row(r + h) + c + lanes);
  const T* row = e.row(r) + begin;
  for (std::ptrdiff_t i = 0; i < depth; ++i, packed += 2 * lanes) {
    const V a = load(packed), b = load(packed + lanes);
#pragma GCC unroll 8
    for (int h = 0; h < height; ++h) {
      const V s = splat(row[h * e.stride + i]);
      sum[h][0] = fma(s, a, sum[h][0]), sum[h][1] = fma(s, b, sum[h][1]);
    }
  }
#pragma GCC unroll 8
  for (int h = 0; h < height; ++h) store(x.row(r + h) + c, sum[h][0]), store(x.row(r + h) + c + lanes, sum[h][1]);
}

/// Columns c .. x.cols of one row, fewer than a tile.
template <class T>
PTQ_INLINE void product_rest(View<const T> e, View<const T> m, View<T> x, std::ptrdiff_t r, std::ptrdiff_t c) {
  constexpr std::ptrdiff_t lanes = Simd<T>::lanes;
  for (; c < x.cols; c += lanes) {
    const std::ptrdiff_t k = c + lanes < x.cols ? lanes : x.cols - c;
    typename Simd<T>::V total = load(x.row(r) + c, k);
    for (std::ptrdiff_t i = 0; i < m.rows; ++i) total = fma(splat(e.row(r)[i]), load(m.row(i) + c, k), total);
    store(x.row(r) + c, total, k);
  }
}

template <class T>
PTQ_TARGET Status compensate(View<const T> e, View<const T> m, View<T> x, Rows rows) {
  constexpr std::ptrdiff_t width = 2 * Simd<T>::lanes;
  alignas(64) T packed[product_tiles * product_depth * width];
  const std::ptrdiff_t tiled = x.cols / width * width;
  for (std::ptrdiff_t first = 0; first < tiled; first += product_tiles * width) {
    const std::ptrdiff_t last = first + product_tiles * width < tiled ? first + product_tiles * width : tiled;
    for (std::ptrdiff_t begin = 0; begin < m.rows; begin += product_depth) {
      const std::ptrdiff_t depth = begin + product_depth < m.rows ? product_depth : m.rows - begin;
      for (std::ptrdiff_t c = first; c < last; c += width) {
        T* to = packed + (c - first) * depth;
        for (std::ptrdiff_t i = 0; i < depth; ++i) __builtin_memcpy(to + i * width, m.row(begin + i) + c, sizeof(T) * width);
      }
      std::ptrdiff_t r = rows.begin;
      for (; r + product_rows <= rows.end; r += product_rows) {
        for (std::ptrdiff_t c = first; c < last; c += width) {
          product_tile<T, product_rows>(e, packed + (c - first) * depth, begin, depth, x, r, c);
        }
      }
      for (; r < rows.end; ++r) {
        for (std::ptrdiff_t c = first; c < last; c += width) product_tile<T, 1>(e, packed + (c - first) * depth, begin, depth, x, r, c);
      }
    }
  }
  for (std::ptrdiff_t r = rows.begin; r < rows.end && tiled < x.cols; ++r) product_rest(e, m, x, r, tiled);
  return Status::ok;
}

}  // namespace ptq::kernels::PTQ_SET
