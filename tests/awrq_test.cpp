// AWRQ against its published loop written out, against printed tables, and where it must be GPTQ or plain rounding.
#include <ptq/solver/awrq.hpp>

#include <ptq/solver/gptq.hpp>

#include "catch.hpp"
#include "generator.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;
using Catch::Matchers::ContainsSubstring;

namespace {

constexpr Needs both{.hessian = true, .cross = true};

Scheme tensor_bits(int bits) { return activations(cat("int", bits, ":tensor")); }

/// One layer, its inputs rounded a sequence at a time; x (sequences, tokens, n).
struct Layer {
  Tensor w, x;

  [[nodiscard]] Tensor rounded(int bits) const {
    if (bits == 0) return x;
    std::vector<Tensor> all;
    for (int64_t i = 0; i < x.size(0); ++i) all.push_back(quantize_activation(x.narrow(0, i, 1), tensor_bits(bits)));
    return at::cat(all);
  }
  /// Of inputs at `bits`, 0: unrounded.
  [[nodiscard]] Statistics statistics(int bits) const {
    Statistics s;
    s.add(both, rounded(bits), x);
    s.finish();
    return s;
  }
  template <class P>
  [[nodiscard]] Solution solve(const P& p, const std::string& scheme, const Statistics& stats) const {
    Shared shared;
    Problem problem;
    problem.place = "layer", problem.weight = w, problem.scheme = weights(scheme), problem.stats = &stats, problem.shared = &shared;
    return p.solve(problem);
  }
  /// ‖W X − Q X̂‖² / sequences.
  [[nodiscard]] double error(const Tensor& q, int bits) const {
    return (at::matmul(x, w.t()) - at::matmul(rounded(bits), q.t())).square().sum().item<double>() / static_cast<double>(x.size(0));
  }
  [[nodiscard]] Tensor plain(const std::string& scheme) const { return fake_quantize(w, fit_grid(w, weights(scheme))); }
};

/// The data of the printed tables: 6 × 16, sequences of 32 tokens, channel 3 an outlier; `later` are tokens nobody calibrates on.
struct Printed {
  Layer seen, later;
  Printed() {
    Generator random(7);
    seen.w = later.w = 0.3 * random.normal(6, 16);
    const Tensor a = random.normal(16, 4);
    const auto draw = [&] {
      std::vector<Tensor> all;
      for (int i = 0; i < 4; ++i) {
        const Tensor z = random.normal(4, 32);
        const Tensor x = at::mm(a, z) + 0.3 * random.normal(16, 32);
        x[3].mul_(6);
        all.push_back(x.t());
      }
      return at::stack(all).contiguous();  // (sequences, tokens, n)
    };
    seen.x = draw(), later.x = draw();
  }
};

/// The published loop: vector blocks of b columns, the first also takes in the shift. Returns Q; per-row grids or groups.
Tensor written_out(const Layer& l, const Statistics& stats, int64_t b, const std::string& format, const Tensor& order) {
  const Scheme scheme = weights(format);
  const int64_t n = l.w.size(1), sequences = stats.sequences;
  const auto ordered = [&](const Tensor& t) { return t.index_select(0, order).index_select(1, order) / static_cast<double>(sequences); };
  Tensor h = ordered(stats.hessian).clone();
  h.diagonal().add_(0.01 * h.diagonal().mean());
  Tensor w = l.w.index_select(1, order).clone(), q = at::zeros_like(w);
  const Tensor u = at::linalg_cholesky(at::linalg_inv(h), /*upper=*/true), g = at::mm(w, ordered(stats.cross));
  Scheme row = scheme;
  row.granularity = Granularity::channel;
  Grid grid = fit_grid(w, row);
  for (int64_t i = 0; i < n; i += b) {
    const int64_t width = std::min(b, n - i);
    if (scheme.group > 0 && i % scheme.group == 0) grid = fit_grid(w.narrow(1, i, scheme.group), row);
    q.narrow(1, i, width).copy_(fake_quantize(w.narrow(1, i, width), grid));
    Tensor moved = q.narrow(1, i, width) - w.narrow(1, i, width);
    const Tensor ub = u.narrow(0, i, width).narrow(1, i, width), h1 = at::mm(ub.t(), u.narrow(0, i, width).narrow(1, i, n - i));
    if (i == 0) {
      w.add_(at::mm(at::mm(g, u.t()), u));
      moved = moved - at::mm(g, h1.t());
    }
    w.narrow(1, i, n - i).add_(at::mm(at::mm(moved, at::linalg_inv(at::mm(ub.t(), ub))), h1));
  }
  return q.index_select(1, at::argsort(order));
}

}  // namespace

