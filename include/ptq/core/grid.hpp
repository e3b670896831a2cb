// Grids on tensors: fit a range, round, dequantize; threads around the kernels.
#pragma once

#include <limits>
#include <mutex>
#include <type_traits>

#include <ptq/core/minifloat.hpp>
#include <ptq/core/scheme.hpp>
#include <ptq/core/tensor.hpp>
#include <ptq/kernels/quantize.hpp>

namespace ptq {

/// The representable values s (q − z) of a weight matrix, q from `lowest` to `highest`; with `levels` s · levels[q], q from 0.
struct Grid {
  Scheme scheme;
  Tensor scale;     // (rows or 1, groups) float or double
  Tensor zero;      // (rows or 1, groups) int32; may lie outside the codes
  Tensor group_of;  // (cols) int32, the group of each original column; undefined: neighbouring columns
  int lowest = 0, highest = 0;
  Tensor levels{};  // (highest + 1) ascending, of a minifloat; undefined: uniform

  [[nodiscard]] int64_t groups() const { return scale.size(1); }
};

namespace detail {

template <class Work>
auto by_scalar(const Tensor& t, const char* what, const Work& work) {
  if (t.scalar_type() == at::kFloat) return work(float{});
  if (t.scalar_type() == at::kDouble) return work(double{});
  fail(what, " works in float32 or float64, not on ", shape_text(t));
}

template <class T>
kernels::View<const T> view(const Tensor& t) {  // t (rows, cols), contiguous
  return {t.const_data_ptr<T>(), t.size(0), t.size(1), t.stride(0)};
}
template <class T>
kernels::View<T> mutable_view(Tensor& t) {
  return {t.mutable_data_ptr<T>(), t.size(0), t.size(1), t.stride(0)};
}

/// Runs work(Rows) over all rows with libtorch's threads; the worst status wins.
template <class Work>
kernels::Status over_rows(int64_t rows, int64_t grain, const Work& work) {
  kernels::Status status = kernels::Status::ok;
  std::mutex guard;
  at::parallel_for(0, rows, std::max<int64_t>(1, grain), [&](int64_t begin, int64_t end) {
    const kernels::Status mine = work(kernels::Rows{begin, end});
    const std::lock_guard lock(guard);
    status = kernels::worst(status, mine);
  });
  return status;
}

inline void check(kernels::Status status, const char* what, const Tensor& t) {
  if (status == kernels::Status::non_finite) fail(what, ": ", shape_text(t), " holds NaN or infinity");
  if (status != kernels::Status::ok) fail(what, ": ", kernels::text(status), " for ", shape_text(t));
}

inline int64_t grain(const Tensor& t) { return 1 + (int64_t{1} << 15) / std::max<int64_t>(1, t.size(-1)); }

template <class T>
kernels::Grid<T> raw(const Grid& g) {
  kernels::Grid<T> k;
  k.scale = g.scale.const_data_ptr<T>();
  k.zero = g.zero.const_data_ptr<int32_t>();
  k.row_stride = g.scale.size(0) == 1 ? 0 : g.groups();
  k.group_stride = 1;
  k.group = g.scheme.granularity == Granularity::group ? g.scheme.group : 0;
  k.g_idx = g.group_of.defined() ? g.group_of.const_data_ptr<int32_t>() : nullptr;
  k.codes = {g.lowest, g.highest};
  return k;
}

}  // namespace detail

[[nodiscard]] inline kernels::Convention convention(const Scheme& s, bool as_published = false) {
  return {s.range, s.bits, s.symmetric, as_published};
}

/// The number of groups of `cols` columns; throws when the group size does not divide. The last block of an mxint row may be short.
[[nodiscard]] inline int64_t group_count(const Scheme& scheme, int64_t cols, const std::string& place) {
  if (scheme.granularity != Granularity::group) return 1;
  if (scheme.block_float()) return (cols + scheme.group - 1) / scheme.group;
  if (cols % scheme.group != 0)
    refuse(place, ": groups of ", scheme.group, " do not divide ", cols, " columns; choose a divisor of ", cols, " or :channel");
  return cols / scheme.group;
}

[[nodiscard]] inline Grid fit_grid(const Tensor& w, const Scheme& scheme, bool as_published = false);

namespace detail {

/// Blocks of several rows: the grid of their maxima, repeated for each row. Short blocks at the ends are filled up with zeros.
inline Grid fit_block_rows(const Tensor& x, const Scheme& scheme) {  // x (rows, cols)
  const int64_t rows = x.size(0), m = std::min(scheme.group_rows, rows), n = std::min(scheme.group, x.size(1));
  const int64_t down = (rows + m - 1) / m, across = (x.size(1) + n - 1) / n;
  const Tensor whole = at::constant_pad_nd(x.abs(), {0, across * n - x.size(1), 0, down * m - rows});
  const Tensor top = whole.view({down, m, across, n}).amax({1, 3});  // (down, across)
  Scheme one = scheme;
  one.group = one.group_rows = 1;
  Grid g = fit_grid(top, one);
  g.scheme = scheme;
  g.scale = g.scale.repeat_interleave(m, 0).narrow(0, 0, rows).contiguous();  // (rows, across)
  g.zero = g.zero.repeat_interleave(m, 0).narrow(0, 0, rows).contiguous();
  return g;
}

/// The grid of a fixed point format: nothing follows from x but the type.
inline Grid fixed_grid(const Tensor& x, const Scheme& scheme) {
  require_finite(x, "fitting a grid: weight");
  const auto codes = kernels::code_range({scheme.range, scheme.bits, scheme.symmetric});
  return {scheme, at::full({1, 1}, std::ldexp(1.0, -scheme.fraction), x.options()), at::zeros({1, 1}, at::kInt), {}, codes.lo, codes.hi};
}

/// Scales that put the largest magnitude of a group onto the largest level, or, where they are powers of two, into its binade:
/// s = 2^(⌊log₂ M⌋ − ⌊log₂ max level⌋), OCP Microscaling Formats 1.0, section 6.3. A format without a scale has 1.
inline Grid minifloat_grid(const Tensor& x, const Scheme& scheme) {  // x (rows, cols)
  if (scheme.bits > 8) refuse("format ", scheme.text(), ": codes have 8 bits at most");
  require_finite(x, "fitting a grid: weight");
  const Tensor levels = minifloat_levels(scheme.bits, scheme.exponent_bits, scheme.exponent_bias);
  const double top = levels[-1].item<double>();
  const double smallest = x.scalar_type() == at::kFloat ? std::numeric_limits<float>::min() : std::numeric_limits<double>::min();
  Grid g{scheme, at::ones({1, 1}, x.options()), {}, {}, 0, static_cast<int>(levels.size(0)) - 1, levels.to(x.scalar_type())};
  if (scheme.block_float()) {
    Scheme power = scheme;  // of 2 bits, whose step is 2^⌊log₂ M⌋
    power.kind = NumberKind::integer, power.bits = 2;
    g.scale = (fit_grid(x, power).scale * std::exp2(-std::floor(std::log2(top)))).clamp_min(smallest);
  } else if (scheme.scaled()) {
    const bool whole = scheme.granularity == Granularity::tensor;
    const int64_t groups = whole ? 1 : group_count(scheme, x.size(1), "weight " + shape_text(x));
    g.scale = (x.reshape({whole ? 1 : x.size(0), groups, -1}).abs().amax(-1) / top).clamp_min(smallest);  // (rows or 1, groups)
  }
  g.zero = at::zeros(g.scale.sizes(), at::kInt);
  return g;
}

/// The scale of every column, broadcast to (rows or 1, cols).
inline Tensor column_scales(const Grid& g, int64_t cols) {
  if (g.group_of.defined()) return g.scale.index_select(1, g.group_of.to(at::kLong));
  if (g.scheme.granularity != Granularity::group) return g.scale;  // (rows or 1, 1)
  return g.scale.repeat_interleave(std::min(g.scheme.group, cols), 1).narrow(1, 0, cols);
}

/// The nearest level of w / s, as kernels/columns.hpp finds it.
inline void round_onto_levels(const Tensor& w, const Grid& g, Tensor* values, Tensor* codes) {  // w (rows, cols)
  require_finite(w, "rounding");
  const Tensor scale = column_scales(g, w.size(1));
  const Tensor level = at::bucketize((w / scale).contiguous(), minifloat_thresholds(g.levels), /*out_int32=*/true);
  if (values) values->copy_(g.levels.index_select(0, level.reshape({-1})).view(w.sizes()) * scale);
  if (codes) codes->copy_(level);
}

/// What the released ceil form does before it rounds: magnitudes above 1e-8 grow by 1e-9, so that small ties go away from zero.
inline Tensor nudged(const Tensor& x) {
  const Tensor magnitude = x.abs();
  return at::where(magnitude > 1e-8, (magnitude + 1e-9).copysign(x), x);
}

}  // namespace detail

/// Fits one grid to every row, group or to the whole of `w` by min-max, or by the exponent-2.4 search when the scheme says so.
/// w (rows, cols) finite float32 or float64. `as_published`: see kernels::Convention.
inline Grid fit_grid(const Tensor& w, const Scheme& scheme, bool as_published) {
  const Tensor x = w.detach().contiguous();
  const auto how = convention(scheme, as_published);
  if (scheme.kind != NumberKind::minifloat && !kernels::valid(how))
    refuse("format ", scheme.text(), " has no grid: range=", NameTable<Range>::names[static_cast<size_t>(scheme.range)],
           " has no such form");
  if (scheme.group_rows > 1) return detail::fit_block_rows(x, scheme);
  if (scheme.kind == NumberKind::fixed) return detail::fixed_grid(x, scheme);
  if (scheme.kind == NumberKind::minifloat) return detail::minifloat_grid(x, scheme);
  const bool whole = scheme.granularity == Granularity::tensor;
  const Tensor rows = whole ? x.reshape({1, -1}) : x;  // (rows or 1, …)
  const int64_t groups = whole ? 1 : group_count(scheme, x.size(1), "weight " + shape_text(w));
  Grid g;
  g.scheme = scheme;
  g.scale = at::empty({rows.size(0), groups}, x.options());
  g.zero = at::empty({rows.size(0), groups}, at::kInt);
  const auto codes = kernels::code_range(how);
  g.lowest = codes.lo, g.highest = codes.hi;
  kernels::Search search;
  if (scheme.search && scheme.range == Range::gptq) search.kind = kernels::Search::Kind::shrink;
  if (scheme.search && scheme.range == Range::flexround) {
    using Kind = kernels::Search::Kind;
    search.kind = x.ge(0).all().item<bool>()   ? Kind::width_positive
                  : x.le(0).all().item<bool>() ? Kind::width_negative
                                               : Kind::width_and_zero;
  }
  detail::by_scalar(x, "a grid", [&]<class T>(T) {
    const kernels::GridTable<T> out{g.scale.mutable_data_ptr<T>(), g.zero.mutable_data_ptr<int32_t>(), groups, 1, nullptr};
    const int64_t grain = scheme.search ? 1 : detail::grain(rows);
    const int64_t group = scheme.granularity == Granularity::group ? scheme.group : 0;
    detail::check(detail::over_rows(rows.size(0), grain,
                                    [&](kernels::Rows r) { return kernels::fit_grid(detail::view<T>(rows), group, how, search, out, r); }),
                  "fitting a grid", w);
  });
  return g;
}

namespace detail {

inline void round_onto(const Tensor& w, const Grid& grid, const Tensor& divisor, Tensor* values, Tensor* codes) {
  if (grid.levels.defined() && divisor.defined()) refuse("format ", grid.scheme.text(), " has no divisors to learn; use an int format");
  if (grid.levels.defined()) return round_onto_levels(w, grid, values, codes);
  const Tensor x = (grid.scheme.range == Range::mx_ceil && !divisor.defined() ? nudged(w) : w).contiguous(),
               d = divisor.defined() ? divisor.to(x.scalar_type()).expand_as(x).contiguous() : divisor;
  by_scalar(x, "rounding", [&]<class T>(T) {
    if (grid.scale.scalar_type() != x.scalar_type()) fail("rounding ", shape_text(x), " on a grid of ", shape_text(grid.scale));
    const auto raw_grid = raw<T>(grid);
    kernels::View<T> out{nullptr, x.size(0), x.size(1), x.size(1)};
    if (values) out = mutable_view<T>(*values);
    const kernels::Codes stored = codes ? kernels::Codes(codes->mutable_data_ptr<int32_t>(), x.size(1)) : kernels::Codes();
    kernels::Coordinates<T> at;
    if (d.defined()) at.divisor = view<T>(d);
    check(over_rows(x.size(0), grain(x), [&](kernels::Rows r) { return kernels::fake_quantize(view<T>(x), raw_grid, out, stored, r, at); }),
          "rounding", w);
  });
}

}  // namespace detail

/// Stored codes of the nearest grid points, counted from the grid's lowest code: (rows, cols) uint8. `divisor` (rows, cols) is the whole
/// divisor of each weight in place of the grid's scale, as a learned rounding wants it.
[[nodiscard]] inline Tensor quantize(const Tensor& w, const Grid& grid, const Tensor& divisor = {}) {
  Tensor codes = at::empty(w.sizes(), at::kInt);  // (rows, cols)
  detail::round_onto(w, grid, divisor, nullptr, &codes);
  return (codes - grid.lowest).to(at::kByte);
}

/// The nearest values of the grid, (rows, cols).
[[nodiscard]] inline Tensor fake_quantize(const Tensor& w, const Grid& grid, const Tensor& divisor = {}) {
  Tensor values = at::empty(w.sizes(), w.options());
  detail::round_onto(w, grid, divisor, &values, nullptr);
  return values;
}

/// s (q − z) of stored codes, or s · levels[q].
[[nodiscard]] inline Tensor dequantize(const Tensor& codes, const Grid& grid) {  // codes (rows, cols) uint8
  if (grid.levels.defined())
    return grid.levels.index_select(0, codes.reshape({-1}).to(at::kInt)).view(codes.sizes()) * detail::column_scales(grid, codes.size(1));
  const Tensor q = (codes.to(at::kInt) + grid.lowest).contiguous();
  Tensor values = at::empty(q.sizes(), grid.scale.options());
  detail::by_scalar(values, "dequantizing", [&]<class T>(T) {
    const auto raw_grid = detail::raw<T>(grid);
    const kernels::Codes stored(q.mutable_data_ptr<int32_t>(), q.size(1));
    auto out = detail::mutable_view<T>(values);
    detail::check(
        detail::over_rows(q.size(0), detail::grain(q), [&](kernels::Rows r) { return kernels::dequantize(stored, raw_grid, out, r); }),
        "dequantizing", codes);
  });
  return values;
}

}  // namespace ptq
