// CLAQ against worked layers, plans counted by hand, its laws on a synthetic layer, and its artefact on disk.
#include <ptq/solver/claq.hpp>

#include <cmath>
#include <numeric>
#include <vector>

#include <ptq/methods.hpp>
#include <ptq/run/block_file.hpp>
#include <ptq/stages.hpp>

#include "catch.hpp"
#include "temporary_folder.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;
using Catch::Matchers::ContainsSubstring;

namespace {

Tensor doubles(const std::vector<std::vector<double>>& rows) {
  const Tensor t = at::empty({static_cast<int64_t>(rows.size()), static_cast<int64_t>(rows[0].size())}, at::kDouble);
  for (size_t i = 0; i < rows.size(); ++i)
    for (size_t j = 0; j < rows[i].size(); ++j) t.mutable_data_ptr<double>()[i * rows[i].size() + j] = rows[i][j];
  return t;
}

/// A layer given by its Hessian.
struct Layer {
  Tensor w;
  Statistics stats;

  Layer(Tensor weight, const Tensor& hessian) : w(std::move(weight)) {
    stats.hessian = hessian, stats.sequences = 2, stats.tokens = 1;  // H = 2/N Σ x xᵀ
  }
  [[nodiscard]] Problem problem(int bits, Shared& shared) const {
    Problem p;
    p.place = "blocks.0.mlp.up_proj", p.weight = w, p.scheme.bits = bits, p.stats = &stats, p.shared = &shared;
    return p;
  }
  [[nodiscard]] Solution solve(const Claq& claq, int bits) const {
    Shared shared;
    return claq.solve(problem(bits, shared));
  }
  [[nodiscard]] ColumnResult round(const Claq& claq, int bits) const {
    Shared shared;
    const Problem p = problem(bits, shared);
    const ColumnFactor f = claq.factor(stats, p.place);
    const Tensor live = w.masked_fill(f.dead, 0);
    return claq.round(p, live, f, claq.plan(live, stats.hessian.diagonal(), f, bits), /*keep_seen=*/true);
  }
  /// tr(E H Eᵀ) / tr(W H Wᵀ).
  [[nodiscard]] double error(const Tensor& q) const {
    const auto form = [&](const Tensor& e) { return at::sum(at::mm(e, stats.hessian) * e).item<double>(); };
    return form(w - q) / form(w);
  }
};

const Claq exact{.levels = LevelType::f32};

/// The layer of the printed tables, 6 × 3.
Layer worked_layer() {
  return {doubles({{0.9, -0.2, 0.5}, {-0.4, 0.7, 0.1}, {0.3, -0.8, -0.6}, {-1.1, 0.4, 0.2}, {0.2, 0.1, -0.3}, {-0.1, 0.6, 0.8}}),
          doubles({{2, 0.6, 0.4}, {0.6, 4, -0.8}, {0.4, -0.8, 1}})};
}

void check_levels(const Tensor& levels, const std::vector<double>& expected) {
  REQUIRE(levels.numel() == static_cast<int64_t>(expected.size()));
  for (size_t i = 0; i < expected.size(); ++i) CHECK(levels[static_cast<int64_t>(i)].item<double>() == Approx(expected[i]).margin(2e-6));
}

double loss(const ColumnResult& r) { return r.column_loss.sum().item<double>() / 2; }

/// 512 × 512: correlated inputs of very unequal channels, Gaussian weights with outliers in 26 columns.
Layer synthetic_layer(uint64_t seed, int64_t rows = 512, int64_t n = 512) {
  at::manual_seed(seed);
  const auto normal = [](int64_t r, int64_t c) { return at::randn({r, c}, at::kDouble); };
  const Tensor a = at::eye(n, at::kDouble) + 0.02965 * normal(n, n), s = at::exp(at::randn({n}, at::kDouble));
  const Tensor x = at::mm(normal(4 * n, n), a) * s;
  Tensor w = 0.02 * normal(rows, n);
  const int64_t outliers = std::min<int64_t>(26, n / 4);
  const Tensor columns = at::randperm(n).narrow(0, 0, outliers);
  for (int64_t i = 0; i < outliers; ++i) {
    const int64_t count = rows < 12 ? 1 : at::randint(2, 12, {1}).item<int64_t>();
    const Tensor at_rows = at::randperm(rows).narrow(0, 0, count), column = columns[i].reshape({1}).expand({count}).contiguous();
    w.index_put_({at_rows, column}, w.index({at_rows, column}) * (12 + 13 * at::rand({count}, at::kDouble)));
  }
  return {w, 2 * at::mm(x.t(), x) / static_cast<double>(4 * n)};
}

}  // namespace