TEST_CASE("AWRQ's worked example at 3-bit activations, every printed digit") {
  const Tensor w = at::tensor({0.50, -0.30, 0.20, -0.10, 0.40, 0.25}).view({2, 3});
  const Tensor x = at::tensor({1.0, 2.0, -1.0, 0.5, 1.5, 0.8, 1.9, -1.2, 0.4, 1.3, -0.5, 0.3, 0.9, -1.0, 0.2}).view({3, 5});
  const Layer l{w, x.t().contiguous().unsqueeze(0)};
  const auto close = [](const Tensor& mine, const std::vector<double>& printed) {
    CHECK((mine.reshape({-1}) - at::tensor(printed)).abs().max().item<double>() <= 0.5000001e-6);
  };
  const auto printed = [](double value) { return Approx(value).epsilon(0).margin(5.00001e-7); };
  close(l.rounded(3).squeeze(0).t(), {0.914286, 1.828571, -0.914286, 0.457143, 1.371429, 0.914286, 1.828571, -1.371429, 0.457143, 1.371429,
                                      -0.457143, 0.457143, 0.914286, -0.914286, 0});
  const Statistics stats = l.statistics(3);
  close(stats.hessian, {7.105306, 7.523265, -0.835918, 7.523265, 8.150204, -1.253878, -0.835918, -1.253878, 2.089796});
  close(stats.cross, {0.666122, 0.705306, -0.078367, -0.254694, -0.333061, 0.293878, -0.078367, -0.071837, 0.013061});
  close(at::mm(w, stats.cross), {0.393796, 0.438204, -0.124735, -0.188082, -0.221714, 0.128653});
  const Awrq released{.as_published = true};
  const ColumnFactor f = released.factor(stats, "layer");
  CHECK(f.damp == Approx(0.0578177).margin(5e-8));
  close(at::linalg_inv(f.unit * f.loss_weight.sqrt()), {2.145256, -2.018786, -0.343661, 0, 0.365735, 0.213533, 0, 0, 0.682373});
  const Tensor d = released.shift(w, stats, f);
  close(d, {0.006477, 0.042779, -0.030583, -0.000220, -0.019402, 0.048491});
  close(w + d, {0.506477, -0.257221, 0.169417, -0.100220, 0.380598, 0.298491});

  Shared shared;
  Problem problem;
  problem.place = "layer", problem.weight = w, problem.scheme = weights("int3"), problem.stats = &stats, problem.shared = &shared;
  const ColumnResult r = released.round(problem, f, w, w + d, true);
  close(r.grid.scale, {0.1142857, 0.0714286});
  close(r.seen, {0.5, -0.210796, 0.166941, -0.1, 0.353503, 0.296004});
  CHECK(at::equal(r.codes.to(at::kInt), at::tensor({7, 1, 4, 0, 6, 5}, at::kInt).view({2, 3})));
  CHECK(l.error(w, 3) == printed(0.044328));
  CHECK(l.error(w + d, 3) == printed(0.008315));
  CHECK(l.error(l.plain("int3"), 3) == printed(0.222615));
  const Statistics unrounded = l.statistics(0);
  for (const Statistics* s : {&stats, &unrounded}) CHECK(l.error(l.solve(Gptq{}, "int3", *s).linear.weight(), 3) == printed(0.033629));
  CHECK(l.error(dequantize(r.codes, r.grid), 3) == printed(0.016934));

  const Statistics four = l.statistics(4);
  const Solution s = l.solve(released, "int3", four);
  CHECK(at::equal(s.linear.codes.to(at::kInt), at::tensor({7, 1, 5, 0, 6, 5}, at::kInt).view({2, 3})));
  close(s.target, {0.480248, -0.269060, 0.198424, -0.101855, 0.397402, 0.269960});
  CHECK(l.error(l.plain("int3"), 4) == printed(0.121752));
  CHECK(l.error(l.solve(Gptq{}, "int3", unrounded).linear.weight(), 4) == printed(0.017132));
  CHECK(l.error(s.linear.weight(), 4) == printed(0.013178));
}

