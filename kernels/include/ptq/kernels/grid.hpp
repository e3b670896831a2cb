#pragma once
// Uniform grids: from the range of some weights or activations to a scale and a zero point.
//
// Every grid dequantizes as  s (clamp(rne(w / s) + z, lo, hi) - z),  rne = round half to even. The published codes differ in how s and z
// follow from the extremes; Range names their conventions. The arithmetic keeps the authors' order: float results equal theirs bit for bit.

#include <ptq/kernels/status.hpp>

namespace ptq::kernels {

/// Min-max convention: how scale s and zero point z follow from the range [lo, hi]. maxq = 2^bits - 1, half = 2^(bits-1).
enum class Range : int {
  /// GPTQ, AWRQ weights. Zero joins the range; s = (hi - lo)/maxq, z = rne(-lo/s), codes 0..maxq. Symmetric: hi = -lo = max|w|, z = half.
  gptq,
  /// AWRQ activations. The range as it is, no floor, z anywhere, codes 0..maxq.
  awrq_activation,
  /// FlexRound, LRQ weights. Zero joins the range; s >= 1e-8, z clamped to 0..maxq. Symmetric: s = 2 max|w|/maxq, z = 0, codes
  /// -half..half-1.
  flexround,
  /// FlexRound, LRQ activations. As `flexround`, asymmetric; as published zero does not join the range, which cuts off one-sided tokens.
  flexround_activation,
  /// OmniQuant, LRQuant. The range as it is; s within [1e-5, 1e4], -lo/s clamped to +-1e4 before rounding, codes 0..maxq.
  /// Symmetric: s = max|w|/(half - 1), z = half - 1.
  omni,
  /// OmniQuant without zero point: the step of `omni`, z = 0, codes -half..half-1.
  omni_no_zero_point,
  /// SmoothQuant. s = max(max|w|, 1e-5)/(half - 1), z = 0, codes -(half-1)..half-1.
  absmax,
  /// Block floating point, OCP Microscaling 1.0 and QERA: a power of two, s = 2^(floor(log2 max|w|) + 2 - bits), z = 0, codes
  /// -(half-1)..half-1. A range below the least normal number is zero.
  mx,
  /// The same as released with LQER: s = 2^(ceil(log2 max|w|) + 1 - bits), the logarithm rounded to T, so that a maximum that is a power of
  /// two saturates.
  mx_ceil,
};

struct Convention {
  Range range = Range::gptq;
  int bits = 4;               ///< 2 to 16
  bool symmetric = false;     ///< gptq, flexround, omni*; absmax always is; the activation ranges have no symmetric form (bad_argument)
  bool as_published = false;  ///< gptq: a symmetric row without a negative entry keeps lo = 0; flexround_activation: see there
};

/// Smallest and largest code.
struct CodeRange {
  std::int32_t lo = 0, hi = 15;
};

bool valid(const Convention& convention);
CodeRange code_range(const Convention& convention);

/// Scale and zero point for values between lo and hi, which may be learned or running bounds (LWC: beta min, gamma max). s is positive and
/// finite: a range too narrow for its magnitude gets a grid that holds its larger end, a range that is not finite gets s = 1, z = 0.
template <class T>
void grid_from_range(const Convention& convention, T lo, T hi, T& scale, std::int32_t& zero);

/// Minimum and maximum over the given rows, merged into lo and hi (start with +inf, -inf). A per-tensor grid is grid_from_range of it.
template <class T>
Status value_range(View<const T> x, Rows rows, T& lo, T& hi);

/// Search for a better range by the error  sum |w - fake_quantize(w)|^exponent  of each row and group; the first of equal candidates wins.
struct Search {
  enum class Kind : int {
    none,            ///< min-max
    shrink,          ///< GPTQ: both ends times p = 1 - i/steps, i = 0 .. maxshrink * steps - 1
    width_and_zero,  ///< FlexRound: widths R i/steps, i = 1 .. steps, with every zero point 0 .. maxq
    width_positive,  ///< FlexRound where the whole tensor is >= 0: [0, X i/steps], X = max|w|
    width_negative,  ///< FlexRound where the whole tensor is <= 0: [-X i/steps, 0]
  } kind = Kind::none;
  double exponent = 2.4;
  int steps = 100;
  double maxshrink = 0.8;
};

/// Scale and zero point of every (row r, group g): entry r * row_stride + g * group_stride.
template <class T>
struct GridTable {
  T* scale = nullptr;
  std::int32_t* zero = nullptr;
  std::ptrdiff_t row_stride = 1, group_stride = 0;
  /// Optional: the winning candidate, i for shrink and width_*, i * 2^bits + zero for width_and_zero; -1 without a search.
  std::int32_t* winner = nullptr;
};

/// Fit one grid to every row and every group of `group` consecutive columns (0: the whole row; the last group may be short).
/// Per tensor: value_range and grid_from_range or, with a search, a contiguous tensor seen as one row.
template <class T>
Status fit_grid(View<const T> w, std::ptrdiff_t group, const Convention& convention, const Search& search, const GridTable<T>& out,
                Rows rows);

}  // namespace ptq::kernels
