// The column engine against the plain recursion of GPTQ, brute force, and worked examples.

#include <ptq/kernels/columns.hpp>

#include "check.hpp"
#include "data.hpp"
#include "solver.hpp"

TEST("the tiny worked example holds in every intermediate") {
  Dense w(2, 3), x(3, 5);
  w.data = {0.50, -0.30, 0.20, -0.10, 0.40, 0.25, 0};
  x.data = {1.0, 2.0, -1.0, 0.5, 1.5, 0.8, 1.9, -1.2, 0.4, 1.3, -0.5, 0.3, 0.9, -1.0, 0.2, 0};
  const Dense h = damped(second_moment(x, 2));
  CHECK_NEAR(h(0, 0), 17 + 0.121533, 1e-6);
  CHECK_NEAR(h(0, 1), 15.9, 1e-12);
  CHECK_NEAR(h(2, 2), 4.38 + 0.121533, 1e-6);
  const Dense hinv = inverse(h);
  const double wanted_inverse[] = {2.075521, -2.184263, -0.096836, -2.184263, 2.369015, 0.134711, -0.096836, 0.134711, 0.241967};
  for (int i = 0; i < 9; ++i) CHECK_NEAR(hinv.data[static_cast<std::size_t>(i)], wanted_inverse[i], 6e-7);
  const Factor f = factor(h);
  const double wanted_u[] = {1.440667, -1.516147, -0.067216, 0, 0.265168, 0.123703, 0, 0, 0.471324};
  for (int i = 0; i < 9; ++i) CHECK_NEAR(f.u.data[static_cast<std::size_t>(i)], wanted_u[i], 6e-7);
  const Tables<double> t = fit(w, 0, {Range::gptq, 3});
  CHECK_NEAR(t.scale(0, 0), 0.1142857, 6e-8);
  CHECK_NEAR(t.scale(1, 0), 0.0714286, 6e-8);
  CHECK(t.zero(0, 0) == 3 && t.zero(1, 0) == 1);
  for (const std::ptrdiff_t block : {1, 2, 3, 128}) {
    const Solved<double> y = solve(w, f, block, 0, {Range::gptq, 3});
    const double seen[2][3] = {{0.5, -0.254897, 0.214281}, {-0.1, 0.369932, 0.242701}};
    const double q[2][3] = {{0.457143, -0.228571, 0.228571}, {-0.071429, 0.357143, 0.214286}};
    const double e[2][2] = {{0.029748, -0.099280}, {-0.019832, 0.048229}};
    const int codes[2][3] = {{7, 1, 5}, {0, 6, 4}};
    for (std::ptrdiff_t i = 0; i < 2; ++i) {
      for (std::ptrdiff_t j = 0; j < 3; ++j) {
        CHECK_NEAR(y.seen(i, j), seen[i][j], 6e-7);
        CHECK_NEAR(y.q(i, j), q[i][j], 6e-7);
        CHECK(y.codes(i, j) == codes[i][j]);
        CHECK_NEAR(y.e(i, j), w(i, j) - q[i][j], 6e-7);
        if (j < 2) CHECK_NEAR((y.seen(i, j) - y.q(i, j)) / f.u(j, j), e[i][j], 6e-7);
      }
    }
    CHECK_NEAR(total(y.loss) / 2, 0.009007, 6e-7);
    CHECK_NEAR(output_error(w, compact(y.q), x), 0.008297, 6e-7);
  }
  const Solved<double> two = solve(w, f, 128, 0, {Range::gptq, 2});
  const int codes[2][3] = {{3, 0, 2}, {0, 3, 2}};
  for (std::ptrdiff_t i = 0; i < 2; ++i) {
    for (std::ptrdiff_t j = 0; j < 3; ++j) CHECK(two.codes(i, j) == codes[i][j]);
  }
  CHECK_NEAR(output_error(w, compact(two.q), x), 0.170497, 6e-7);
}

