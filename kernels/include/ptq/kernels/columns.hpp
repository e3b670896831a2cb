#pragma once
// Column engine of GPTQ and its kin: rounds one block of columns with error feedback.
//
// With H = R R^T, R upper triangular, M = R diag(R)^-1 (unit upper triangular), W the target and E = W - Q, the compensated column is
//
//     x_j = w_j + sum_{i<j} E_i M_ij,      q_j = nearest grid point of x_j,      loss_j = sum_rows (x_j - q_j)^2 R_jj^2,
//
// the values of Frantar et al. 2022 (GPTQ, arXiv 2210.17323, algorithm 1, where U = R^-1) without a division by U_jj. A driver does
//
//     x = W[:, b] + E[:, :b] M[:b, b]  (a product),    column_block(w = W[:, b], x, m = M[b, b])    for every block b of columns.
//
// Only the first column of x is what GPTQ's W holds before the block: later ones wait for the errors of the block itself. current_weights()
// gives all of them, the optimum given the columns already rounded; dynamic grids are fitted on these, never on x.
//
// Seams:
// * Dynamic groups: let blocks start at group edges, then current_weights, fit_grid, column_block: grids see fully current weights. As
//   published: fit every group of the block on current_weights at the block's start. A group wider than a block: pass its whole width.
// * AWRQ: w = W + D, D the closed-form shift. Its release rounds column 0 from the unshifted weight: put that into column 0 of x.
// * GPTAQ: with N = M^-1, x (N - P) = w + q (N - I) is the same recursion for w' = w (I - P)^-1 and M' = (I - P)(N - P)^-1.
// * CLAQ: `table` holds a codebook a column; `keep` marks reserved entries, which are stored as they are (q = x).

#include <ptq/kernels/quantize.hpp>

namespace ptq::kernels {

/// Levels instead of a uniform grid: ascending, nearest wins, the smaller of two equally near, or as `thresholds` say. With Grid::scale:
/// levels times scale.
template <class T>
struct Table {
  const T* levels = nullptr;            ///< column j: levels[j * stride ...]
  std::ptrdiff_t stride = 0;            ///< 0: one table for all columns
  const std::int32_t* sizes = nullptr;  ///< levels of each column, 1 to 256; null: `size` each
  std::int32_t size = 0;
  const T* thresholds = nullptr;  ///< of one table for all columns: level k is for coordinates above thresholds[k - 1]; null: midpoints
};

/// One block of columns; B = w.cols <= max_block_columns. Members marked optional may be left empty.
template <class T>
struct ColumnBlock {
  View<const T> w;  ///< [rows x B] target
  View<const T> x;  ///< [rows x B] values at the block's start, w + compensation of earlier blocks; optional: w
  View<const T> m;  ///< [B x B] M of the block; only entries above the diagonal are read
  Grid<T> grid;     ///< groups by column of the block (g_idx, or group)
  Table<T> table;   ///< optional: levels instead of the uniform grid

  View<const T> divisor, offset;   ///< [rows x B] as in Coordinates; optional
  View<const std::uint8_t> keep;   ///< [rows x B] nonzero: q = x, the code still that of the nearest; optional
  const T* loss_weight = nullptr;  ///< [B] R_jj^2; optional: 1

  View<T> q, e, seen;      ///< [rows x B] dequantized; w - q, the operand of the next GEMM; x_j as it was rounded; each optional
  Codes codes;             ///< [rows x B], or index into the table; optional
  double* loss = nullptr;  ///< [B], what the given rows add: one array a thread; optional
};

inline constexpr std::ptrdiff_t max_block_columns = 1024;

/// Bytes of scratch that one call of column_block needs, at any alignment.
template <class T>
std::size_t column_block_workspace(std::ptrdiff_t cols);

/// Round rows [begin, end) of the block. Outputs may be the inputs. Codes are exact for zero points within +-2^24 (float) or +-2^30
/// (double).
template <class T>
Status column_block(const ColumnBlock<T>& block, Rows rows, void* workspace, std::size_t workspace_bytes);

/// y_j = x_j + sum_{i<j} (w_i - y_i) M_ij for rows [begin, end), x the values at the block's start: the weights before any column of the
/// block is rounded, W_F + E_P R_PF R_FF^-1 for columns P before and F of the block. y may be x. Workspace as for column_block.
template <class T>
Status current_weights(View<const T> w, View<const T> x, View<const T> m, View<T> y, Rows rows, void* workspace,
                       std::size_t workspace_bytes);

/// x += e m for rows [begin, end): e [rows x k], m [k x cols], x [rows x cols]. Sums run over the rows of m in order; 128 KiB of stack.
template <class T>
Status compensate(View<const T> e, View<const T> m, View<T> x, Rows rows);

}  // namespace ptq::kernels
