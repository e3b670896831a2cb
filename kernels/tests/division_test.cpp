// Element-wise division against plain scalar code in long double; gradients against their formulas.

#include <ptq/kernels/division.hpp>

#include "check.hpp"
#include "data.hpp"

using namespace ptq::kernels;

namespace {

template <class T>
void compare_exponentials() {
  std::vector<T> x, y;
  const T most = max_exponent<T>;
  for (int i = -4000; i <= 4000; ++i) x.push_back(most * static_cast<T>(i) / T(4000));
  Generator g{7};
  for (int i = 0; i < 4000; ++i) x.push_back(static_cast<T>(2 * g.normal()));
  x.push_back(T(0)), x.push_back(T(-0.0)), x.push_back(T(1e-30));
  y.resize(x.size());
  CHECK(exponentials(x.data(), y.data(), static_cast<std::ptrdiff_t>(x.size())) == Status::ok);
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const long double exact = std::exp(static_cast<long double>(x[i]));
    worst = std::max(worst, static_cast<double>(std::abs(static_cast<long double>(y[i]) / exact - 1)));
  }
  CHECK(worst <=
        (std::strcmp(ptq::kernels::text(isa()), "portable") == 0 ? 2 : 1) * static_cast<double>(std::numeric_limits<T>::epsilon()));
  CHECK(y[x.size() - 3] == T(1) && y[x.size() - 2] == T(1) && y[x.size() - 1] == T(1));
  for (const T bad : {most * T(1.01), -most * T(1.01), std::numeric_limits<T>::infinity(), std::numeric_limits<T>::quiet_NaN()}) {
    T out;
    CHECK(exponentials(&bad, &out, 1) == Status::non_finite);
  }
}

struct Shape {
  std::ptrdiff_t rows, cols, group;
  bool whole, matrix, row, column;
  double bound;
};

template <class T>
struct Problem {
  Shape s;
  std::ptrdiff_t groups, grids;
  Matrix<T> w, matrix, upstream, l, scale;
  Matrix<std::int32_t> zero;
  std::vector<T> row, column;
  Grid<T> grid;
  LogDivisor<T> t;

  explicit Problem(const Shape& shape)
      : s(shape),
        groups(s.group == 0 ? 1 : (s.cols + s.group - 1) / s.group),
        grids(s.whole ? 1 : s.rows),
        w(s.rows, s.cols, 3),
        matrix(s.rows, s.cols, 1),
        upstream(s.rows, s.cols, 2),
        l(grids, groups),
        scale(grids, groups),
        zero(grids, groups),
        row(static_cast<std::size_t>(s.rows)),
        column(static_cast<std::size_t>(s.cols)) {
    Generator g{static_cast<std::uint64_t>(s.cols * 31 + s.rows)};
    for (std::ptrdiff_t r = 0; r < s.rows; ++r)
      for (std::ptrdiff_t c = 0; c < s.cols; ++c) {
        w(r, c) = static_cast<T>(g.uniform() < 0.05 ? 0 : g.normal()), matrix(r, c) = static_cast<T>(0.2 * g.normal());
        upstream(r, c) = static_cast<T>(g.normal());
      }
    for (std::ptrdiff_t r = 0; r < grids; ++r)
      for (std::ptrdiff_t i = 0; i < groups; ++i) {
        l(r, i) = static_cast<T>(-1.5 + 0.3 * g.normal()), zero(r, i) = static_cast<std::int32_t>(8 + 3 * g.normal());
        exponentials(&l(r, i), &scale(r, i), 1);
      }
    for (T& x : row) x = static_cast<T>(0.1 * g.normal());
    for (T& x : column) x = static_cast<T>(0.1 * g.normal());
    grid.scale = scale.data.data(), grid.zero = zero.data.data(), grid.row_stride = s.whole ? 0 : groups,
    grid.group_stride = s.whole ? 0 : 1;
    grid.group = s.group;
    t.log_step = l.data.data(), t.bound = static_cast<T>(s.bound);
    if (s.matrix) t.matrix = matrix.read();
    if (s.row) t.row = row.data();
    if (s.column) t.column = column.data();
  }
};

/// One element in long double: what is written and its derivatives.
struct Element {
  long double divisor, value, to_matrix, to_step, to_weight;
  bool near_tie, near_bound;
};