TEST("AWRQ's worked example: the shifted target, and column 0 rounded from the unshifted weight through x") {
  Dense w(2, 3);
  w.data = {0.50, -0.30, 0.20, -0.10, 0.40, 0.25, 0};
  const Dense shifted = [] {
    Dense s(2, 3);
    s.data = {0.506477, -0.257221, 0.169417, -0.100220, 0.380598, 0.298491, 0};
    return s;
  }();
  Dense xq(3, 5);
  xq.data = {0.914286, 1.828571, -0.914286, 0.457143, 1.371429, 0.914286,  1.828571, -1.371429,
             0.457143, 1.371429, -0.457143, 0.457143, 0.914286, -0.914286, 0,        0};
  const Dense h = damped(second_moment(xq, 1));
  const Factor f = factor(h);
  const double wanted_u[] = {2.145256, -2.018786, -0.343661, 0, 0.365735, 0.213533, 0, 0, 0.682373};
  for (int i = 0; i < 9; ++i) CHECK_NEAR(f.u.data[static_cast<std::size_t>(i)], wanted_u[i], 2e-5);
  const Tables<double> t = fit(w, 0, {Range::gptq, 3});
  Dense x = shifted;
  for (std::ptrdiff_t i = 0; i < 2; ++i) x(i, 0) = w(i, 0);
  Matrix<std::int32_t> codes(2, 3);
  Dense q(2, 3), seen(2, 3);
  ColumnBlock<double> a;
  a.w = shifted.read(), a.x = x.read(), a.m = f.m.read(), a.grid = t.grid(0, {0, 7}), a.q = q.view(), a.seen = seen.view();
  a.codes = Codes{codes.data.data(), 3};
  std::vector<char> scratch(column_block_workspace<double>(3));
  CHECK(column_block<double>(a, {0, 2}, scratch.data(), scratch.size()) == Status::ok);
  const int wanted[] = {7, 1, 4, 0, 6, 5};
  const double wanted_seen[] = {0.5, -0.210796, 0.166941, -0.1, 0.353503, 0.296004};
  for (std::size_t i = 0; i < 6; ++i) CHECK(codes.data[i] == wanted[i]);
  for (std::size_t i = 0; i < 6; ++i) CHECK_NEAR(seen.data[i], wanted_seen[i], 2e-5);
}

TEST("correlated inputs: errors of rounding, GPTQ and act-order to the printed digits, double and float") {
  const Correlated d;
  const Dense raw = second_moment(d.x, 2), h = damped(raw);
  const std::vector<std::ptrdiff_t> order = descending(raw);
  const Dense wp = columns_of(d.w, order), xp = transposed(columns_of(transposed(d.x), order)), hp = damped(second_moment(xp, 2));
  struct Row {
    int bits;
    double rtn, gptq, ordered, half_loss;
  };
  for (const Row& row : {Row{4, 9.734279, 1.867173, 0.850427, 2.104867}, Row{3, 60.855349, 7.445363, 3.867133, 8.738640},
                         Row{2, 247.769061, 85.569392, 33.977023, 94.037765}}) {
    check::context() = std::to_string(row.bits) + " bits";
    const Convention c{Range::gptq, row.bits};
    const Tables<double> t = fit(d.w, 0, c);
    Dense rtn(d.w.rows, d.w.cols);
    fake_quantize<double>(d.w.view(), t.grid(0, code_range(c)), rtn.view(), {}, all(d.w.view()));
    CHECK_NEAR(output_error(d.w, rtn, d.x), row.rtn, 6e-7);
    for (const std::ptrdiff_t block : {1, 2, 3, 5, 128}) {
      const Solved<double> y = solve(d.w, factor(h), block, 0, c);
      CHECK_NEAR(output_error(d.w, compact(y.q), d.x), row.gptq, 6e-7);
      CHECK_NEAR(total(y.loss) / 2, row.half_loss, 6e-7);
      const Solved<double> z = solve(wp, factor(hp), block, 0, c);
      CHECK_NEAR(output_error(wp, compact(z.q), xp), row.ordered, 6e-7);
      const Solved<float> s = solve(cast<float>(d.w), factor(h), block, 0, c);
      CHECK(s.codes.data == y.codes.data);  // float takes the same decisions
      CHECK_NEAR(total(s.loss) / 2, row.half_loss, 1e-4 * row.half_loss);
    }
    CHECK(brute_force(d.w, h, t, 0, code_range(c)).data == solve(d.w, factor(h), 128, 0, c).codes.data);
  }
}

