#pragma once
// A plain solver around the column engine, dense algebra in double, and the worked problem: what the tests of columns compare and drive
// with.

#include <ptq/kernels/columns.hpp>

#include <algorithm>
#include <numeric>

#include "check.hpp"
#include "data.hpp"

using namespace ptq::kernels;

using Dense = Matrix<double>;

inline Dense product(const Dense& a, const Dense& b) {
  Dense y(a.rows, b.cols);
  for (std::ptrdiff_t i = 0; i < a.rows; ++i) {
    for (std::ptrdiff_t k = 0; k < a.cols; ++k) {
      for (std::ptrdiff_t j = 0; j < b.cols; ++j) y(i, j) += a(i, k) * b(k, j);
    }
  }
  return y;
}

inline Dense transposed(const Dense& a) {
  Dense y(a.cols, a.rows);
  for (std::ptrdiff_t i = 0; i < a.rows; ++i) {
    for (std::ptrdiff_t j = 0; j < a.cols; ++j) y(j, i) = a(i, j);
  }
  return y;
}

/// Gauss-Jordan with pivoting.
inline Dense inverse(Dense a) {
  const std::ptrdiff_t n = a.rows;
  Dense y(n, n);
  for (std::ptrdiff_t i = 0; i < n; ++i) y(i, i) = 1;
  for (std::ptrdiff_t k = 0; k < n; ++k) {
    std::ptrdiff_t p = k;
    for (std::ptrdiff_t i = k; i < n; ++i) p = std::abs(a(i, k)) > std::abs(a(p, k)) ? i : p;
    for (std::ptrdiff_t j = 0; j < n; ++j) std::swap(a(k, j), a(p, j)), std::swap(y(k, j), y(p, j));
    const double d = a(k, k);
    for (std::ptrdiff_t j = 0; j < n; ++j) a(k, j) /= d, y(k, j) /= d;
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      if (i == k) continue;
      const double f = a(i, k);
      for (std::ptrdiff_t j = 0; j < n; ++j) a(i, j) -= f * a(k, j), y(i, j) -= f * y(k, j);
    }
  }
  return y;
}

/// H = R R^T, R upper triangular: Cholesky from the last column to the first.
inline Dense upper_factor(const Dense& h) {
  const std::ptrdiff_t n = h.rows;
  Dense r(n, n);
  for (std::ptrdiff_t j = n - 1; j >= 0; --j) {
    for (std::ptrdiff_t i = j; i >= 0; --i) {
      double s = h(i, j);
      for (std::ptrdiff_t k = j + 1; k < n; ++k) s -= r(i, k) * r(j, k);
      r(i, j) = i == j ? std::sqrt(s) : s / r(j, j);
    }
  }
  return r;
}

struct Factor {
  Dense m, u;                  // M = R diag(R)^-1, U = R^-1
  std::vector<double> weight;  // R_jj^2
};

inline Factor factor(const Dense& h) {
  const Dense r = upper_factor(h);
  Factor f{r, inverse(r), {}};
  for (std::ptrdiff_t j = 0; j < h.rows; ++j) {
    for (std::ptrdiff_t i = 0; i <= j; ++i) f.m(i, j) /= r(j, j);
    f.weight.push_back(r(j, j) * r(j, j));
  }
  return f;
}

inline Dense damped(Dense h, double percent = 0.01) {
  double mean = 0;
  for (std::ptrdiff_t i = 0; i < h.rows; ++i) mean += h(i, i) / static_cast<double>(h.rows);
  for (std::ptrdiff_t i = 0; i < h.rows; ++i) h(i, i) += percent * mean;
  return h;
}

template <class T>
struct Tables {
  Matrix<T> scale;
  Matrix<std::int32_t> zero;
  Grid<T> grid(std::ptrdiff_t group, CodeRange codes) const {
    Grid<T> g;
    g.scale = scale.data.data(), g.zero = zero.data.data(), g.row_stride = scale.stride, g.group_stride = 1, g.group = group,
    g.codes = codes;
    return g;
  }
};

template <class T>
Tables<T> fit(const Matrix<T>& w, std::ptrdiff_t group, const Convention& c) {
  const std::ptrdiff_t groups = group == 0 ? 1 : (w.cols + group - 1) / group;
  Tables<T> t{Matrix<T>(w.rows, groups), Matrix<std::int32_t>(w.rows, groups)};
  fit_grid<T>(w.view(), group, c, {}, {t.scale.data.data(), t.zero.data.data(), groups, 1}, all(w.view()));
  return t;
}