TEST_CASE("a worked layer at one bit a column: codebooks of compensated columns, loss, half-trace") {
  const Layer l = worked_layer();
  const ColumnFactor f = exact.factor(l.stats, "layer");
  CHECK(at::equal(f.order, at::tensor({1, 0, 2}, at::kLong)));
  CHECK(f.damp == Approx(0.0233333).epsilon(1e-5));
  const ColumnResult r = l.round(exact, 1);
  check_levels(r.levels[1], {-0.5, 0.45});
  check_levels(r.levels[0], {-1.124443, 0.184889});
  check_levels(r.levels[2], {-0.221672, 0.455005});
  const std::vector<double> seen{1.046660, -0.277784, 0.153340, -1.124443, 0.028897, -0.026670};
  for (int64_t i = 0; i < 6; ++i) CHECK(r.seen[i][0].item<double>() == Approx(seen[static_cast<size_t>(i)]).margin(2e-6));
  CHECK(loss(r) == Approx(1.598031377).epsilon(1e-6));
  const Tensor e = r.error;
  const auto half = [&](const Tensor& h) { return 0.5 * at::sum(at::mm(e, h) * e).item<double>(); };
  CHECK(half(l.stats.hessian) == Approx(1.577293519).epsilon(1e-6));
  CHECK(half(l.stats.hessian + f.damp * at::eye(3, at::kDouble)) == Approx(1.598031377).epsilon(1e-6));
  Claq natural = exact;
  natural.order = ColumnOrder::natural;
  CHECK(loss(l.round(natural, 1)) == Approx(1.641833521).epsilon(1e-6));
}

TEST_CASE("the worked layer at two bits a column") {
  const ColumnResult r = worked_layer().round(exact, 2);
  check_levels(r.levels[1], {-0.8, -0.2, 0.1, 0.566667});
  check_levels(r.levels[0], {-1.181478, -0.209261, 0.25, 0.9});
  check_levels(r.levels[2], {-0.580456, -0.199167, 0.431071, 0.816649});
  CHECK(loss(r) == Approx(0.122664125).epsilon(1e-6));
}

TEST_CASE("the worked layer with reservation on each side, clustered with and without what is kept") {
  const Layer l = worked_layer();
  Claq claq = exact;
  claq.reserve = Reserve::fraction, claq.keep = 0.2, claq.side = KeepSide::each, claq.cluster_kept = true;
  const ColumnResult r = l.round(claq, 1);
  const auto kept_rows = [](const ColumnResult& c, int64_t j) { return c.keep.select(1, j).nonzero().squeeze(1); };
  CHECK(at::equal(kept_rows(r, 1), at::tensor({1, 2, 5}, at::kLong)));
  CHECK(at::equal(kept_rows(r, 0), at::tensor({0, 2, 3}, at::kLong)));
  CHECK(at::equal(kept_rows(r, 2), at::tensor({2, 3, 5}, at::kLong)));
  check_levels(r.levels[1], {-0.5, 0.45});
  check_levels(r.levels[0], {-0.762222, 0.318889});
  check_levels(r.levels[2], {-0.6, 0.252356});
  CHECK(loss(r) == Approx(0.737264989).epsilon(1e-6));
  CHECK((l.w - r.error)[0][0].item<double>() == Approx(1.046660).margin(2e-6));  // the compensated value, not 0.9
  claq.cluster_kept = false;
  const ColumnResult without = l.round(claq, 1);
  check_levels(without.levels[1], {-0.2, 0.25});
  check_levels(without.levels[0], {-0.4, 0.013335});
  check_levels(without.levels[2], {-0.109773, 0.077037});
  CHECK(loss(without) == Approx(0.090934769).epsilon(1e-6));
}

