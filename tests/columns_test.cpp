// The column engine against brute force, against itself in other orders and blocks, and against printed tables.
#include <ptq/core/columns.hpp>

#include <array>
#include <cmath>
#include <vector>

#include <ptq/solver/gptq.hpp>

#include "catch.hpp"
#include "generator.hpp"

using namespace ptq;
using Catch::Matchers::ContainsSubstring;

namespace {

Scheme scheme(int bits, int64_t group = 0) {
  Scheme s;
  s.bits = bits;
  if (group > 0) s.granularity = Granularity::group, s.group = group;
  return s;
}

/// One layer and how it is solved; x (sequences, tokens, n).
struct Layer {
  Tensor w, x;
  Statistics stats;
  Layer(Tensor weight, Tensor inputs) : w(std::move(weight)), x(std::move(inputs)) {
    stats.add({.hessian = true}, x);
    stats.finish();
  }
  /// 2/N Σ x xᵀ.
  [[nodiscard]] Tensor hessian() const { return stats.hessian * (2.0 / static_cast<double>(stats.sequences)); }
  [[nodiscard]] Solution solve(const Gptq& gptq, const Scheme& s, const Coordinates& coordinates = {}) const {
    Shared shared;
    Problem problem;
    problem.place = "layer", problem.weight = w, problem.scheme = s, problem.stats = &stats, problem.shared = &shared,
    problem.coordinates = coordinates;
    return gptq.solve(problem);
  }
  [[nodiscard]] double error(const Tensor& q) const { return at::matmul(x, (w - q).t()).square().sum().item<double>(); }
};

Layer random_layer(int64_t rows, int64_t n, uint64_t seed, int64_t tokens = 40, at::ScalarType dtype = at::kDouble) {
  at::manual_seed(seed);
  const Tensor w = 0.3 * at::randn({rows, n}, dtype);
  const Tensor x =
      at::matmul(at::randn({2, tokens, std::max<int64_t>(1, n / 3)}, dtype), at::randn({std::max<int64_t>(1, n / 3), n}, dtype));
  return {w, x + 0.2 * at::randn({2, tokens, n}, dtype)};
}

/// A row's asymmetric grid and its nearest value, written out: zero joins the range, halves round to even.
struct PlainGrid {
  double scale, zero, most;
  PlainGrid(const Tensor& row, int bits) : most(std::pow(2, bits) - 1) {
    const double low = std::min(0.0, row.min().item<double>()), high = std::max(0.0, row.max().item<double>());
    scale = (high - low) / most, zero = std::nearbyint(-low / scale);
  }
  [[nodiscard]] double code(double w) const { return std::clamp(std::nearbyint(w / scale) + zero, 0.0, most); }
  [[nodiscard]] double value(double w) const { return scale * (code(w) - zero); }
};

/// Optimal brain quantization in a given order, the inverse of the remaining Hessian recomputed for every column. Groups of `group` columns
/// in that order get a grid when they are reached, or (`fixed`) beforehand by original columns. Codes in original order.
Tensor brute_force(const Tensor& weight, const Tensor& hessian, const Tensor& order, int bits, int64_t group, bool fixed) {
  const int64_t rows = weight.size(0), n = weight.size(1), each = group > 0 ? group : n;
  const Tensor w = weight.index_select(1, order).clone(), codes = at::zeros({rows, n}, at::kInt);
  const Tensor h = hessian.index_select(0, order).index_select(1, order);
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<PlainGrid> grids;
    for (int64_t g = 0; g < n / each; ++g) grids.emplace_back(weight[r].narrow(0, g * each, each), bits);
    for (int64_t j = 0; j < n; ++j) {
      if (!fixed && group > 0 && j % each == 0) grids[static_cast<size_t>(j / each)] = PlainGrid(w[r].narrow(0, j, each), bits);
      const int64_t g = (fixed ? order[j].item<int64_t>() : j) / each;
      const PlainGrid& grid = grids[static_cast<size_t>(g)];
      const double now = w[r][j].item<double>();
      codes[r][order[j].item<int64_t>()] = static_cast<int>(grid.code(now));
      const Tensor inverse = at::linalg_inv(h.narrow(0, j, n - j).narrow(1, j, n - j));
      w[r].narrow(0, j, n - j).sub_((now - grid.value(now)) / inverse[0][0] * inverse[0]);
    }
  }
  return codes;
}

}  // namespace