template <class T>
Matrix<T> cast(const Dense& a, std::ptrdiff_t padding = 0) {
  Matrix<T> y(a.rows, a.cols, padding);
  for (std::ptrdiff_t i = 0; i < a.rows; ++i) {
    for (std::ptrdiff_t j = 0; j < a.cols; ++j) y(i, j) = static_cast<T>(a(i, j));
  }
  return y;
}

template <class T>
struct Solved {
  Matrix<T> q, e, seen;
  Matrix<std::int32_t> codes;
  std::vector<double> loss;
  Status status = Status::ok;
};

enum class Groups {
  fixed,
  fresh,
  stale
};  // grids from the start; from current weights; as published, from the weights at the block's start

/// The driver of a block-wise solver, products by compensate(). Rows in two parts, as two threads would.
template <class T>
Solved<T> solve(const Matrix<T>& w, const Factor& f, std::ptrdiff_t block, std::ptrdiff_t group, const Convention& convention,
                Groups groups = Groups::fixed, const std::int32_t* g_idx = nullptr, const Matrix<T>* grid_source = nullptr) {
  const std::ptrdiff_t m = w.rows, n = w.cols;
  Solved<T> y{Matrix<T>(m, n, 2), Matrix<T>(m, n, 1), Matrix<T>(m, n), Matrix<std::int32_t>(m, n),
              std::vector<double>(static_cast<std::size_t>(n))};
  Tables<T> tables = fit(grid_source != nullptr ? *grid_source : w, group, convention);
  const Matrix<T> mm = cast<T>(f.m);
  std::vector<T> weight(f.weight.begin(), f.weight.end());
  for (std::ptrdiff_t b = 0; b < n; b += block) {
    const std::ptrdiff_t k = std::min(block, n - b);
    const auto column = [&](const Matrix<T>& a, std::ptrdiff_t at, std::ptrdiff_t cols) {
      return View<const T>{a.data.data() + at, m, cols, a.stride};
    };
    Matrix<T> x = w;  // current weights of all columns not yet rounded
    if (b > 0) {
      const View<const T> rest{&mm(0, b), b, n - b, n};
      CHECK(compensate<T>(column(y.e, 0, b), rest, {x.data.data() + b, m, n - b, x.stride}, {0, m}) == Status::ok);
    }
    for (std::ptrdiff_t c = b; c < b + k && groups != Groups::fixed; ++c) {
      if (c % group != 0 || (groups == Groups::fresh && c != b)) continue;
      const std::ptrdiff_t width = std::min(group, n - c);
      const GridTable<T> out{&tables.scale(0, c / group), &tables.zero(0, c / group), tables.scale.stride, 1};
      const std::ptrdiff_t wide = c + width - b;  // from the block's start to the group's end
      Matrix<T> now(m, wide);
      std::vector<char> scratch(column_block_workspace<T>(wide));
      CHECK(current_weights<T>(column(w, b, wide), column(x, b, wide), {&mm(b, b), wide, wide, n}, now.view(), {0, m}, scratch.data(),
                               scratch.size()) == Status::ok);
      fit_grid<T>(column(now, c - b, width), 0, convention, {}, out, {0, m});
    }
    std::vector<std::int32_t> index(static_cast<std::size_t>(k));
    for (std::ptrdiff_t j = 0; j < k; ++j)
      index[static_cast<std::size_t>(j)] = static_cast<std::int32_t>(g_idx != nullptr ? g_idx[b + j] : group == 0 ? 0 : (b + j) / group);
    ColumnBlock<T> a;
    a.w = column(w, b, k), a.x = column(x, b, k), a.m = {&mm(b, b), k, k, n};
    a.grid = tables.grid(0, code_range(convention)), a.grid.g_idx = index.data();
    a.loss_weight = weight.data() + b;
    a.q = {y.q.data.data() + b, m, k, y.q.stride}, a.e = {y.e.data.data() + b, m, k, y.e.stride},
    a.seen = {y.seen.data.data() + b, m, k, y.seen.stride};
    a.codes = Codes{y.codes.data.data() + b, y.codes.stride};
    std::vector<double> loss(static_cast<std::size_t>(k)), more(loss.size());
    std::vector<char> scratch(column_block_workspace<T>(k) + 1);
    a.loss = loss.data();
    y.status = worst(y.status, column_block<T>(a, {0, m / 2}, scratch.data() + 1, scratch.size() - 1));
    a.loss = more.data();
    y.status = worst(y.status, column_block<T>(a, {m / 2, m}, scratch.data(), scratch.size()));
    for (std::ptrdiff_t j = 0; j < k; ++j)
      y.loss[static_cast<std::size_t>(b + j)] = loss[static_cast<std::size_t>(j)] + more[static_cast<std::size_t>(j)];
  }
  return y;
}