TEST_CASE("outliers are counted against the mean magnitude of the whole matrix, the bound itself included") {
  Tensor w = at::full({8, 8}, 0.01, at::kDouble);
  w[0][2] = 1, w[5][2] = -1, w[3][6] = 0.67;
  CHECK(at::equal(outlier_counts(w, 13), at::tensor({0, 0, 2, 0, 0, 0, 1, 0}, at::kLong)));
  w[3][6] = 0.66;
  CHECK(at::equal(outlier_counts(w, 13), at::tensor({0, 0, 2, 0, 0, 0, 0, 0}, at::kLong)));
  CHECK(columns_at_high(8, 2.25, 2, 4) == 1);
  CHECK(rank_columns(outlier_counts(w, 13), at::ones({8}, at::kDouble))[0].item<int64_t>() == 2);
  const Tensor edge = doubles({{4, 0}, {0, 4}});  // mean 2, bound 4 at a multiple of 2
  CHECK(at::equal(outlier_counts(edge, 2), at::tensor({1, 1}, at::kLong)));
}

TEST_CASE("how many columns get the higher width") {
  const int64_t columns[] = {4096, 5120, 7168, 8192, 11008};
  const double average[] = {2.05, 2.1, 2.2, 3.05, 3.1, 3.12};
  const int64_t expected[5][6] = {{102, 205, 410, 205, 410, 492},
                                  {128, 256, 512, 256, 512, 614},
                                  {179, 358, 717, 358, 717, 860},
                                  {205, 410, 819, 410, 819, 983},
                                  {275, 550, 1101, 550, 1101, 1321}};
  for (int c = 0; c < 5; ++c)
    for (int a = 0; a < 6; ++a) {
      const auto [low, high] = widths_of(average[a]);
      const int64_t first = columns_at_high(columns[c], average[a], low, high);
      CHECK(first == expected[c][a]);
      const double achieved = low + (high - low) * static_cast<double>(first) / static_cast<double>(columns[c]);
      CHECK(std::abs(achieved - average[a]) <= (high - low) / (2.0 * static_cast<double>(columns[c])) + 1e-12);
    }
  Scheme three;
  three.bits = 3;
  for (const double wrong : {1.9, 4.1}) CHECK_THAT(Claq{.average_bits = wrong}.refuses(three), ContainsSubstring("solver.average_bits"));
  const Layer l = worked_layer();
  const ColumnFactor f = exact.factor(l.stats, "layer");
  for (const double whole : {3.0, 4.0}) {
    const ColumnPlan plan = Claq{.average_bits = whole}.plan(l.w, l.stats.hessian.diagonal(), f, 2);
    CHECK(plan.bits.eq(static_cast<int>(whole)).all().item<bool>());
  }
}

