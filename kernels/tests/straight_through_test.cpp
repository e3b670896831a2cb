// Gradients of rounding against plain scalar code.

#include <ptq/kernels/straight_through.hpp>

#include "check.hpp"
#include "data.hpp"

using namespace ptq::kernels;

namespace {

template <class T>
struct Problem {
  std::ptrdiff_t rows, cols, group, groups;
  bool whole;  ///< one grid for all rows and columns
  Matrix<T> x, upstream, scale;
  Matrix<std::int32_t> zero;
  Grid<T> grid;

  Problem(std::ptrdiff_t r, std::ptrdiff_t c, std::ptrdiff_t g, bool one)
      : rows(r),
        cols(c),
        group(g),
        groups(g == 0 ? 1 : (c + g - 1) / g),
        whole(one),
        x(r, c, 3),
        upstream(r, c, 1),
        scale(one ? 1 : r, one ? 1 : groups),
        zero(one ? 1 : r, one ? 1 : groups) {
    Generator random{static_cast<std::uint64_t>(17 * c + r)};
    for (std::ptrdiff_t i = 0; i < r; ++i)
      for (std::ptrdiff_t j = 0; j < c; ++j) x(i, j) = static_cast<T>(random.normal()), upstream(i, j) = static_cast<T>(random.normal());
    for (T& s : scale.data) s = static_cast<T>(0.2 + 0.1 * random.uniform());
    for (std::int32_t& z : zero.data) z = static_cast<std::int32_t>(8 + 2 * random.normal());
    grid.scale = scale.data.data(), grid.zero = zero.data.data(), grid.row_stride = one ? 0 : groups, grid.group_stride = one ? 0 : 1;
    grid.group = g, grid.codes = {0, 15};
  }
};

template <class T>
void compare_rounding(std::ptrdiff_t rows, std::ptrdiff_t cols, std::ptrdiff_t group, bool whole) {
  check::context() = std::to_string(rows) + " x " + std::to_string(cols) + " group " + std::to_string(group);
  Problem<T> p(rows, cols, group, whole);
  Matrix<T> d(rows, cols, 2, T(-777));
  std::vector<T> step(static_cast<std::size_t>(rows * p.groups));
  RoundingGradient<T> gradient;
  gradient.upstream = p.upstream.read(), gradient.x = d.view(), gradient.step = step.data();
  for (const Rows part : {Rows{0, rows / 2}, Rows{rows / 2, rows}})
    CHECK(fake_quantize_gradient<T>(p.x.read(), p.grid, gradient, part) == Status::ok);
  std::vector<long double> expected(step.size());
  for (std::ptrdiff_t r = 0; r < rows; ++r)
    for (std::ptrdiff_t c = 0; c < cols; ++c) {
      const std::ptrdiff_t g = group == 0 ? 0 : c / group;
      const T s = p.scale(whole ? 0 : r, whole ? 0 : g), u = p.x(r, c) / s;
      const std::int32_t z = p.zero(whole ? 0 : r, whole ? 0 : g);
      const T k = std::nearbyint(u), lo = static_cast<T>(0 - z), hi = static_cast<T>(15 - z), q = std::min(std::max(k, lo), hi);
      CHECK(d(r, c) == (k >= lo && k <= hi ? p.upstream(r, c) : T(0)));
      expected[static_cast<std::size_t>(r * p.groups + g)] +=
          static_cast<long double>(p.upstream(r, c)) * (q - (k >= lo && k <= hi ? u : T(0)));
    }
  for (std::size_t i = 0; i < step.size(); ++i) CHECK_NEAR(step[i], expected[i], (sizeof(T) == 4 ? 2e-5 : 1e-13));
  for (std::ptrdiff_t r = 0; r < rows; ++r) CHECK(d.data[static_cast<std::size_t>(r * d.stride + cols)] == T(-777));
  // In place over the upstream gradient.
  gradient.x = p.upstream.view();
  CHECK(fake_quantize_gradient<T>(p.x.read(), p.grid, gradient, {0, rows}) == Status::ok);
  for (std::ptrdiff_t r = 0; r < rows; ++r)
    for (std::ptrdiff_t c = 0; c < cols; ++c) CHECK(p.upstream(r, c) == d(r, c));
}

template <class T>
void compare_range(std::ptrdiff_t rows, std::ptrdiff_t cols, std::ptrdiff_t group) {
  check::context() = std::to_string(rows) + " x " + std::to_string(cols) + " group " + std::to_string(group);
  const std::ptrdiff_t each = group == 0 ? cols : group, groups = (cols + each - 1) / each;
  Generator random{static_cast<std::uint64_t>(5 * cols + group)};
  Matrix<T> x(rows, cols, 1), out(rows, cols, 2, T(0.5)), expected(rows, cols, 0, T(0.5));
  for (std::ptrdiff_t r = 0; r < rows; ++r)
    for (std::ptrdiff_t c = 0; c < cols; ++c) x(r, c) = static_cast<T>(std::floor(3 * random.normal()));  // ties abound
  Matrix<T> low(rows, groups), high(rows, groups), d_low(rows, groups), d_high(rows, groups);
  for (std::ptrdiff_t r = 0; r < rows; ++r)
    for (std::ptrdiff_t g = 0; g < groups; ++g) {
      T lo = x(r, g * each), hi = lo;
      const std::ptrdiff_t end = std::min(cols, (g + 1) * each);
      for (std::ptrdiff_t c = g * each; c < end; ++c) lo = std::min(lo, x(r, c)), hi = std::max(hi, x(r, c));
      low(r, g) = lo, high(r, g) = hi, d_low(r, g) = static_cast<T>(random.normal()), d_high(r, g) = static_cast<T>(random.normal());
      int lows = 0, highs = 0;
      for (std::ptrdiff_t c = g * each; c < end; ++c) lows += x(r, c) == lo, highs += x(r, c) == hi;
      for (std::ptrdiff_t c = g * each; c < end; ++c) {
        if (x(r, c) == lo) expected(r, c) += d_low(r, g) / static_cast<T>(lows);
        if (x(r, c) == hi) expected(r, c) += d_high(r, g) / static_cast<T>(highs);
      }
    }
  const RangeGradient<T> gradient{low.data.data(), high.data.data(), d_low.data.data(), d_high.data.data()};
  CHECK(range_gradient<T>(x.read(), group, gradient, out.view(), {0, rows}) == Status::ok);
  for (std::ptrdiff_t r = 0; r < rows; ++r)
    for (std::ptrdiff_t c = 0; c < cols; ++c) CHECK(out(r, c) == expected(r, c));
}

}  // namespace