TEST_CASE("the recursion equals brute force with the inverse recomputed for every column") {
  for (int64_t n = 3; n <= 8; ++n)
    for (uint64_t seed = 0; seed < 4; ++seed) {
      const Layer l = random_layer(n, n, 100 * static_cast<uint64_t>(n) + seed);
      Tensor h = l.hessian();
      const Tensor natural = at::arange(n), descending = at::argsort(h.diagonal(), true, 0, true);
      h.diagonal().add_(0.01 * h.diagonal().mean());
      for (const int64_t group : {int64_t{0}, int64_t{1}, int64_t{2}, int64_t{3}, int64_t{4}}) {
        if (group > 1 && n % group != 0) continue;
        for (const bool fixed : {false, true})
          for (const auto order : {ColumnOrder::natural, ColumnOrder::descending})
            for (const int64_t block : {int64_t{1}, int64_t{3}, int64_t{128}}) {
              INFO("n " << n << " seed " << seed << " group " << group << " static " << fixed << " order " << static_cast<int>(order)
                        << " block " << block);
              const Gptq gptq{.block = block, .order = order, .static_groups = fixed};
              const Tensor expected = brute_force(l.w, h, order == ColumnOrder::natural ? natural : descending, 3, group, fixed);
              CHECK(at::equal(l.solve(gptq, scheme(3, group)).linear.codes.to(at::kInt), expected));
            }
      }
    }
}

TEST_CASE("blocks do not change codes with one grid a row, static or fully current groups") {
  for (const auto dtype : {at::kDouble, at::kFloat}) {
    const Layer l = random_layer(9, 24, 3, 40, dtype);
    for (const bool fixed : {false, true})
      for (const int64_t group : {0, 4, 8})
        for (const auto order : {ColumnOrder::natural, ColumnOrder::descending}) {
          const Solution one = l.solve({.block = 1, .order = order, .static_groups = fixed}, scheme(3, group));
          for (const int64_t block : {2, 3, 5, 128}) {
            const Solution other = l.solve({.block = block, .order = order, .static_groups = fixed}, scheme(3, group));
            CHECK(at::equal(one.linear.codes, other.linear.codes));
            CHECK(at::allclose(one.linear.grid.scale, other.linear.grid.scale, 1e-5));
          }
        }
  }
}

TEST_CASE("as released, small groups are fitted on stale weights: a block of all columns makes them static") {
  const Layer l = random_layer(6, 16, 4);
  const Solution fixed = l.solve({.static_groups = true}, scheme(4, 4));
  CHECK(at::equal(l.solve({.block = 16, .as_published = true}, scheme(4, 4)).linear.codes, fixed.linear.codes));
  const Solution current = l.solve({.block = 1}, scheme(4, 4));
  CHECK(!at::equal(current.linear.codes, fixed.linear.codes));
  for (const int64_t block : {1, 2, 4})
    CHECK(at::equal(l.solve({.block = block, .as_published = true}, scheme(4, 4)).linear.codes, current.linear.codes));
}