TEST_CASE("how many entries of a column are kept") {
  const struct {
    int64_t rows;
    KeepCount first, others;
  } each[] = {{1024, {15, 14}, {5, 4}},     {4096, {58, 57}, {17, 16}},    {5120, {73, 72}, {21, 20}},
              {7168, {101, 100}, {30, 29}}, {11008, {155, 154}, {45, 44}}, {20480, {288, 287}, {83, 82}}};
  for (const auto& c : each) {
    const KeepCount a = keep_count(c.rows, 0.014, KeepSide::each), b = keep_count(c.rows, 0.004, KeepSide::each);
    CHECK((a.top == c.first.top && a.bottom == c.first.bottom && b.top == c.others.top && b.bottom == c.others.bottom));
  }
  CHECK(keep_count(100, 0.004, KeepSide::each).bottom == 0);  // the released code reads past the end here
  const KeepCount total = keep_count(4096, 0.014, KeepSide::total);
  CHECK((total.top == 29 && total.bottom == 28));
  // 4096 × 4096 under `ranked`: 82,346 entries, 0.4908 %
  const auto all = [](KeepCount k) { return k.top + k.bottom; };
  CHECK(410 * all(total) + 3686 * all(keep_count(4096, 0.004, KeepSide::total)) == 82346);

  const auto kept = [](std::vector<double> x, double fraction, KeepSide side) {
    std::vector<double> sorted = x;
    std::sort(sorted.begin(), sorted.end());
    const auto rows = static_cast<int64_t>(x.size());
    bool marks[16] = {};
    (void)mark_extremes(x.data(), sorted.data(), rows, keep_count(rows, fraction, side), side, marks);
    std::vector<int> at;
    for (int i = 0; i < static_cast<int>(rows); ++i)
      if (marks[i]) at.push_back(i);
    return at;
  };
  const std::vector<double> mixed{5, -4, 3, 1, 0, -1, 2, -2, 4, -3};
  CHECK(kept(mixed, 0.1, KeepSide::each) == std::vector<int>{0, 1, 8});
  CHECK(kept(mixed, 0.2, KeepSide::each) == std::vector<int>{0, 1, 2, 8, 9});
  std::vector<double> rising(10);
  std::iota(rising.begin(), rising.end(), 10.0);
  CHECK(kept(rising, 0.1, KeepSide::each) == std::vector<int>{0, 8, 9});  // signed values, not magnitudes
  CHECK(kept(std::vector<double>(10, 0.0), 0.2, KeepSide::each).empty());
  CHECK(kept({1, 2, 2, 2, 0, 0, 0, 1}, 0.25, KeepSide::total) == std::vector<int>{1, 4});  // ties cut by row
  CHECK(kept({1, 2, 2, 2, 0, 0, 0, 1}, 0.25, KeepSide::each) == std::vector<int>{1, 2, 3, 4, 5, 6});
}

TEST_CASE("fractions follow the rank of a column, not its place in a block of 128") {
  Tensor w = at::full({64, 256}, 0.01, at::kDouble);
  for (int64_t j = 128; j < 154; ++j) w[j % 64][j] = 5;
  const Layer l(w, at::eye(256, at::kDouble));
  Claq claq;
  claq.order = ColumnOrder::natural, claq.reserve = Reserve::ranked;
  const ColumnFactor f = claq.factor(l.stats, "layer");
  const Tensor keep = claq.plan(w, l.stats.hessian.diagonal(), f, 2).keep;
  CHECK(at::equal(keep.gt(0.01).nonzero().squeeze(1), at::arange(128, 154)));
  claq.as_published = true;
  CHECK(!claq.plan(w, l.stats.hessian.diagonal(), f, 2).keep.gt(0.01).any().item<bool>());
}

TEST_CASE("with equal counts the most active columns come first, in any order of the solver") {
  for (const int64_t n : {512, 4096, 11008}) {
    at::manual_seed(static_cast<uint64_t>(n));
    const Tensor diagonal = at::rand({n}, at::kDouble), rank = rank_columns(at::zeros({n}, at::kLong), diagonal);
    CHECK(at::equal(rank, at::argsort(diagonal, true, 0, true)));
  }
  CHECK(at::equal(rank_columns(at::tensor({1, 3, 3, 0}), at::tensor({9.0, 1.0, 1.0, 5.0})), at::tensor({1, 2, 0, 3}, at::kLong)));
}

TEST_CASE("kept entries are the compensated weights at the stored width, and pass no error on") {
  const Layer l = synthetic_layer(3, 96, 64);
  for (const LevelType type : {LevelType::f16, LevelType::bf16}) {
    const Claq claq{.levels = type, .reserve = Reserve::ranked, .keep_first = 0.1, .keep_others = 0.03};
    const Solution s = l.solve(claq, 2);
    const ColumnResult r = l.round(claq, 2);
    const Tensor q = s.linear.weight();
    CHECK(at::equal(q.index({r.keep}), as_stored(r.seen, type).index({r.keep})));
    CHECK(at::allclose((l.w - r.error).index({r.keep}), r.seen.index({r.keep}), 1e-12));
    CHECK(s.linear.kept.count() == r.keep.sum().item<int64_t>());
    // 6 first columns of 96 rows: 10 kept, 58 others: 3
    CHECK(s.linear.kept.count() == 6 * 10 + 58 * 3);
    CHECK(at::equal(q.masked_fill(r.keep, 0), s.linear.codebook(s.linear.codes).masked_fill(r.keep, 0)));
    CHECK(at::equal(as_stored(q, type), q));
  }
}