TEST("groups: fixed, from current weights, and as published, to the printed digits") {
  const Correlated d;
  const Factor f = factor(damped(second_moment(d.x, 2)));
  const Convention c{Range::gptq, 4};
  const auto error = [&](std::ptrdiff_t block, std::ptrdiff_t group, Groups groups) {
    return output_error(d.w, compact(solve(d.w, f, block, group, c, groups).q), d.x);
  };
  for (const std::ptrdiff_t block : {1, 2, 4}) CHECK_NEAR(error(block, 4, Groups::stale), 0.91164, 6e-6);
  CHECK_NEAR(error(8, 4, Groups::stale), 1.55474, 6e-6);
  CHECK_NEAR(error(16, 4, Groups::stale), 2.15404, 6e-6);
  CHECK_NEAR(error(4, 4, Groups::fresh), 0.91164, 6e-6);
  for (const std::ptrdiff_t block : {1, 3, 4, 8, 16}) CHECK_NEAR(error(block, 4, Groups::fixed), 2.15404, 6e-6);
  for (const std::ptrdiff_t block : {1, 2, 4, 8}) CHECK_NEAR(error(block, 8, Groups::stale), 1.86729, 6e-6);
  CHECK_NEAR(error(16, 8, Groups::stale), 1.64972, 6e-6);
  CHECK_NEAR(error(5, 8, Groups::fixed), 1.64972, 6e-6);
}

TEST("act-order with the grids of the original groups reads them through the map") {
  const Correlated d;
  const Dense raw = second_moment(d.x, 2);
  const std::vector<std::ptrdiff_t> order = descending(raw);
  const Dense wp = columns_of(d.w, order), xp = transposed(columns_of(transposed(d.x), order)), hp = damped(second_moment(xp, 2));
  std::vector<std::int32_t> map;
  for (const std::ptrdiff_t j : order) map.push_back(static_cast<std::int32_t>(j / 4));
  const Convention c{Range::gptq, 4};
  const Solved<double> y = solve(wp, factor(hp), 128, 4, c, Groups::fixed, map.data(), &d.w);
  const Tables<double> t = fit(d.w, 4, c);
  for (std::ptrdiff_t i = 0; i < d.w.rows; ++i) {
    for (std::ptrdiff_t j = 0; j < 16; ++j) {
      std::int32_t code;
      const std::ptrdiff_t g = map[static_cast<std::size_t>(j)];
      CHECK(y.q(i, j) == grid_value(y.seen(i, j), t.scale(i, g), t.zero(i, g), {0, 15}, code));
      CHECK(y.codes(i, j) == code);
    }
  }
  for (const std::ptrdiff_t block : {1, 5})
    CHECK(solve(wp, factor(hp), block, 4, c, Groups::fixed, map.data(), &d.w).codes.data == y.codes.data);
}

TEST("a diagonal H gives plain rounding") {
  const Matrix<float> w = hostile<float>(36, 50, 3, 0);
  Dense h(50, 50);
  for (std::ptrdiff_t i = 0; i < 50; ++i) h(i, i) = 3 + static_cast<double>(i % 4);
  const Factor f = factor(h);
  const Convention c{Range::gptq, 4};
  const Tables<float> t = fit(w, 0, c);
  Matrix<float> rtn(36, 50);
  std::vector<std::int32_t> codes(36 * 50);
  fake_quantize<float>(w.view(), t.grid(0, code_range(c)), rtn.view(), Codes{codes.data(), 50}, all(w.view()));
  for (const std::ptrdiff_t block : {1, 7, 50}) {
    const Solved<float> y = solve(w, f, block, 0, c);
    for (std::ptrdiff_t i = 0; i < 36; ++i) {
      for (std::ptrdiff_t j = 0; j < 50; ++j) {
        CHECK(y.codes(i, j) == codes[static_cast<std::size_t>(i * 50 + j)]);
        CHECK(y.q(i, j) == rtn(i, j));
      }
    }
  }
}