template <class T>
Element element(Problem<T>& p, std::ptrdiff_t r, std::ptrdiff_t c) {
  const std::ptrdiff_t i = p.s.whole ? 0 : r, g = p.s.group == 0 ? 0 : c / p.s.group;
  const long double l = p.l(i, g), s = p.scale(i, g);
  long double parts = 0;
  if (p.s.matrix) parts += p.matrix(r, c);
  if (p.s.row) parts += p.row[static_cast<std::size_t>(r)];
  if (p.s.column) parts += p.column[static_cast<std::size_t>(c)];
  const bool held = p.s.bound > 0 && std::abs(parts) > p.s.bound;
  if (held) parts = parts > 0 ? p.s.bound : -p.s.bound;
  const long double divisor = std::exp(l + parts), v = p.w(r, c) / divisor, k = std::nearbyint(v);
  const long double lo = p.grid.codes.lo - p.zero(i, g), hi = p.grid.codes.hi - p.zero(i, g), q = std::min(std::max(k, lo), hi);
  const long double m = q == k ? 1 : 0, gs = p.upstream(r, c) * s;
  return {divisor,
          q * s,
          held ? 0 : -gs * m * v,
          gs * (q - m * v),
          gs * m / divisor,
          std::abs(std::abs(v - std::floor(v)) - 0.5L) < 1e-4L,
          p.s.bound > 0 && std::abs(std::abs(parts) - p.s.bound) < 1e-6L && !held};
}

template <class T>
void compare(const Shape& shape) {
  check::context() = std::to_string(shape.rows) + " x " + std::to_string(shape.cols) + " group " + std::to_string(shape.group);
  Problem<T> p(shape);
  const double close = sizeof(T) == 4 ? 4e-6 : 1e-13;
  const std::ptrdiff_t half = shape.rows / 2;
  Matrix<T> values(shape.rows, shape.cols, 1, T(-777)), divisors(shape.rows, shape.cols, 2), again(shape.rows, shape.cols);
  for (const Rows part : {Rows{0, half}, Rows{half, shape.rows}})
    CHECK(divide<T>(p.w.read(), p.grid, p.t, values.view(), divisors.view(), part) == Status::ok);
  // A solver that gets the divisors as data rounds the same.
  Coordinates<T> at;
  at.divisor = divisors.read();
  CHECK(fake_quantize<T>(p.w.read(), p.grid, again.view(), {}, {0, shape.rows}, at) == Status::ok);

  Matrix<T> d_matrix(shape.rows, shape.cols, 1), d_weight(shape.rows, shape.cols), d_step(p.grids, p.groups, 0, T(0));
  std::vector<T> d_row(p.row.size()), d_column(p.column.size());
  DivisionGradient<T> gradient;
  gradient.upstream = p.upstream.read(), gradient.matrix = d_matrix.view(), gradient.weight = d_weight.view();
  gradient.log_step = d_step.data.data(), gradient.row = d_row.data(), gradient.column = d_column.data();
  for (const Rows part : {Rows{0, half}, Rows{half, shape.rows}})
    CHECK(divide_gradient<T>(p.w.read(), p.grid, p.t, gradient, part) == Status::ok);

  std::vector<long double> step(static_cast<std::size_t>(p.grids * p.groups)), column(p.column.size());
  bool comparable = true;
  for (std::ptrdiff_t r = 0; r < shape.rows; ++r) {
    long double row = 0;
    for (std::ptrdiff_t c = 0; c < shape.cols; ++c) {
      const Element e = element(p, r, c);
      CHECK(again(r, c) == values(r, c));
      CHECK_NEAR(divisors(r, c) / e.divisor, 1, close);
      if (e.near_tie || e.near_bound) {
        comparable = false;
        continue;
      }
      CHECK_NEAR(values(r, c), e.value, close * 40);
      CHECK_NEAR(d_matrix(r, c), e.to_matrix, close * 40);
      CHECK_NEAR(d_weight(r, c), e.to_weight, close * 40);
      row += e.to_matrix, column[static_cast<std::size_t>(c)] += e.to_matrix;
      step[static_cast<std::size_t>((shape.whole ? 0 : r) * p.groups + (shape.group == 0 ? 0 : c / shape.group))] += e.to_step;
    }
    if (comparable) CHECK_NEAR(d_row[static_cast<std::size_t>(r)], row, close * 200);
    CHECK(values.data[static_cast<std::size_t>(r * values.stride + shape.cols)] == T(-777));
  }
  if (!comparable) return;
  for (std::size_t i = 0; i < step.size(); ++i) CHECK_NEAR(d_step.data[i], step[i], close * 400);
  for (std::size_t c = 0; c < column.size(); ++c) CHECK_NEAR(d_column[c], column[c], close * 200);
}

}  // namespace