TEST_CASE("AWRQ's table, every printed digit, also on tokens it has not seen") {
  const Printed data;
  const Layer &l = data.seen, &later = data.later;
  const auto near = [](double value) { return Approx(value).epsilon(0).margin(5.00001e-5); };
  const Awrq released{.as_published = true}, ordered{.order = ColumnOrder::descending, .as_published = true};
  struct Row {
    int a, w;
    double rtn, gptq, gptq_rounded, awrq, awrq_ordered, kept, shifted, later_rtn, later_gptq, later_awrq;
  };
  for (const Row& row : {Row{8, 4, 11.6230, 2.6641, 2.2958, 2.1963, 1.3299, 0.8214, 0.7484, 14.0495, 2.6217, 2.8314},
                         Row{8, 3, 26.9751, 7.7087, 7.3487, 7.0196, 3.6690, 0.8214, 0.7484, 35.1355, 7.8224, 7.4232},
                         Row{6, 4, 24.3422, 15.7570, 15.7570, 11.0266, 10.5677, 13.7608, 9.3579, 29.1119, 17.5582, 14.7973},
                         Row{6, 3, 38.5481, 22.6534, 22.0074, 17.0577, 13.5878, 13.7608, 9.3579, 49.7620, 21.5369, 22.6385},
                         Row{4, 4, 247.5254, 250.0007, 243.6698, 77.5253, 83.5323, 236.6471, 67.1975, 272.5370, 269.6270, 111.0756},
                         Row{4, 3, 272.9809, 251.3980, 254.4119, 87.8103, 88.1330, 236.6471, 67.1975, 319.2813, 294.1789, 125.3746}}) {
    INFO("W" << row.w << "A" << row.a);
    const std::string scheme = cat("int", row.w);
    const Statistics stats = l.statistics(row.a), unrounded = l.statistics(0);
    const Tensor plain = l.plain(scheme), gptq = l.solve(Gptq{}, scheme, stats).linear.weight();
    const Solution awrq = l.solve(released, scheme, stats);
    CHECK(l.error(plain, row.a) == near(row.rtn));
    CHECK(l.error(l.solve(Gptq{}, scheme, unrounded).linear.weight(), row.a) == near(row.gptq));
    CHECK(l.error(gptq, row.a) == near(row.gptq_rounded));
    CHECK(l.error(awrq.linear.weight(), row.a) == near(row.awrq));
    CHECK(l.error(l.solve(ordered, scheme, stats).linear.weight(), row.a) == near(row.awrq_ordered));
    CHECK(l.error(l.w, row.a) == near(row.kept));
    CHECK(l.error(awrq.target, row.a) == near(row.shifted));
    CHECK(later.error(plain, row.a) == near(row.later_rtn));
    CHECK(later.error(gptq, row.a) == near(row.later_gptq));
    CHECK(later.error(awrq.linear.weight(), row.a) == near(row.later_awrq));
  }
  const Statistics eight = l.statistics(8);
  const auto block = [&](int64_t b) { return l.error(l.solve(Awrq{.block = b, .as_published = true}, "int4", eight).linear.weight(), 8); };
  CHECK(block(2) == near(2.2070));
  CHECK(block(4) == near(2.2317));
  CHECK(block(8) == near(3.1163));
  CHECK(block(16) == near(11.6230));
}