TEST_CASE("act-order is a run on columns permuted by hand") {
  const Layer l = random_layer(7, 16, 5);
  const Tensor perm = at::argsort(l.hessian().diagonal(), true, 0, true), back = at::argsort(perm);
  const Layer by_hand(l.w.index_select(1, perm).contiguous(), l.x.index_select(2, perm).contiguous());
  for (const int64_t group : {0, 4}) {
    const Solution ordered = l.solve({.order = ColumnOrder::descending}, scheme(3, group)), permuted = by_hand.solve({}, scheme(3, group));
    CHECK(at::equal(ordered.linear.codes, permuted.linear.codes.index_select(1, back)));
    CHECK(at::allclose(ordered.linear.weight(), permuted.linear.weight().index_select(1, back)));
    CHECK(ordered.linear.permuted == (group > 0));
    if (group > 0) CHECK(at::equal(ordered.linear.grid.group_of, at::floor_divide(back, group).to(at::kInt)));
  }
  const Solution fixed = l.solve({.order = ColumnOrder::descending, .static_groups = true}, scheme(3, 4));
  CHECK(!fixed.linear.permuted);  // groups of neighbouring original columns: j / 4
  CHECK(at::equal(fixed.linear.grid.scale, fit_grid(l.w, scheme(3, 4)).scale));
}

TEST_CASE("the fast mode loses a thousandth at most, and is refused where the machine has no unit for it") {
  const Gptq fast{.mode = ColumnMode::fast};
  if (!kernels::multiplies_bfloat16()) {
    CHECK_THAT(fast.refuses(scheme(4)), ContainsSubstring("solver.mode fast"));
    SUCCEED("no bfloat16 unit");
    return;
  }
  CHECK(fast.refuses(scheme(4)).empty());
  double exact_loss = 0, fast_loss = 0;
  for (const uint64_t seed : {1u, 2u, 3u}) {
    const Layer l = random_layer(512, 512, seed, 600, at::kFloat);
    for (const int bits : {3, 4}) {
      const Solution exact = l.solve({}, scheme(bits)), quick = l.solve(fast, scheme(bits));
      CHECK(!at::equal(exact.linear.codes, quick.linear.codes));  // it is another computation
      exact_loss += exact.report.at(0).second, fast_loss += quick.report.at(0).second;
    }
  }
  CHECK(fast_loss <= 1.001 * exact_loss);
}

TEST_CASE("a group-aware order sorts inside groups and groups by their largest, and stores no permutation") {
  const Tensor diagonal = at::tensor({1.0, 5.0, 2.0, 9.0, 3.0, 4.0, 7.0, 7.0});
  CHECK(at::equal(column_order(ColumnOrder::group_aware, diagonal, 2), at::tensor({3, 2, 6, 7, 1, 0, 5, 4}, at::kLong)));
  CHECK(at::equal(column_order(ColumnOrder::group_aware, diagonal), at::argsort(diagonal, true, 0, true)));
  const Layer l = random_layer(7, 16, 5);
  const Tensor perm = column_order(ColumnOrder::group_aware, l.hessian().diagonal(), 4), back = at::argsort(perm);
  const Layer by_hand(l.w.index_select(1, perm).contiguous(), l.x.index_select(2, perm).contiguous());
  const Solution s = l.solve({.order = ColumnOrder::group_aware}, scheme(3, 4)), permuted = by_hand.solve({}, scheme(3, 4));
  CHECK(at::allclose(s.linear.weight(), permuted.linear.weight().index_select(1, back)));
  CHECK(!s.linear.permuted);
  CHECK(at::equal(s.linear.codes, permuted.linear.codes.index_select(1, back)));
}

TEST_CASE("the reported loss is the output error and the damping's share, exactly") {
  for (const auto dtype : {at::kDouble, at::kFloat})
    for (const auto order : {ColumnOrder::natural, ColumnOrder::descending}) {
      const Layer l = random_layer(8, 24, 6, 40, dtype);
      const Gptq gptq{.order = order};
      const Solution s = l.solve(gptq, scheme(3));
      const ColumnFactor f = gptq.factor(l.stats, "layer");
      Tensor h = l.hessian().clone();
      h.diagonal().add_(f.damp);
      const Tensor e = l.w - s.linear.weight();
      const double trace = 0.5 * (at::mm(e, h) * e).sum().item<double>();
      CHECK(s.report.at(0).second == Approx(trace).epsilon(dtype == at::kDouble ? 1e-9 : 1e-3));
    }
}