namespace {

template <class T>
void compare_with_plain(double tolerance) {
  for (const std::ptrdiff_t rows : {1, 3, 16, 33, 70}) {
    for (const std::ptrdiff_t cols : {1, 2, 5, 8, 13, 40, 130}) {
      const Correlated d(static_cast<std::uint64_t>(rows * 1000 + cols), rows, cols, 2 * cols + 8);
      const Factor f = factor(damped(second_moment(d.x, 2)));
      const Matrix<T> w = cast<T>(d.w, 3);
      const Convention c{Range::gptq, 3};
      const Solved<T> y = solve(w, f, 128, 16, c);
      check::context() = "rows " + std::to_string(rows) + " cols " + std::to_string(cols);
      CHECK(y.status == Status::ok);
      const Tables<T> t = fit(w, 16, c);
      double loss = 0, wanted = 0;
      for (std::ptrdiff_t i = 0; i < rows; ++i) {
        for (std::ptrdiff_t j = 0; j < cols;
             ++j) {  // follow the decisions taken: each must be the grid's, of the value it should have seen
          double x = static_cast<double>(w(i, j));
          for (std::ptrdiff_t k = 0; k < j; ++k) x += (static_cast<double>(w(i, k)) - static_cast<double>(y.q(i, k))) * f.m(k, j);
          CHECK_NEAR(y.seen(i, j), x, tolerance);
          std::int32_t code;
          const T q =
              static_cast<T>(grid_value(static_cast<double>(y.seen(i, j) / t.scale(i, j / 16)), 1.0, t.zero(i, j / 16), {0, 7}, code)) *
              t.scale(i, j / 16);
          CHECK(y.codes(i, j) == code);
          CHECK_NEAR(y.q(i, j), q, 1e-6 * std::abs(static_cast<double>(q)));
          CHECK(y.e(i, j) == w(i, j) - y.q(i, j));
          const double miss = static_cast<double>(y.seen(i, j) - y.q(i, j));
          wanted += miss * miss * f.weight[static_cast<std::size_t>(j)];
        }
      }
      loss = total(y.loss);
      CHECK_NEAR(loss, wanted, 1e-5 * wanted);
    }
  }
}

}  // namespace

TEST("every entry is the grid's answer to the value it should have seen, any shape, double") { compare_with_plain<double>(1e-9); }
TEST("every entry is the grid's answer to the value it should have seen, any shape, float") { compare_with_plain<float>(2e-4); }

TEST("divisors, offsets, tables and kept entries decide codes and leave the recursion alone") {
  for (const int kind : {0, 1, 2, 3, 4, 5}) {  // divisor, offset, table a column, shared table times scale, kept entries, kept with table
    check::context() = "kind " + std::to_string(kind);
    const std::ptrdiff_t m = 37, n = 21;
    const Correlated d(9, m, n, 64);
    const Factor f = factor(damped(second_moment(d.x, 2)));
    Generator g{4};
    Dense divisor(m, n), offset(m, n), levels(n, 5);
    Matrix<std::uint8_t> keep(m, n);
    std::vector<std::int32_t> sizes(static_cast<std::size_t>(n));
    const Convention c{Range::gptq, 3};
    const Tables<double> t = fit(d.w, 0, c);
    for (std::ptrdiff_t i = 0; i < m; ++i) {
      for (std::ptrdiff_t j = 0; j < n; ++j)
        divisor(i, j) = t.scale(i, 0) * (0.9 + 0.2 * g.uniform()), offset(i, j) = g.uniform() - 0.5, keep(i, j) = g.uniform() < 0.1;
    }
    for (std::ptrdiff_t j = 0; j < n; ++j) {
      std::vector<double> l;
      for (int k = 0; k < 5; ++k) l.push_back(0.4 * g.normal());
      std::sort(l.begin(), l.end());
      for (int k = 0; k < 5; ++k) levels(j, k) = l[static_cast<std::size_t>(k)];
      sizes[static_cast<std::size_t>(j)] = 1 + static_cast<std::int32_t>(j % 5);
    }
    const double shared[] = {-6, -3, -1.5, 0, 0.75, 2, 4};
    Dense q(m, n), e(m, n), seen(m, n);
    Matrix<std::uint8_t> codes(m, n);
    ColumnBlock<double> a;
    a.w = d.w.read(), a.m = f.m.read(), a.grid = t.grid(0, {0, 7}), a.q = q.view(), a.e = e.view(), a.seen = seen.view(),
    a.codes = Codes{codes.data.data(), n};
    if (kind == 0) a.divisor = divisor.read();
    if (kind == 1) a.offset = offset.read();
    if (kind == 2 || kind == 5) a.table = {levels.data.data(), levels.stride, sizes.data(), 0}, a.grid = {};
    if (kind == 3) a.table = {shared, 0, nullptr, 7};
    if (kind >= 4) a.keep = keep.read();
    std::vector<double> loss(static_cast<std::size_t>(n));
    a.loss = loss.data();
    std::vector<char> scratch(column_block_workspace<double>(n));
    CHECK(column_block<double>(a, {0, m}, scratch.data(), scratch.size()) == Status::ok);
    double wanted_loss = 0;
    for (std::ptrdiff_t i = 0; i < m; ++i) {
      for (std::ptrdiff_t j = 0; j < n; ++j) {
        double x = d.w(i, j), value = 0;
        for (std::ptrdiff_t k = 0; k < j; ++k) x += (d.w(i, k) - q(i, k)) * f.m(k, j);
        CHECK_NEAR(seen(i, j), x, 1e-9);
        x = seen(i, j);
        std::int32_t code = 0;
        const double s = t.scale(i, 0);
        if (kind <= 1 || kind == 4) {
          const double coordinate = kind == 0 ? x / divisor(i, j) : x / s + (kind == 1 ? offset(i, j) : 0);
          code = std::clamp(static_cast<std::int32_t>(std::nearbyint(coordinate)) + t.zero(i, 0), 0, 7);
          value = s * (code - t.zero(i, 0));
        } else {
          const double* l = kind == 3 ? shared : &levels(j, 0);
          const int size = kind == 3 ? 7 : sizes[static_cast<std::size_t>(j)];
          const double y = kind == 3 ? x / s : x;
          for (int k = 1; k < size; ++k) code = std::abs(l[k] - y) < std::abs(l[code] - y) ? k : code;
          value = l[code] * (kind == 3 ? s : 1);
        }
        if (kind >= 4 && keep(i, j)) value = x;
        CHECK(codes(i, j) == code);
        CHECK_NEAR(q(i, j), value, 1e-15);
        CHECK(e(i, j) == d.w(i, j) - q(i, j));
        wanted_loss += (x - value) * (x - value);
      }
    }
    CHECK_NEAR(total(loss), wanted_loss, 1e-9 * wanted_loss);
  }
}