TEST_CASE("bits are counted honestly and as the paper counts them") {
  const Layer l = synthetic_layer(4, 96, 64);
  const Claq claq{.average_bits = 2.25, .reserve = Reserve::ranked};
  const Solution s = l.solve(claq, 2);
  const double codes = 96.0 * (64 * 2 + 8 * 2), books = 16.0 * (56 * 4 + 8 * 16), widths = 2 * 64;
  const auto kept = static_cast<double>(s.linear.kept.count());
  const double expected = codes + books + widths + kept * 32 + (kept > 0 ? 65 * 32 : 0);
  CHECK(s.linear.bits().total() == Approx(expected));
  const auto reported = [&](const std::string& name) {
    for (const auto& [key, value] : s.report)
      if (key == name) return value;
    FAIL(name);
    return 0.0;
  };
  CHECK(reported("bits_per_weight") == Approx(expected / (96 * 64)));
  CHECK(reported("nominal_bits") == Approx(2.25 + 14 * (6 * 0.014 + 58 * 0.004) / 64));
  CHECK(reported("columns_at_high") == 8);
}

TEST_CASE("on a synthetic layer feedback, order, bits, mixed widths and reservation help as much as they should") {
  for (const uint64_t seed : {1u, 2u}) {
    const Layer l = synthetic_layer(seed);
    const auto error = [&](const Claq& claq, int bits) { return l.error(l.solve(claq, bits).linear.weight()); };
    const double two = error({}, 2), three = error({}, 3), four = error({}, 4);
    CHECK(three <= 0.3 * two);
    CHECK(four <= 0.08 * two);
    CHECK(error({.order = ColumnOrder::natural}, 2) >= 1.15 * two);
    const double mixed = error({.average_bits = 2.1}, 2);
    CHECK(mixed <= 0.85 * two);
    Claq each{.reserve = Reserve::ranked, .side = KeepSide::each, .cluster_kept = true}, without = each;
    without.cluster_kept = false;
    const double reserved = error(each, 2);
    CHECK(reserved <= 0.80 * two);
    CHECK(error(without, 2) < reserved);
    Claq both = each;
    both.average_bits = 2.05;
    const double fused = error(both, 2);
    CHECK(fused <= 0.75 * two);
    CHECK(fused < reserved);

    // Codebooks of the original columns, and no feedback at all: what the method is not.
    Shared shared;
    const Problem p = l.problem(2, shared);
    const Claq claq{.levels = LevelType::f32};
    const ColumnFactor f = claq.factor(l.stats, "layer");
    const auto codebook = [&](int64_t step) {
      const Tensor x = l.w.select(1, f.order[step].item<int64_t>()).contiguous();
      Tensor levels = at::empty({1, 4}, at::kDouble);
      ColumnClusters<double> clusters;
      clusters.fit(clusters.sort(x.const_data_ptr<double>(), x.numel()), x.numel(), 4, KMeans::coarse, nullptr,
                   levels.mutable_data_ptr<double>());
      return levels;
    };
    ColumnGrid original;
    original.levels = [&](int64_t step, const Tensor&) { return ColumnLevels{codebook(step), {}}; };
    CHECK(l.error(l.w - round_columns(l.w, f, original, {}).error) >= 1.08 * two);
    ColumnFactor alone = f;
    alone.unit = at::eye(512, at::kDouble);
    CHECK(l.error(l.w - round_columns(l.w, alone, original, {}).error) >= 1.6 * two);
    CHECK(error({.schedule = CodebookSchedule::block}, 2) <= 1.05 * two);
    CHECK(error({.schedule = CodebookSchedule::warm}, 2) <= 2 * two);  // columns with outliers start badly
    CHECK(error({.kmeans = KMeans::optimal}, 2) <= 1.02 * two);
  }
}