TEST_CASE("a Hessian summed over batches of any sizes is the Hessian at once") {
  const Layer l = random_layer(2, 12, 7);
  Statistics s;
  at::manual_seed(8);
  const Tensor x = at::randn({7, 9, 12}, at::kDouble);
  int64_t first = 0;
  for (const int64_t n : {2, 1, 4}) s.add({.hessian = true}, x.narrow(0, first, n)), first += n;
  s.finish();
  const Tensor flat = x.reshape({-1, 12});
  CHECK(at::allclose(s.hessian, at::mm(flat.t(), flat), 1e-12));
  CHECK(s.sequences == 7);
  CHECK(s.tokens == 63);
}

TEST_CASE("the factor of H gives the published factor of its inverse") {
  const Layer l = random_layer(2, 20, 9);
  const ColumnFactor f = Gptq{}.factor(l.stats, "layer");
  Tensor h = l.hessian().clone();
  h.diagonal().add_(f.damp);
  const Tensor published = at::linalg_cholesky(at::linalg_inv(h), /*upper=*/true);  // H⁻¹ = Uᵀ U
  const Tensor mine = at::linalg_inv(f.unit * f.loss_weight.sqrt());
  CHECK(at::allclose(mine, published, 1e-6, 1e-9));
}

TEST_CASE("columns that saw nothing become zero, rows of zeros keep a grid") {
  Layer l = random_layer(5, 12, 10);
  const Tensor w = l.w.clone(), x = l.x.clone();
  x.select(2, 4).zero_(), w.select(1, 4).fill_(9), w[2].zero_();
  const Layer dead(w, x);
  const Solution s = dead.solve({}, scheme(4)), kept = dead.solve({.as_published = true}, scheme(4));
  for (const Solution* each : std::array{&s, &kept}) {
    CHECK(each->linear.weight().select(1, 4).abs().max().item<double>() == 0);
    CHECK(each->linear.weight()[2].abs().max().item<double>() == 0);
    CHECK(each->linear.grid.scale[2].item<double>() == Approx(2.0 / 15));
    CHECK(each->report.at(2).second == 1);  // dead columns
  }
  const double live = dead.hessian().diagonal().sum().item<double>() / 11,
               published = (dead.hessian().diagonal().sum().item<double>() + 1) / 12;
  CHECK(Gptq{}.factor(dead.stats, "layer").damp == Approx(0.01 * live));
  CHECK(Gptq{.as_published = true}.factor(dead.stats, "layer").damp == Approx(0.01 * published));
}

TEST_CASE("a Hessian that is not positive definite gets more damping, which is reported, or an error that says what would help") {
  Layer l = random_layer(5, 12, 11);
  const Tensor x = l.x.clone();
  x.select(2, 4).copy_(x.select(2, 3));
  const Layer twin(l.w, x);
  const Solution s = twin.solve({.damp = 0}, scheme(4));
  CHECK(s.report.at(1).first == "damp");
  CHECK(s.report.at(1).second > 0);
  CHECK(at::isfinite(s.linear.weight()).all().item<bool>());
  CHECK_THROWS_WITH(twin.solve({.damp = 0, .damp_increase = 0}, scheme(4)),
                    ContainsSubstring("layer") && ContainsSubstring("not positive definite") && ContainsSubstring("larger damp"));
}

TEST_CASE("a learned grid is inherited, and its divisors choose codes only when asked") {
  const Layer l = random_layer(4, 12, 12);
  Coordinates c;
  c.grid = fit_grid(0.8 * l.w, scheme(4));
  c.divisor = c.grid->scale.expand({4, 12}) * at::linspace(0.8, 1.2, 12, at::kDouble);
  const Solution ignored = l.solve({}, scheme(4), c), decided = l.solve({.divisors = Divisors::decide}, scheme(4), c);
  CHECK(at::equal(ignored.linear.grid.scale, c.grid->scale));
  CHECK(at::equal(decided.linear.grid.scale, c.grid->scale));
  CHECK(!at::equal(ignored.linear.codes, decided.linear.codes));
  Coordinates plain;
  plain.grid = c.grid;
  CHECK(at::equal(l.solve({}, scheme(4), plain).linear.codes, ignored.linear.codes));
  // Without correlation the divisor alone decides: nearest to w / divisor.
  Layer white(l.w, l.x);
  white.stats.hessian = at::eye(12, at::kDouble);
  const Tensor codes = white.solve({.divisors = Divisors::decide}, scheme(4), c).linear.codes;
  const Tensor expected = ((l.w / c.divisor).round() + c.grid->zero).clamp(0, 15);
  CHECK(at::equal(codes.to(at::kDouble), expected));
}