TEST("thresholds of a shared table say where ties go") {
  const double levels[] = {-2, -1, 0, 1, 2}, upwards[] = {std::nextafter(-1.5, -9), std::nextafter(-0.5, -9), 0.5, 1.5};
  const double x[] = {-1.5, -0.5, 0.5, 1.5, -9, 9, std::nextafter(0.5, 1), std::nextafter(-0.5, -1)};
  const std::uint8_t middle[] = {0, 1, 2, 3, 0, 4, 3, 1}, moved[] = {1, 2, 2, 3, 0, 4, 3, 1};
  for (const bool given : {false, true}) {
    Dense w(8, 1);
    for (std::ptrdiff_t i = 0; i < 8; ++i) w(i, 0) = 0.25 * x[i];
    const double scale = 0.25;
    std::uint8_t codes[8];
    ColumnBlock<double> a;
    a.w = w.read(), a.table = {levels, 0, nullptr, 5, given ? upwards : nullptr}, a.codes = Codes{codes, 1};
    a.grid.scale = &scale, a.grid.row_stride = 0;
    std::vector<char> scratch(column_block_workspace<double>(1));
    CHECK(column_block<double>(a, {0, 8}, scratch.data(), scratch.size()) == Status::ok);
    for (std::size_t i = 0; i < 8; ++i) CHECK(codes[i] == (given ? moved : middle)[i]);
  }
}