TEST_CASE("AWRQ's variants: all columns from the shifted weight, and grids of the shifted weight") {
  const Layer l = Printed().seen;
  const auto near = [](double value) { return Approx(value).epsilon(0).margin(5.00001e-5); };
  const auto error = [&](const Awrq& p, int w, int a) { return l.error(l.solve(p, cat("int", w), l.statistics(a)).linear.weight(), a); };
  CHECK(error({}, 4, 8) == near(2.1330));
  CHECK(error({}, 4, 6) == near(10.6251));
  CHECK(error({}, 4, 4) == near(72.0025));
  const Awrq refitted{.grid = AwrqGrid::shifted};
  CHECK(error(refitted, 4, 8) == near(2.2366));
  CHECK(error(refitted, 4, 6) == near(10.5499));
  CHECK(error(refitted, 4, 4) == near(68.2477));
  CHECK(error(refitted, 3, 8) == near(6.6895));
  CHECK(error(refitted, 3, 6) == near(14.0550));
  CHECK(error(refitted, 3, 4) == near(70.8054));
}

TEST_CASE("statistics at another width than inference cost what is printed; dead columns are made up for by default") {
  const Layer l = Printed().seen;
  const auto near = [](double value) { return Approx(value).epsilon(0).margin(5.00001e-5); };
  const Awrq released{.as_published = true};
  const Tensor eight = l.solve(released, "int4", l.statistics(8)).linear.weight();
  CHECK(l.error(eight, 6) == near(15.2791));
  CHECK(l.error(eight, 4) == near(236.9075));

  const Statistics three = l.statistics(3);
  const Solution s = l.solve(released, "int4", three);
  CHECK(three.hessian.diagonal().eq(0).nonzero().item<int64_t>() == 10);
  CHECK(l.error(s.linear.weight(), 3) == near(295.0109));
  // The same but for G, from the weights of all columns.
  const ColumnFactor f = released.factor(three, "layer");
  const Tensor w = l.w.masked_fill(f.dead, 0);
  Shared shared;
  Problem problem;
  problem.place = "layer", problem.weight = l.w, problem.scheme = weights("int4"), problem.stats = &three, problem.shared = &shared;
  const ColumnResult r = released.round(problem, f, w, (w + released.shift(l.w, three, f)).masked_fill(f.dead, 0));
  CHECK(l.error(dequantize(r.codes, r.grid), 3) == near(286.5600));
  CHECK(l.error(l.solve(Awrq{}, "int4", three).linear.weight(), 3) < 295.0109);
}

TEST_CASE("AWRQ is its published loop, for vector blocks, groups and orders") {
  for (uint64_t seed = 0; seed < 5; ++seed) {
    at::manual_seed(seed);
    const Tensor x =
        at::matmul(at::randn({3, 40, 5}, at::kDouble), at::randn({5, 16}, at::kDouble)) + 0.3 * at::randn({3, 40, 16}, at::kDouble);
    const Layer l{0.3 * at::randn({7, 16}, at::kDouble), x};
    const Statistics stats = l.statistics(5);
    const Tensor natural = at::arange(16), descending = at::argsort(stats.hessian.diagonal(), true, 0, true);
    for (const char* scheme : {"int3", "int4:g4", "int3:g8"})
      for (const auto order : {ColumnOrder::natural, ColumnOrder::descending})
        for (const int64_t b : {1, 2, 4}) {
          INFO("seed " << seed << " " << scheme << " order " << static_cast<int>(order) << " block " << b);
          const Solution s = l.solve(Awrq{.block = b, .order = order, .as_published = true}, scheme, stats);
          const Tensor expected = written_out(l, stats, b, scheme, order == ColumnOrder::natural ? natural : descending);
          CHECK(at::allclose(s.linear.weight(), expected, 1e-8, 1e-10));
        }
    for (const char* scheme : {"int3", "int4:sym"})  // one block of all columns: nothing is ever made up for
      CHECK(at::equal(l.solve(Awrq{.block = 16, .as_published = true}, scheme, stats).linear.weight(), l.plain(scheme)));
  }
}

TEST_CASE("the shifted weight is the optimum over all real weights, and the loss is the distance to it") {
  const Layer l = Printed().seen;
  for (const int bits : {8, 6, 4}) {
    const Statistics stats = l.statistics(bits);
    const Solution s = l.solve(Awrq{.damp = 1e-12}, "int4", stats);
    const Tensor flat = l.rounded(bits).reshape({-1, 16}), y = at::mm(l.x.reshape({-1, 16}), l.w.t());
    const Tensor best = at::linalg_solve(at::mm(flat.t(), flat), at::mm(flat.t(), y)).t();  // least squares
    CHECK(at::allclose(s.target, best, 1e-5, 1e-7));
    CHECK(s.report.at(0).second == Approx(l.error(s.linear.weight(), bits) - l.error(best, bits)).epsilon(1e-5));
  }
}