TEST("exponentials are right to the last bit or its neighbour, and say where they are not") {
  compare_exponentials<float>();
  compare_exponentials<double>();
}

TEST("values, divisors and gradients are those of the formulas, with every part present or absent") {
  for (const std::ptrdiff_t cols : {1, 3, 16, 37, 64, 130})
    for (const std::ptrdiff_t group : {0, 5, 16})
      for (const int parts : {0, 1, 3, 5, 7})
        for (const double bound : {0.0, 0.15})
          for (const bool whole : {false, true}) {
            if (whole && group != 0) continue;
            const Shape s{9, cols, group, whole, (parts & 1) != 0, (parts & 2) != 0, (parts & 4) != 0, bound};
            compare<float>(s);
            compare<double>(s);
          }
}

TEST("large matrices take the path past the caches and give the same") {
  Problem<float> p({600, 8192, 0, false, true, true, true, 0});
  std::vector<float> room(static_cast<std::size_t>(600 * 8192 + 16)), plain(static_cast<std::size_t>(600 * 8192));
  float* aligned = room.data();
  while (reinterpret_cast<std::uintptr_t>(aligned) % 64 != 0) ++aligned;
  const View<float> past{aligned, 600, 8192, 8192}, kept{plain.data(), 600, 8192, 8192};
  CHECK(divide<float>(p.w.read(), p.grid, p.t, past, {}, {0, 600}) == Status::ok);
  for (std::ptrdiff_t r = 0; r < 600; ++r)  // one row at a time through a buffer that is not aligned
    CHECK(divide<float>(p.w.read(), p.grid, p.t, kept, {}, {r, r + 1}) == Status::ok);
  CHECK(std::memcmp(aligned, plain.data(), plain.size() * sizeof(float)) == 0);
  DivisionGradient<float> gradient;
  gradient.upstream = p.upstream.read(), gradient.matrix = past;
  CHECK(divide_gradient<float>(p.w.read(), p.grid, p.t, gradient, {0, 600}) == Status::ok);
  gradient.matrix = p.upstream.view();  // in place
  CHECK(divide_gradient<float>(p.w.read(), p.grid, p.t, gradient, {0, 600}) == Status::ok);
  bool same = true;
  for (std::ptrdiff_t r = 0; r < 600; ++r)
    for (std::ptrdiff_t c = 0; c < 8192; ++c) same = same && past.row(r)[c] == p.upstream(r, c);
  CHECK(same);
}

TEST("divisors that overflow, NaN and senseless arguments are reported") {
  Problem<float> p({4, 33, 0, false, true, true, true, 0});
  Matrix<float> y(4, 33);
  p.matrix(2, 32) = 200;
  CHECK(divide<float>(p.w.read(), p.grid, p.t, y.view(), {}, {0, 4}) == Status::non_finite);
  CHECK(divide<float>(p.w.read(), p.grid, p.t, y.view(), {}, {0, 2}) == Status::ok);
  p.matrix(2, 32) = std::numeric_limits<float>::quiet_NaN();
  CHECK(divide<float>(p.w.read(), p.grid, p.t, y.view(), {}, {0, 4}) == Status::non_finite);
  p.matrix(2, 32) = 0, p.w(0, 0) = std::numeric_limits<float>::infinity();
  CHECK(divide<float>(p.w.read(), p.grid, p.t, y.view(), {}, {0, 4}) == Status::non_finite);
  p.w(0, 0) = 1;
  CHECK(divide<float>(p.w.read(), p.grid, p.t, y.view(), {}, {0, 5}) == Status::bad_argument);
  LogDivisor<float> none = p.t;
  none.log_step = nullptr;
  CHECK(divide<float>(p.w.read(), p.grid, none, y.view(), {}, {0, 4}) == Status::bad_argument);
  none = p.t, none.bound = -1;
  CHECK(divide<float>(p.w.read(), p.grid, none, y.view(), {}, {0, 4}) == Status::bad_argument);
  none = p.t, none.matrix.cols = 32;
  CHECK(divide<float>(p.w.read(), p.grid, none, y.view(), {}, {0, 4}) == Status::bad_argument);
  CHECK(divide_gradient<float>(p.w.read(), p.grid, p.t, {}, {0, 4}) == Status::bad_argument);
}

int main() { return check::run(); }