TEST("GPTAQ's recursion is the same engine with other inputs") {
  const std::ptrdiff_t m = 8, n = 24;
  const Correlated d(11, m, n, 64);
  const Dense h = damped(second_moment(d.x, 2));
  const Factor f = factor(h);
  Generator g{5};
  Dense p(n, n);
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    for (std::ptrdiff_t j = i + 1; j < n; ++j) p(i, j) = 0.02 * g.normal();
  }
  const Convention c{Range::gptq, 3};
  const Tables<double> t = fit(d.w, 0, c);
  Matrix<std::int32_t> wanted(m, n);
  Dense w = d.w;  // W[:, j:] -= e_j U[j, j:] - w_j P[j, j:]
  for (std::ptrdiff_t j = 0; j < n; ++j) {
    for (std::ptrdiff_t i = 0; i < m; ++i) {
      const double x = w(i, j), q = grid_value(x, t.scale(i, 0), t.zero(i, 0), {0, 7}, wanted(i, j)), e = (x - q) / f.u(j, j);
      for (std::ptrdiff_t k = j; k < n; ++k) w(i, k) -= e * f.u(j, k) - x * p(j, k);
    }
  }
  Dense ip = p, np = inverse(f.m);
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    for (std::ptrdiff_t j = 0; j < n; ++j) ip(i, j) = (i == j) - p(i, j), np(i, j) -= p(i, j);
  }
  const Factor mixed{product(ip, inverse(np)), {}, f.weight};
  const Dense target = product(d.w, inverse(ip));
  for (const std::ptrdiff_t block : {1, 5, 24})
    CHECK(solve(target, mixed, block, 0, c, Groups::fixed, nullptr, &d.w).codes.data == wanted.data);
}

TEST("row ranges, strides and threads do not matter; what was not asked for is not touched") {
  const Correlated d(3, 45, 30, 64);
  const Factor f = factor(damped(second_moment(d.x, 2)));
  const Matrix<float> w = cast<float>(d.w, 5), mm = cast<float>(f.m, 2);
  const Tables<float> t = fit(w, 0, {Range::gptq, 4});
  Matrix<float> q(45, 30, 4, -777.0f), parts(45, 30, 4, -777.0f);
  ColumnBlock<float> a;
  a.w = w.read(), a.m = mm.read(), a.grid = t.grid(0, {0, 15}), a.q = q.view();
  std::vector<char> scratch(column_block_workspace<float>(30));
  CHECK(column_block<float>(a, {0, 45}, scratch.data(), scratch.size()) == Status::ok);
  a.q = parts.view();
  for (const Rows rows : {Rows{0, 1}, Rows{1, 34}, Rows{34, 34}, Rows{34, 45}})
    CHECK(column_block<float>(a, rows, scratch.data(), scratch.size()) == Status::ok);
  CHECK(q.data == parts.data);
  a.q = {};
  CHECK(column_block<float>(a, {0, 45}, scratch.data(), scratch.size()) == Status::ok);
}

TEST("current weights are the optimum given the columns already rounded") {
  const std::ptrdiff_t m = 5, n = 20, done = 7;
  const Correlated d(2, m, n, 64);
  const Dense h = damped(second_moment(d.x, 2));
  const Factor f = factor(h);
  Generator g{8};
  Dense e = normal(g, m, done, 0.05), x(m, n - done), y(m, n - done), hpf(done, n - done), hff(n - done, n - done);
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    for (std::ptrdiff_t j = done; j < n; ++j) (i < done ? hpf(i, j - done) : hff(i - done, j - done)) = h(i, j);
  }
  const Dense move = product(product(e, hpf), inverse(hff));  // argmin over the rest of tr E H E^T
  for (std::ptrdiff_t i = 0; i < m; ++i) {
    for (std::ptrdiff_t j = 0; j < n - done; ++j) x(i, j) = d.w(i, j + done);
  }
  const View<const double> rest{d.w.data.data() + done, m, n - done, n};
  CHECK(compensate<double>(e.view(), {&f.m(0, done), done, n - done, n}, x.view(), {0, m}) == Status::ok);
  std::vector<char> scratch(column_block_workspace<double>(n - done));
  CHECK(current_weights<double>(rest, x.read(), {&f.m(done, done), n - done, n - done, n}, y.view(), {0, m}, scratch.data(),
                                scratch.size()) == Status::ok);
  for (std::ptrdiff_t i = 0; i < m; ++i) {
    for (std::ptrdiff_t j = 0; j < n - done; ++j) CHECK_NEAR(y(i, j), d.w(i, j + done) + move(i, j), 1e-9);
  }
}

