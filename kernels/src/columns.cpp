#include <ptq/kernels/columns.hpp>
#include <ptq/kernels/isa.hpp>

#include <cstdint>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "check.hpp"
#include "grid_formula.hpp"

#define PTQ_BODY "columns.inl"
#include "for_each_isa.inl"

namespace ptq::kernels {

namespace {

constexpr std::ptrdiff_t widest_panel = 32;  // rows; the portable and AVX2 panels are narrower

template <class T>
bool groups_exist(const ColumnBlock<T>& b) {
  if (b.grid.scale == nullptr) return b.table.levels != nullptr;
  return b.grid.codes.lo <= b.grid.codes.hi && b.grid.group >= 0;
}

template <class T>
bool usable(const Table<T>& t, std::ptrdiff_t cols) {
  if (t.levels == nullptr) return true;
  if (t.sizes == nullptr) return t.size >= 1 && t.size <= 256;
  for (std::ptrdiff_t j = 0; j < cols; ++j) {
    if (t.sizes[j] < 1 || t.sizes[j] > 256) return false;
  }
  return true;
}

template <class T>
bool fits(const ColumnBlock<T>& b, Rows rows) {
  const std::ptrdiff_t m = b.w.rows, n = b.w.cols;
  const bool table = b.table.levels != nullptr;
  if (!usable(b.w, rows) || n > max_block_columns || !groups_exist(b) || !usable(b.table, n)) return false;
  if (n > 1 && (b.m.data == nullptr || b.m.rows != n || b.m.cols != n || b.m.stride < n)) return false;
  if (!absent_or_shaped(b.x, m, n) || !absent_or_shaped(b.divisor, m, n) || !absent_or_shaped(b.offset, m, n)) return false;
  if (!absent_or_shaped(b.keep, m, n) || !absent_or_shaped(b.q, m, n) || !absent_or_shaped(b.e, m, n)) return false;
  if (!absent_or_shaped(b.seen, m, n)) return false;
  return absent_or_holds(b.codes, n, table ? 0 : b.grid.codes.lo, table ? 255 : b.grid.codes.hi);
}

template <class T>
T* aligned(void* workspace) {
  return reinterpret_cast<T*>((reinterpret_cast<std::uintptr_t>(workspace) + 63) / 64 * 64);
}

}  // namespace

template <class T>
std::size_t column_block_workspace(std::ptrdiff_t cols) {
  if (cols < 0 || cols > max_block_columns) return 0;
  // w/e, x, q, code, scale, lo, hi of a panel, a loss vector a column, and M; 64 bytes to align
  return static_cast<std::size_t>(cols) * static_cast<std::size_t>(widest_panel * 8 + cols) * sizeof(T) + 64;
}

template <class T>
Status column_block(const ColumnBlock<T>& b, Rows rows, void* workspace, std::size_t workspace_bytes) {
  if (!fits(b, rows)) return Status::bad_argument;
  if (b.w.cols == 0 || rows.begin == rows.end) return Status::ok;
  if (workspace == nullptr || workspace_bytes < column_block_workspace<T>(b.w.cols)) return Status::bad_argument;
  PTQ_DISPATCH(column_block(b, rows, aligned<T>(workspace)));
}

template <class T>
Status current_weights(View<const T> w, View<const T> x, View<const T> m, View<T> y, Rows rows, void* workspace,
                       std::size_t workspace_bytes) {
  ColumnBlock<T> b;
  b.w = w, b.x = x, b.m = m, b.q = y;
  const T unused = T(1);
  b.grid.scale = &unused;
  if (x.data == nullptr || y.data == nullptr || !fits(b, rows)) return Status::bad_argument;
  if (w.cols == 0 || rows.begin == rows.end) return Status::ok;
  if (workspace == nullptr || workspace_bytes < column_block_workspace<T>(w.cols)) return Status::bad_argument;
  PTQ_DISPATCH(current_weights(b, rows, aligned<T>(workspace)));
}

template <class T>
Status compensate(View<const T> e, View<const T> m, View<T> x, Rows rows) {
  if (!usable(e, rows) || !usable(m, {0, m.rows}) || !usable(x, rows) || m.rows != e.cols || x.rows != e.rows || x.cols != m.cols) {
    return Status::bad_argument;
  }
  PTQ_DISPATCH(compensate(e, m, x, rows));
}

#define PTQ_INSTANTIATE(T)                                                                                            \
  template std::size_t column_block_workspace<T>(std::ptrdiff_t);                                                     \
  template Status column_block<T>(const ColumnBlock<T>&, Rows, void*, std::size_t);                                   \
  template Status current_weights<T>(View<const T>, View<const T>, View<const T>, View<T>, Rows, void*, std::size_t); \
  template Status compensate<T>(View<const T>, View<const T>, View<T>, Rows);
PTQ_INSTANTIATE(float)
PTQ_INSTANTIATE(double)
#undef PTQ_INSTANTIATE

}  // namespace ptq::kernels