TEST("gradients of rounding are those of the formulas, for grids of a matrix, a row and a group") {
  for (const std::ptrdiff_t cols : {1, 3, 16, 37, 130})
    for (const std::ptrdiff_t group : {0, 5, 16}) {
      compare_rounding<float>(7, cols, group, false);
      compare_rounding<double>(7, cols, group, false);
      if (group == 0) compare_rounding<float>(7, cols, group, true), compare_rounding<double>(7, cols, group, true);
    }
}

TEST("the ends of a range share their gradient among all entries that reach them") {
  for (const std::ptrdiff_t cols : {1, 3, 16, 37, 130})
    for (const std::ptrdiff_t group : {0, 5, 16}) {
      compare_range<float>(7, cols, group);
      compare_range<double>(7, cols, group);
    }
}

TEST("NaN is reported, and arguments that make no sense are refused") {
  Problem<float> p(4, 33, 0, false);
  Matrix<float> d(4, 33), small(4, 32);
  RoundingGradient<float> gradient;
  gradient.upstream = p.upstream.read(), gradient.x = d.view();
  p.upstream(3, 32) = std::numeric_limits<float>::quiet_NaN();
  CHECK(fake_quantize_gradient<float>(p.x.read(), p.grid, gradient, {0, 4}) == Status::non_finite);
  CHECK(fake_quantize_gradient<float>(p.x.read(), p.grid, gradient, {0, 3}) == Status::ok);
  CHECK(fake_quantize_gradient<float>(p.x.read(), p.grid, gradient, {0, 5}) == Status::bad_argument);
  gradient.x = small.view();
  CHECK(fake_quantize_gradient<float>(p.x.read(), p.grid, gradient, {0, 4}) == Status::bad_argument);
  CHECK(fake_quantize_gradient<float>(p.x.read(), p.grid, {}, {0, 4}) == Status::bad_argument);
  CHECK(range_gradient<float>(p.x.read(), -1, {}, d.view(), {0, 4}) == Status::bad_argument);
  CHECK(range_gradient<float>(p.x.read(), 0, {p.scale.data.data(), nullptr, nullptr, nullptr}, d.view(), {0, 4}) == Status::bad_argument);
  CHECK(range_gradient<float>(p.x.read(), 0, {}, {}, {0, 4}) == Status::bad_argument);
}

int main() { return check::run(); }