TEST("compensate adds the product, any shape") {
  for (const std::ptrdiff_t rows : {1, 4, 7, 21}) {
    for (const std::ptrdiff_t cols : {1, 15, 16, 33, 70, 300}) {
      for (const std::ptrdiff_t k : {0, 1, 9, 600}) {
        Generator g{2};
        const Dense e = normal(g, rows, k, 1), m = normal(g, k, cols, 1), start = normal(g, rows, cols, 1), y = product(e, m);
        Matrix<float> x = cast<float>(start, 2);
        const Matrix<float> ef = cast<float>(e), mf = cast<float>(m);
        CHECK(compensate<float>(ef.view(), mf.view(), x.view(), {0, rows}) == Status::ok);
        for (std::ptrdiff_t i = 0; i < rows; ++i) {
          for (std::ptrdiff_t j = 0; j < cols; ++j)
            CHECK_NEAR(x(i, j), start(i, j) + y(i, j), 1e-5 * std::sqrt(1.0 + static_cast<double>(k)));
        }
      }
    }
  }
}

TEST("hostile weights stay finite, and NaN or infinity is reported and stays in its row") {
  const std::ptrdiff_t n = 40;
  const Correlated d(6, 4, n, 100);
  const Factor f = factor(damped(second_moment(d.x, 2)));
  Matrix<float> w = hostile<float>(36, n, 8);
  for (std::ptrdiff_t c = 0; c < n; ++c) w(8, c) = w(20, c) = w(32, c) = 1e30f;  // the loss of the row at the end of float would overflow
  const Convention c{Range::gptq, 4};
  const Solved<float> y = solve(w, f, 128, 0, c);
  CHECK(y.status == Status::ok);
  for (std::ptrdiff_t i = 0; i < 36; ++i) {
    for (std::ptrdiff_t j = 0; j < n; ++j) {
      CHECK(std::isfinite(y.q(i, j)) && std::isfinite(y.e(i, j)));
      CHECK(y.codes(i, j) >= 0 && y.codes(i, j) <= 15);
    }
  }
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const std::ptrdiff_t at : {std::ptrdiff_t{0}, std::ptrdiff_t{17}, n - 1}) {
      Matrix<float> v = w;
      v(5, at) = bad;
      const Solved<float> z = solve(v, f, 128, 0, c, Groups::fixed, nullptr, &w);
      CHECK(z.status == Status::non_finite);
      for (std::ptrdiff_t i = 0; i < 36; ++i) {
        for (std::ptrdiff_t j = 0; j < n; ++j) {
          CHECK(z.codes(i, j) >= 0 && z.codes(i, j) <= 15);
          if (i != 5) CHECK(z.codes(i, j) == y.codes(i, j));
        }
      }
    }
  }
}

TEST("arguments that make no sense are refused") {
  Matrix<float> w(4, 6), m(6, 6);
  float s = 1;
  ColumnBlock<float> a;
  a.w = w.read(), a.m = m.read(), a.grid.scale = &s;
  std::vector<char> scratch(column_block_workspace<float>(6));
  const auto run = [&](const ColumnBlock<float>& b, Rows rows = {0, 4}) {
    return column_block<float>(b, rows, scratch.data(), scratch.size());
  };
  CHECK(run(a) == Status::ok);
  CHECK(run(a, {0, 5}) == Status::bad_argument);
  CHECK(column_block<float>(a, {0, 4}, scratch.data(), scratch.size() - 1) == Status::bad_argument);
  CHECK(column_block<float>(a, {0, 4}, nullptr, scratch.size()) == Status::bad_argument);
  ColumnBlock<float> b = a;
  b.m = {};
  CHECK(run(b) == Status::bad_argument);
  b = a, b.m.cols = 5;
  CHECK(run(b) == Status::bad_argument);
  b = a, b.grid = {};
  CHECK(run(b) == Status::bad_argument);
  b = a, b.q = {w.data.data(), 4, 5, 6};
  CHECK(run(b) == Status::bad_argument);
  b = a, b.table = {w.data.data(), 0, nullptr, 257};
  CHECK(run(b) == Status::bad_argument);
  b = a, b.grid.codes = {-8, 7};
  std::uint8_t codes[24];
  b.codes = Codes{codes, 6};
  CHECK(run(b) == Status::bad_argument);
  CHECK(column_block_workspace<float>(max_block_columns + 1) == 0);
  CHECK(compensate<float>(w.view(), m.view(), {w.data.data(), 4, 5, 6}, {0, 4}) == Status::bad_argument);
}

int main() { return check::run(); }