TEST_CASE("the worked example, every printed digit") {
  const Tensor w = at::tensor({0.50, -0.30, 0.20, -0.10, 0.40, 0.25}).view({2, 3});
  const Tensor x = at::tensor({1.0, 2.0, -1.0, 0.5, 1.5, 0.8, 1.9, -1.2, 0.4, 1.3, -0.5, 0.3, 0.9, -1.0, 0.2}).view({3, 5});
  const Layer l(w, x.t().contiguous().unsqueeze(0));
  const auto close = [](const Tensor& mine, const std::vector<double>& printed) {
    CHECK((mine.reshape({-1}) - at::tensor(printed)).abs().max().item<double>() <= 0.5000001e-6);
  };
  close(l.hessian(), {17, 15.9, -2, 15.9, 15.08, -2.1, -2, -2.1, 4.38});
  const ColumnFactor f = Gptq{}.factor(l.stats, "layer");
  CHECK(f.damp == Approx(0.121533).margin(5e-7));
  const Tensor u = at::linalg_inv(f.unit * f.loss_weight.sqrt());
  close(u, {1.440667, -1.516147, -0.067216, 0, 0.265168, 0.123703, 0, 0, 0.471324});

  Shared shared;
  Problem problem;
  problem.place = "layer", problem.weight = w, problem.scheme = scheme(3), problem.stats = &l.stats, problem.shared = &shared;
  const ColumnResult r = Gptq{}.round(problem, f, true);
  close(r.grid.scale, {0.1142857, 0.0714286});
  CHECK(at::equal(r.grid.zero.reshape({-1}), at::tensor({3, 1}, at::kInt)));
  close(r.seen, {0.5, -0.254897, 0.214281, -0.1, 0.369932, 0.242701});
  close(dequantize(r.codes, r.grid), {0.457143, -0.228571, 0.228571, -0.071429, 0.357143, 0.214286});
  CHECK(at::equal(r.codes.to(at::kInt), at::tensor({7, 1, 5, 0, 6, 4}, at::kInt).view({2, 3})));
  CHECK(l.error(dequantize(r.codes, r.grid)) == Approx(0.008297).margin(5e-7));
  CHECK(r.column_loss.sum().item<double>() / 2 == Approx(0.009007).margin(5e-7));
  const auto plain = [&](int bits) { return fake_quantize(w, fit_grid(w, scheme(bits))); };
  CHECK(at::equal(quantize(w, fit_grid(w, scheme(3))).to(at::kInt), at::tensor({7, 0, 5, 0, 7, 5}, at::kInt).view({2, 3})));
  CHECK(l.error(plain(3)) == Approx(0.090157).margin(5e-7));
  CHECK(l.error(plain(2)) == Approx(0.216053).margin(5e-7));
  CHECK(l.error(l.solve({}, scheme(2)).linear.weight()) == Approx(0.170497).margin(5e-7));

  // All codes of a row, tried out: greedy is optimal at 3 bits and not at 2.
  const auto best = [&](int bits) {
    const Grid g = fit_grid(w, scheme(bits));
    double sum = 0;
    for (int64_t row = 0; row < 2; ++row) {
      double least = 1e9;
      const int levels = 1 << bits;
      for (int code = 0; code < levels * levels * levels; ++code) {
        const Tensor q = at::tensor({code % levels, code / levels % levels, code / levels / levels}, at::kDouble);
        const Tensor e = w[row] - g.scale[row][0] * (q - g.zero[row][0]);
        least = std::min(least, at::mv(x.t(), e).square().sum().item<double>());
      }
      sum += least;
    }
    return sum;
  };
  CHECK(best(3) == Approx(0.008297).margin(5e-7));
  CHECK(best(2) == Approx(0.049942).margin(5e-7));
}