TEST_CASE("the loss is the half-trace of what is left, exactly") {
  const Layer l = synthetic_layer(5, 64, 96);
  for (const Claq& claq :
       {exact, Claq{.levels = LevelType::f32, .average_bits = 2.5}, Claq{.schedule = CodebookSchedule::block, .levels = LevelType::f32}}) {
    const ColumnResult r = l.round(claq, 2);
    const ColumnFactor f = claq.factor(l.stats, "layer");
    const Tensor damped = l.stats.hessian + f.damp * at::eye(96, at::kDouble);
    CHECK(loss(r) == Approx(0.5 * at::sum(at::mm(r.error, damped) * r.error).item<double>()).epsilon(1e-10));
  }
}

TEST_CASE("blocks, the order of rows, the scale of H and a sign change nothing; columns may be scaled") {
  const Layer l = synthetic_layer(6, 64, 96);
  const Solution s = l.solve(exact, 3);
  for (const int64_t block : {1, 7, 128, 256}) {
    Claq other = exact;
    other.block = block;
    CHECK(at::equal(l.solve(other, 3).linear.codes, s.linear.codes));
  }
  const Tensor perm = at::randperm(64);
  const Solution rows = Layer(l.w.index_select(0, perm).contiguous(), l.stats.hessian).solve(exact, 3);
  CHECK(at::equal(rows.linear.codes, s.linear.codes.index_select(0, perm)));
  CHECK(at::allclose(rows.linear.codebook.levels, s.linear.codebook.levels, 1e-12));
  const Solution scaled = Layer(l.w, 7.3 * l.stats.hessian).solve(exact, 3);
  CHECK(at::equal(scaled.linear.codes, s.linear.codes));
  CHECK(scaled.report.at(0).second == Approx(7.3 * s.report.at(0).second));
  CHECK(at::allclose(Layer(-l.w, l.stats.hessian).solve(exact, 3).linear.weight(), -s.linear.weight(), 1e-12));
  Claq natural = exact;
  natural.order = ColumnOrder::natural, natural.damp = 0;
  const Tensor by = at::exp(0.5 * at::randn({96}, at::kDouble));
  const Tensor plain = l.solve(natural, 3).linear.weight();
  const Tensor moved = Layer(l.w * by, l.stats.hessian / by / by.unsqueeze(1)).solve(natural, 3).linear.weight();
  CHECK(at::allclose(moved, plain * by, 1e-5, 1e-8));
}

TEST_CASE("dead channels, few rows, equal columns and extreme scales") {
  Layer l = synthetic_layer(7, 48, 32);
  l.stats.hessian.select(0, 5).zero_(), l.stats.hessian.select(1, 5).zero_();
  const Claq keeping{.reserve = Reserve::fraction, .keep = 0.1};
  const Solution dead = l.solve(keeping, 2);
  CHECK(dead.linear.weight().select(1, 5).abs().max().item<double>() == 0);
  CHECK(dead.linear.kept.columns().eq(5).sum().item<int64_t>() == 0);
  CHECK(exact.factor(l.stats, "layer").order[31].item<int64_t>() == 5);

  const Layer few(synthetic_layer(8, 3, 16));  // three rows, sixteen levels: exact
  CHECK(at::allclose(few.solve(exact, 4).linear.weight(), few.w, 1e-5));
  Layer flat = synthetic_layer(9, 24, 16);
  flat.w.fill_(0.25);
  CHECK(at::equal(flat.solve({}, 2).linear.weight(), flat.w));
  for (const double scale : {1e-30, 1e30}) {
    const Layer extreme(l.w * scale, l.stats.hessian);
    CHECK_THROWS_WITH(extreme.solve({}, 2), ContainsSubstring("blocks.0.mlp.up_proj") && ContainsSubstring("solver.levels"));
    CHECK(at::isfinite(extreme.solve({.levels = LevelType::bf16}, 2).linear.weight()).all().item<bool>());
  }
  Layer bad = synthetic_layer(10, 8, 8);
  bad.w[2][3] = std::nan("");
  CHECK_THROWS_WITH(bad.solve({}, 2), ContainsSubstring("blocks.0.mlp.up_proj") && ContainsSubstring("NaN"));
}