template <class T>
double total(const std::vector<T>& v) {
  return std::accumulate(v.begin(), v.end(), 0.0);
}

/// ||(W - Q) X||^2 = tr (W - Q) S (W - Q)^T with S = X X^T.
inline double output_error(const Dense& w, const Dense& q, const Dense& x) {
  Dense d = w;
  for (std::ptrdiff_t i = 0; i < w.rows; ++i) {
    for (std::ptrdiff_t j = 0; j < w.cols; ++j) d(i, j) -= q(i, j);
  }
  const Dense y = product(d, x);
  double s = 0;
  for (std::ptrdiff_t i = 0; i < y.rows; ++i) {
    for (std::ptrdiff_t j = 0; j < y.cols; ++j) s += y(i, j) * y(i, j);
  }
  return s;
}

inline Dense second_moment(const Dense& x, double factor) {
  Dense h = product(x, transposed(x));
  for (double& v : h.data) v *= factor;
  return h;
}

inline Dense compact(const Dense& a) { return cast<double>(a); }

inline Dense normal(Generator& g, std::ptrdiff_t r, std::ptrdiff_t c, double s) {
  Dense y(r, c);
  for (std::ptrdiff_t i = 0; i < r * c; ++i) y.data[static_cast<std::size_t>(i)] = s * g.normal();
  return y;
}

struct Correlated {  // worked example: seed 1, m = 6, n = 16
  Dense w, x;
  explicit Correlated(std::uint64_t seed = 1, std::ptrdiff_t m = 6, std::ptrdiff_t n = 16, std::ptrdiff_t tokens = 64) {
    Generator g{seed};
    w = normal(g, m, n, 0.3);
    const Dense a = normal(g, n, 4, 1), z = normal(g, 4, tokens, 1), noise = normal(g, n, tokens, 0.2);
    x = product(a, z);
    for (std::size_t i = 0; i < static_cast<std::size_t>(n * tokens); ++i) x.data[i] += noise.data[i];
  }
};

inline Dense columns_of(const Dense& a, const std::vector<std::ptrdiff_t>& order) {
  Dense y(a.rows, a.cols);
  for (std::ptrdiff_t i = 0; i < a.rows; ++i) {
    for (std::ptrdiff_t j = 0; j < a.cols; ++j) y(i, j) = a(i, order[static_cast<std::size_t>(j)]);
  }
  return y;
}

inline std::vector<std::ptrdiff_t> descending(const Dense& h) {
  std::vector<std::ptrdiff_t> order(static_cast<std::size_t>(h.rows));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::ptrdiff_t a, std::ptrdiff_t b) { return h(a, a) > h(b, b); });
  return order;
}

inline double grid_value(double w, double s, std::int32_t z, CodeRange r, std::int32_t& code) {
  code = std::clamp(static_cast<std::int32_t>(std::nearbyint(w / s)) + z, r.lo, r.hi);
  return s * (code - z);
}

/// Optimal brain quantization in a fixed order, the inverse of what is left computed afresh for every column.
inline Matrix<std::int32_t> brute_force(Dense w, const Dense& h, const Tables<double>& t, std::ptrdiff_t group, CodeRange r) {
  const std::ptrdiff_t n = w.cols;
  Matrix<std::int32_t> codes(w.rows, n);
  for (std::ptrdiff_t j = 0; j < n; ++j) {
    Dense rest(n - j, n - j);
    for (std::ptrdiff_t a = j; a < n; ++a) {
      for (std::ptrdiff_t b = j; b < n; ++b) rest(a - j, b - j) = h(a, b);
    }
    const Dense v = inverse(rest);
    for (std::ptrdiff_t i = 0; i < w.rows; ++i) {
      const std::ptrdiff_t g = group == 0 ? 0 : j / group;
      const double q = grid_value(w(i, j), t.scale(i, g), t.zero(i, g), r, codes(i, j)), e = (w(i, j) - q) / v(0, 0);
      for (std::ptrdiff_t b = j; b < n; ++b) w(i, b) -= e * v(0, b - j);
    }
  }
  return codes;
}