TEST_CASE("the table of correlated inputs, every printed digit") {
  test::Generator random(1);
  const Tensor w = 0.3 * random.normal(6, 16), a = random.normal(16, 4), z = random.normal(4, 64);
  const Tensor x = at::mm(a, z) + 0.2 * random.normal(16, 64);
  const Tensor z2 = random.normal(4, 64), held_out = at::mm(a, z2) + 0.2 * random.normal(16, 64);
  const Layer l(w, x.t().contiguous().unsqueeze(0)), later(w, held_out.t().contiguous().unsqueeze(0));
  struct Row {
    int bits;
    double rtn, gptq, ordered, loss, later_rtn, later_gptq;
  };
  for (const Row& row : {Row{4, 9.734279, 1.867173, 0.850427, 2.104867, 12.783481, 2.228592},
                         Row{3, 60.855349, 7.445363, 3.867133, 8.738640, 70.961543, 8.505712},
                         Row{2, 247.769061, 85.569392, 33.977023, 94.037765, 330.193978, 114.110705}}) {
    INFO(row.bits << " bits");
    const auto printed = [](double value) { return Approx(value).epsilon(0).margin(5.00001e-7); };
    const Tensor plain = fake_quantize(w, fit_grid(w, scheme(row.bits)));
    const Solution s = l.solve({}, scheme(row.bits));
    CHECK(l.error(plain) == printed(row.rtn));
    CHECK(l.error(s.linear.weight()) == printed(row.gptq));
    CHECK(l.error(l.solve({.order = ColumnOrder::descending}, scheme(row.bits)).linear.weight()) == printed(row.ordered));
    CHECK(s.report.at(0).second == printed(row.loss));
    CHECK(later.error(plain) == printed(row.later_rtn));
    CHECK(later.error(s.linear.weight()) == printed(row.later_gptq));
  }
  const auto grouped = [&](const Gptq& gptq, int64_t group) { return l.error(l.solve(gptq, scheme(4, group)).linear.weight()); };
  const auto near = [](double value) { return Approx(value).epsilon(0).margin(5.0001e-6); };
  for (const int64_t block : {1, 2, 4}) CHECK(grouped({.block = block, .as_published = true}, 4) == near(0.91164));
  CHECK(grouped({.block = 8, .as_published = true}, 4) == near(1.55474));
  CHECK(grouped({.block = 16, .as_published = true}, 4) == near(2.15404));
  for (const int64_t block : {1, 4, 16}) CHECK(grouped({.block = block, .static_groups = true}, 4) == near(2.15404));
  for (const int64_t block : {1, 2, 8}) CHECK(grouped({.block = block, .as_published = true}, 8) == near(1.86729));
  CHECK(grouped({.block = 16, .as_published = true}, 8) == near(1.64972));
  CHECK(grouped({.block = 16, .static_groups = true}, 8) == near(1.64972));
  CHECK(grouped({}, 4) == near(0.91164));  // the default: fully current weights whatever the block
  CHECK(grouped({}, 8) == near(1.86729));
}

TEST_CASE("solving with the factor of H is multiplying by the inverse of H") {
  for (const int64_t n : {1, 7, 256, 300, 700}) {
    at::manual_seed(static_cast<uint64_t>(n));
    const Tensor a = at::randn({n, n + 5}, at::kDouble), b = at::randn({4, n}, at::kDouble);
    const Tensor h = at::mm(a, a.t()) + at::eye(n, at::kDouble), x = solve_with_factor(upper_factor(h).r, b);
    CHECK(((at::mm(x, h) - b).norm() / b.norm()).item<double>() < 1e-10);
  }
}