TEST_CASE("without rounded activations AWRQ is GPTQ code for code, through the whole walk") {
  for (const Family family : {Family::llama, Family::opt}) {
    const Transformer model = tiny_model(family);
    const Tensor tokens = tiny_tokens(4, 24);
    const auto run = [&](const auto& solver, const Precision& precision) {
      return walk(model, stages(Recipe<Nearest, NoSmoothing, Mse, std::decay_t<decltype(solver)>>{.solver = solver}), precision, tokens);
    };
    for (const char* format : {"int3", "int4:g8"})
      for (const auto order : {ColumnOrder::natural, ColumnOrder::descending})
        for (const bool sequential : {false, true}) {
          const Precision precision = formats(format);
          const Kept gptq = run(Gptq{.order = order, .true_sequential = sequential}, precision),
                     awrq = run(Awrq{.order = order, .true_sequential = sequential}, precision),
                     released = run(Awrq{.order = order, .true_sequential = sequential, .as_published = true}, precision);
          for (size_t b = 0; b < 2; ++b)
            for (size_t i = 0; i < gptq.blocks[b].linears.size(); ++i) {
              CHECK(at::equal(gptq.blocks[b].linears[i].codes, awrq.blocks[b].linears[i].codes));
              CHECK(at::equal(gptq.blocks[b].linears[i].codes, released.blocks[b].linears[i].codes));
              const auto &theirs = gptq.reports[b].linears[i].numbers[0], &ours = awrq.reports[b].linears[i].numbers[0];
              CHECK(theirs.first == "loss");
              CHECK(theirs.second > 0);
              CHECK(ours.first == "loss");
              CHECK(std::abs(ours.second / theirs.second - 1) < 1e-4);
            }
        }
    const Precision rounded = formats("int4", "int4:tensor");
    CHECK(!at::equal(run(Gptq{}, rounded).blocks[0].linears[0].codes, run(Awrq{}, rounded).blocks[0].linears[0].codes));
  }
}

TEST_CASE("statistic bits stand in for those of the activations while statistics are gathered, and only there") {
  const Transformer model = tiny_model(Family::llama);
  const Tensor tokens = tiny_tokens(4, 24);
  const auto run = [&](const Awrq& solver, const std::string& activation) {
    return walk(model, stages(Recipe<Nearest, NoSmoothing, Mse, Awrq>{.solver = solver}), formats("int4", activation), tokens);
  };
  const Kept eight = run({}, "int8:tensor"), four = run({}, "int4:tensor"), mixed = run({.statistic_bits = 8}, "int4:tensor");
  for (size_t i = 0; i < 7; ++i) {  // block 0 sees the same stream
    CHECK(at::equal(mixed.blocks[0].linears[i].codes, eight.blocks[0].linears[i].codes));
    CHECK(!at::equal(mixed.blocks[0].linears[i].codes, four.blocks[0].linears[i].codes));
  }
  CHECK(!at::equal(mixed.streams[0], eight.streams[0]));
  CHECK_THROWS_WITH(run({.statistic_bits = 8}, "int4:static"), ContainsSubstring("statistic_bits needs dynamic activations"));
}

TEST_CASE("AWRQ refuses what it cannot do, and says where it is GPTQ") {
  CHECK_THAT((Awrq{.block = 3}.refuses(weights("int4:g8"))), ContainsSubstring("does not divide groups of 8"));
  CHECK((Awrq{.block = 4}.refuses(weights("int4:g8"))).empty());
  CHECK_THAT((Awrq{.statistic_bits = 9}.refuses(weights("int4"))), ContainsSubstring("solver.statistic_bits"));
  CHECK_THAT(Awrq{}.redundant(formats("int4")), ContainsSubstring("is GPTQ"));
  CHECK(Awrq{}.redundant(formats("int4", "int8:tensor")).empty());
}