TEST_CASE("a codebook refuses groups, ranges and numbers that make no sense") {
  for (const char* text : {"int4:g8", "int4:tensor"}) CHECK_THAT(Claq{}.refuses(weights(text)), ContainsSubstring("a codebook a column"));
  CHECK_THAT(Claq{}.refuses(weights("int4:sym")), ContainsSubstring("without :sym"));
  CHECK(Claq{}.refuses(weights("int3")).empty());
  CHECK_THAT((Claq{.reserve = Reserve::fraction, .keep = 1.0}.refuses(weights("int3"))), ContainsSubstring("solver.keep"));
  CHECK_THAT((Claq{.reserve = Reserve::fraction, .keep = 0.5, .side = KeepSide::each}.refuses(weights("int3"))),
             ContainsSubstring("solver.keep"));
  CHECK_THAT(Claq{.low_bits = 2}.refuses(weights("int3")), ContainsSubstring("solver.average_bits"));
  CHECK_THAT((Claq{.average_bits = 3, .low_bits = 4, .high_bits = 4}.refuses(weights("int3"))), ContainsSubstring("ascend"));
}

TEST_CASE("divisors of a learned rounding select codes, and levels stay means of weights") {
  const Layer l = synthetic_layer(11, 64, 32);
  Shared shared, other;
  Problem p = l.problem(2, shared);
  at::manual_seed(12);
  p.coordinates.grid = fit_grid(l.w, weights("int2"));
  const Tensor s = at::exp(0.1 * at::randn_like(l.w));
  p.coordinates.divisor = s * p.coordinates.grid->scale;
  const Solution ignored = exact.solve(p), plain = l.solve(exact, 2);
  CHECK(at::equal(ignored.linear.codes, plain.linear.codes));
  Claq claq = exact;
  claq.divisors = Divisors::decide;
  p.shared = &other;
  const ColumnFactor f = claq.factor(l.stats, p.place);
  const ColumnResult r = claq.round(p, l.w, f, claq.plan(l.w, l.stats.hessian.diagonal(), f, 2), true);
  CHECK(!at::equal(r.codes, plain.linear.codes));
  for (int64_t j = 0; j < 32; ++j) {  // the code is the nearest to x / S
    const Tensor at = r.seen.select(1, j) / s.select(1, j);
    const Tensor nearest = (at.unsqueeze(1) - r.levels[j].unsqueeze(0)).abs().argmin(1);
    CHECK(at::equal(nearest, r.codes.select(1, j).to(at::kLong)));
  }
}

TEST_CASE("a block of codebooks comes back from its file bit for bit, and damage is named") {
  const Transformer model = tiny_model(Family::llama);
  const TemporaryFolder folder("claq");
  for (const Claq& claq : {Claq{}, Claq{.average_bits = 2.3, .reserve = Reserve::ranked, .keep_first = 0.2, .keep_others = 0.05},
                           Claq{.levels = LevelType::bf16, .average_bits = 3.4}}) {
    const Recipe<Nearest, NoSmoothing, Mse, Claq> recipe{.solver = claq};
    const test::Kept done = walk(model, stages(recipe), formats("int3"), tiny_tokens());
    const auto path = folder.path / "block.h5";
    for (const QuantizedBlock& b : done.blocks) {
      save_block(path, b, model.layout());
      const QuantizedBlock back = load_block_file(path, model.layout());
      for (size_t i = 0; i < b.linears.size(); ++i) {
        CHECK(at::equal(back.linears[i].weight(), b.linears[i].weight()));
        CHECK(at::equal(back.linears[i].codes, b.linears[i].codes));
        CHECK(back.linears[i].bits().total() == b.linears[i].bits().total());
      }
    }
  }
}
