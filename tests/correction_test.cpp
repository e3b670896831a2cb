// Corrections on problems worked by hand and on tabulated ones; their statistics; how they run in a block.
#include <ptq/correction/l2qer.hpp>
#include <ptq/correction/lqer.hpp>
#include <ptq/correction/qera.hpp>
#include <ptq/quantized_block.hpp>

#include "catch.hpp"

using namespace ptq;

namespace {

double length(const Tensor& t) { return std::sqrt(t.to(at::kDouble).square().sum().item<double>()); }

Tensor matrix(std::initializer_list<double> values, int64_t rows) {
  return at::tensor(std::vector<double>(values), at::kDouble).view({rows, -1});
}

/// Statistics with the given magnitudes and second moment, as if of one token.
Statistics known(const Tensor& magnitudes, const Tensor& second_moment = {}) {
  Statistics s;
  s.sequences = s.tokens = 1;
  s.profile = magnitudes.to(at::kDouble).unsqueeze(0), s.absmax = magnitudes.to(at::kDouble);
  s.hessian = second_moment;
  if (second_moment.defined()) s.square = second_moment.diagonal().to(at::kDouble);
  return s;
}

template <class P>
Tensor product(const P& p, const Tensor& e, const Statistics& stats) {  // e (in, out) → A B (in, out)
  Shared shared;
  const LowRank f = p.fit(Residual{"layer", e.t().contiguous(), &stats, &shared, {}});
  return at::mm(f.a, f.b);
}

bool near(const Tensor& a, const Tensor& b, double tolerance = 1e-6) { return (a - b).abs().max().item<double>() < tolerance; }

/// A deterministic layer of 48 outputs and 64 inputs and its magnitudes, one of them far out.
struct Layer {
  Tensor w = at::empty({48, 64}, at::kDouble), a = at::empty({64}, at::kDouble);
  Layer() {
    for (int64_t o = 0; o < 48; ++o)
      for (int64_t i = 0; i < 64; ++i)
        w[o][i] = 0.05 * std::sin(0.9 * static_cast<double>(o) + 0.35 * static_cast<double>(i)) +
                  0.04 * std::cos(0.11 * static_cast<double>(o * i));
    for (int64_t i = 0; i < 64; ++i) a[i] = 0.05 + 1.5 * std::pow(std::sin(0.21 * static_cast<double>(i)), 2);
    a[7] *= 20;
    w = w.to(at::kFloat);
  }
  [[nodiscard]] Tensor error(int bits) const {  // (out, in)
    return w - block_float(w, 16, {bits, true});
  }
};

}  // namespace

TEST_CASE("diagonal and dense errors worked by hand have their corrections") {
  const Tensor a = at::tensor({0.2, 1.8}, at::kDouble);
  const Tensor s = L2qer{}.weights(a);
  CHECK(near(s, at::tensor({1.0 / 3, 3.0}, at::kDouble), 1e-12));
  const Tensor diagonal = matrix({0.10, 0, 0, 0.06}, 2);
  CHECK(near(product(Lqer{.rank = 1}, diagonal, {}), matrix({0.10, 0, 0, 0}, 2), 1e-12));
  CHECK(near(product(L2qer{.rank = 1}, diagonal, known(a)), matrix({0, 0, 0, 0.06}, 2), 1e-12));
  const Tensor dense = matrix({0.10, 0.02, 0.03, 0.06}, 2);
  CHECK(near(product(Lqer{.rank = 1}, dense, {}), matrix({0.0910132, 0.0402972, 0.0472942, 0.0209401}, 2), 1e-7));
  CHECK(near(product(L2qer{.rank = 1}, dense, known(a)), matrix({0.0292891, 0.0565946, 0.0308294, 0.0595708}, 2), 1e-7));
  Shared shared;
  const Statistics stats = known(a);
  const LowRank f = L2qer{.rank = 1}.fit({"layer", dense.t().contiguous(), &stats, &shared, {}});
  CHECK(near(f.a.abs(), matrix({0.3149303, 0.3314916}, 2), 1e-6));  // A = S⁻¹ U
  CHECK(near(f.b.abs(), matrix({0.0930020, 0.1797053}, 1), 1e-6));  // B = Σ Vᵀ

  const Tensor r = matrix({1, 0.8, 0.8, 1}, 2);
  const Statistics second = known(a, r);
  const Tensor approximate = product(Qera{.rank = 1, .form = QeraForm::approximate}, dense, second);
  CHECK(near(approximate, product(Lqer{.rank = 1}, dense, {}), 1e-12));
  const Tensor exact = product(Qera{.rank = 1}, dense, second);
  CHECK(near(exact, matrix({0.0825123, 0.0492804, 0.0485256, 0.0289819}, 2), 1e-7));
  const auto output = [&](const Tensor& ab) { return at::trace(at::mm(at::mm((dense - ab).t(), r), dense - ab)).item<double>(); };
  CHECK(output(approximate) == Approx(0.00080034).epsilon(1e-5));
  CHECK(output(exact) == Approx(0.00049697).epsilon(1e-5));
}

TEST_CASE("the tabulated layer has the tabulated residuals at every width and rank") {
  const Layer layer;
  CHECK(length(layer.w) == Approx(2.53269).epsilon(1e-5));
  const Tensor s = L2qer{}.weights(layer.a);
  CHECK(s.min().item<double>() == Approx(0.0403592).epsilon(1e-5));
  CHECK(s[7].item<double>() == Approx(24.77750).epsilon(1e-5));
  const Tensor codes = (block_float(layer.w, 16, {4, true}) * 128).to(at::kInt);
  CHECK(at::equal(codes[0].narrow(0, 0, 16), at::tensor({6, 8, 10, 10, 12, 12, 10, 10, 8, 6, 2, 0, 0, -2, -2, 0}, at::kInt)));
  CHECK(at::equal(codes[5].narrow(0, 0, 16), at::tensor({-2, -2, -4, -4, -6, -4, -4, 0, 4, 8, 10, 10, 10, 6, 0, -4}, at::kInt)));
  CHECK(at::equal(block_float(layer.w, 16, {4, true}), block_float(layer.w, 16, {4, false})));

  struct Row {
    int bits;
    double error;
    std::array<std::array<double, 4>, 5> at;  // plain fit ‖·‖, ‖S·‖; weighted fit ‖·‖, ‖S·‖, for ranks 1, 4, 8, 16, 32
  };
  const Row rows[] = {{4,
                       0.253012,
                       {{{0.243418, 0.763397, 0.248009, 0.183524},
                         {0.219847, 0.722435, 0.228713, 0.157102},
                         {0.191213, 0.581375, 0.205847, 0.128653},
                         {0.141046, 0.436270, 0.163362, 0.081326},
                         {0.061228, 0.148646, 0.091410, 0.023149}}}},
                      {3,
                       0.497450,
                       {{{0.480866, 1.564203, 0.487706, 0.356183},
                         {0.435377, 1.335090, 0.450487, 0.306793},
                         {0.380802, 1.140372, 0.405059, 0.250726},
                         {0.282851, 0.756653, 0.325880, 0.160096},
                         {0.128805, 0.403512, 0.180279, 0.043092}}}},
                      {2,
                       0.941298,
                       {{{0.907734, 3.096792, 0.924829, 0.693111},
                         {0.808060, 2.840571, 0.843733, 0.590359},
                         {0.696212, 2.191276, 0.746047, 0.477306},
                         {0.509666, 1.881077, 0.581517, 0.297261},
                         {0.214189, 0.532850, 0.320897, 0.075991}}}}};
  const int64_t ranks[] = {1, 4, 8, 16, 32};
  for (const auto dtype : {at::kFloat, at::kDouble})
    for (const Row& row : rows) {
      const Tensor e = layer.error(row.bits).t().contiguous().to(dtype);  // (in, out)
      CHECK(length(e) == Approx(row.error).epsilon(1e-5));
      for (size_t k = 0; k < 5; ++k) {
        INFO(row.bits << " bits, rank " << ranks[k]);
        const auto check = [&](const Tensor& ab, double plain, double weighted) {
          CHECK(length(e - ab) == Approx(plain).epsilon(1e-3));
          CHECK(length((e - ab).to(at::kDouble) * s.unsqueeze(1)) == Approx(weighted).epsilon(1e-3));
        };
        check(product(Lqer{.rank = ranks[k]}, e, {}), row.at[k][0], row.at[k][1]);
        check(product(L2qer{.rank = ranks[k]}, e, known(layer.a)), row.at[k][2], row.at[k][3]);
        CHECK(row.at[k][0] < row.at[k][2]);  // each is better in its own norm
        CHECK(row.at[k][3] < row.at[k][1]);
      }
    }
  const Tensor e = layer.error(4);
  CHECK(near(truncated_svd(e, 4).sigma, at::tensor({0.069012, 0.063376, 0.059841, 0.057639}, at::kDouble), 1e-5));
  CHECK(near(truncated_svd(e * s.to(at::kFloat), 4).sigma, at::tensor({0.791631, 0.059822, 0.053203, 0.050897}, at::kDouble), 1e-5));
}

TEST_CASE("factors rounded to 8, 6 and 4 bits leave the tabulated residuals") {
  const Layer layer;
  const Tensor s = L2qer{}.weights(layer.a), e = layer.error(4);
  const Statistics stats = known(layer.a);
  const std::pair<const char*, double> wanted[] = {
      {"mxint8:b16:ceil", 0.08167}, {"mxint6:b16:ceil", 0.08758}, {"mxint4:b16:ceil", 0.10790}};
  for (const auto& [format, residual] : wanted) {
    INFO(format);
    const Scheme scheme = Scheme::parse(format, "factors", Role::weight);
    const LowRank f = L2qer{.rank = 16, .blocks = FactorBlocks::last}.fit({"layer", e, &stats, nullptr, scheme});
    CHECK(length((e.t() - at::mm(f.a, f.b)).to(at::kDouble) * s.unsqueeze(1)) == Approx(residual).epsilon(0.02));
    CHECK(f.bits == (scheme.bits + 0.5) * static_cast<double>(f.a.numel() + f.b.numel()));
  }
}

TEST_CASE("exact QERA has the tabulated output errors, which are the eigenvalues left over") {
  const Layer layer;
  const Tensor e = layer.error(4).t().to(at::kDouble);  // (in, out)
  Tensor r = at::empty({64, 64}, at::kDouble);
  for (int64_t i = 0; i < 64; ++i)
    for (int64_t j = 0; j < 64; ++j)
      r[i][j] = layer.a[i].item<double>() * layer.a[j].item<double>() * std::pow(0.6, std::abs(static_cast<double>(i - j)));
  const auto output = [&](const Tensor& ab) { return at::trace(at::mm(at::mm((e - ab).t(), r), e - ab)).item<double>(); };
  CHECK(output(at::zeros_like(e)) == Approx(1.032076).epsilon(1e-4));
  const Tensor lambda = at::linalg_eigvalsh(at::mm(at::mm(e.t(), r), e)).flip(0);
  const double wanted[][4] = {{1, 0.912896, 0.051800, 0.050123},
                              {4, 0.812682, 0.036287, 0.028012},
                              {8, 0.527266, 0.023599, 0.016125},
                              {16, 0.290576, 0.009976, 0.006018}};
  for (const auto& row : wanted) {
    const auto rank = static_cast<int64_t>(row[0]);
    INFO("rank " << rank);
    const Statistics stats = known(layer.a, r);
    CHECK(output(product(Lqer{.rank = rank}, e, stats)) == Approx(row[1]).epsilon(1e-3));
    CHECK(output(product(Qera{.rank = rank, .form = QeraForm::approximate}, e, stats)) == Approx(row[2]).epsilon(1e-3));
    const double exact = output(product(Qera{.rank = rank}, e, stats));
    CHECK(exact == Approx(row[3]).epsilon(1e-3));
    CHECK(exact == Approx(lambda.narrow(0, rank, 48 - rank).sum().item<double>()).epsilon(1e-8));
  }
}

TEST_CASE("exact QERA is what the published square roots give, and nothing near or far has a smaller output error") {
  at::manual_seed(12);
  for (const auto& [in, out, rank] : std::vector<std::array<int64_t, 3>>{{16, 24, 3}, {24, 10, 4}, {20, 20, 1}, {12, 30, 11}}) {
    INFO(in << " inputs, " << out << " outputs, rank " << rank);
    const Tensor x = at::mm(at::randn({400, in}, at::kDouble), at::randn({in, in}, at::kDouble)),
                 e = 0.1 * at::randn({in, out}, at::kDouble);
    const Tensor r = at::mm(x.t(), x);  // the factor 1 / tokens is in the statistics
    Statistics stats = known(at::ones({in}, at::kDouble), r);
    Shared shared;
    const LowRank f = Qera{.rank = rank}.fit({"layer", e.t().contiguous(), &stats, &shared, {}});
    const auto error = [&](const Tensor& a, const Tensor& b) { return at::mm(x, e - at::mm(a, b)).square().sum().item<double>(); };
    const double least = error(f.a, f.b);

    // A = R^(−1/2) U_k, B = Σ_k V_kᵀ of R^(1/2) E = U Σ Vᵀ: QERA, theorem 1.
    const auto [lambda, q] = at::linalg_eigh(r);
    const Tensor root = at::mm(q * lambda.sqrt(), q.t()), inverse = at::mm(q * lambda.rsqrt(), q.t());
    const auto [u, sigma, vt] = at::linalg_svd(at::mm(root, e), false);
    const Tensor published = at::mm(at::mm(inverse, u.narrow(1, 0, rank) * sigma.narrow(0, 0, rank)), vt.narrow(0, 0, rank));
    CHECK(near(at::mm(f.a, f.b), published, 1e-9));
    CHECK(least == Approx(sigma.narrow(0, rank, sigma.numel() - rank).square().sum().item<double>()).epsilon(1e-9));

    // Both gradients of the error vanish, and no step from there leads down.
    const Tensor left = at::mm(r, e - at::mm(f.a, f.b));  // (in, out)
    CHECK(at::mm(left, f.b.t()).abs().max().item<double>() < 1e-9 * least);
    CHECK(at::mm(f.a.t(), left).abs().max().item<double>() < 1e-9 * least);
    for (const double step : {1e-6, 1e-3, 0.1, 1.0, 30.0})
      for (int i = 0; i < 40; ++i)
        CHECK(error(f.a + step * at::randn_like(f.a) * f.a.std(), f.b + step * at::randn_like(f.b) * f.b.std()) >= least * (1 - 1e-12));

    // Alternating least squares from somewhere else ends no lower, and gets there.
    Tensor a = at::randn({in, rank}, at::kDouble), b;
    for (int i = 0; i < 3000; ++i) {
      b = at::linalg_solve(at::mm(at::mm(a.t(), r), a), at::mm(at::mm(a.t(), r), e));  // (rank, out)
      a = at::linalg_solve(at::mm(b, b.t()), at::mm(b, e.t())).t();                    // (in, rank)
    }
    CHECK(error(a, b) >= least * (1 - 1e-12));
    CHECK(error(a, b) <= least * (1 + 1e-6));
  }
}

TEST_CASE("a truncated decomposition finds the share of a flat error that its rank can hold") {
  at::manual_seed(9);
  const Tensor w = 0.02 * at::randn({1024, 1024}), e = w - block_float(w, 16, {4, true});
  const LowRank f = Lqer{}.fit({"layer", e, nullptr, nullptr, {}});
  const double held = 1 - std::pow(length(e - at::mm(f.a, f.b).t()) / length(e), 2);
  CHECK(held > 0.110);
  CHECK(held < 0.116);
}

TEST_CASE("the magnitude is a maximum over batches of means over tokens, unless another is asked for") {
  // Two sequences of two tokens; means of |x| by channel (0.1, 1.0) and (0.3, 0.6).
  const Tensor x = at::tensor({0.2, -1.5, 0.0, 0.5, -0.3, 1.2, 0.3, 0.0}, at::kDouble).view({2, 2, 2});
  Statistics stats;
  stats.add({.absmax = true, .profile = true, .square = true}, x);
  const auto magnitudes = [&](Magnitude m, int64_t batch) { return L2qer{.magnitude = m, .batch = batch}.magnitudes(stats, "layer"); };
  CHECK(near(magnitudes(Magnitude::batch_max, 1), at::tensor({0.3, 1.0}, at::kDouble), 1e-12));
  CHECK(near(magnitudes(Magnitude::batch_max, 2), at::tensor({0.2, 0.8}, at::kDouble), 1e-12));
  CHECK(near(magnitudes(Magnitude::mean, 1), at::tensor({0.2, 0.8}, at::kDouble), 1e-12));
  CHECK(near(magnitudes(Magnitude::absmax, 1), at::tensor({0.3, 1.5}, at::kDouble), 1e-12));
  CHECK(near(magnitudes(Magnitude::rms, 1), at::tensor({std::sqrt(0.22 / 4), std::sqrt(3.94 / 4)}, at::kDouble), 1e-12));
  const Tensor s = L2qer{}.weights(at::tensor({0.0, 0.5, 2.0}, at::kDouble));
  CHECK(near(s, at::tensor({0.00707107, 35.35534, 141.42136}, at::kDouble), 1e-4));

  // The same tokens in other batches: L²QER's magnitude moves, QERA's statistic does not.
  Statistics one;
  one.add({.profile = true, .square = true}, x.view({1, 4, 2}));
  CHECK(near(one.square, stats.square, 1e-12));
  CHECK(!near(L2qer{}.magnitudes(one, "layer"), L2qer{.batch = 1}.magnitudes(stats, "layer"), 1e-3));
}

TEST_CASE("the branch runs beside the rounded weight, on the same input, with the bias once") {
  const Tensor x = matrix({1, 2}, 1), w = matrix({0.5, -0.25, 0.25, 0.75}, 2), bias = at::tensor({0.1, -0.1}, at::kDouble);
  ModelConfig config;
  BlockParameters block;
  block.linears = {{w, bias}};
  Formats formats;
  formats.inputs.resize(1), formats.outputs.resize(1);
  std::vector<LowRank> corrections{{matrix({1, 0}, 2), matrix({0.02, -0.01}, 1), 0}};
  FormatOperators on(config, block, formats, &corrections), off(config, block, formats);
  CHECK(near(on.linear(0, x), matrix({0.12, 1.64}, 1), 1e-12));
  CHECK(near(off.linear(0, x), matrix({0.10, 1.65}, 1), 1e-12));

  // Formats of the branch: x A is rounded, then (x A)_q B; the quantized product is not.
  corrections = {{matrix({0.3, 0.45}, 2), matrix({0.37, -0.21}, 1), 0}};
  formats.branch = Scheme::parse("mxint4:b16", "branch", Role::activation);
  const double inner = 1.25;                                                     // 0.3 + 0.9 = 1.2 in steps of 2/8
  CHECK(near(on.linear(0, x), matrix({0.10 + 0.4375, 1.65 - 0.25}, 1), 1e-12));  // 1.25 · (0.37, −0.21) = (0.4625, −0.2625), steps of 1/16
  CHECK(near(branch(corrections[0], x, formats.branch), matrix({0.4375, -0.25}, 1), 1e-12));
  CHECK(near(branch(corrections[0], x, {}), matrix({1.2 * 0.37, -1.2 * 0.21}, 1), 1e-12));
  CHECK(inner * 0.37 == Approx(0.4625));
}

TEST_CASE("a budget buys whole directions, however small or large it is") {
  const Scheme eight = Scheme::parse("mxint8:b16", "factors", Role::weight);
  const auto most = [&](double budget) { return most_directions({.rank = 500, .budget = budget}, 64, 192, eight); };
  CHECK(most(0) == 64);
  CHECK(most(1) == 5);  // 64 · 192 / (8.5 · 256) = 5.65
  CHECK(most(8.5 * 256 / (64.0 * 192) * 3) == 3);
  CHECK(most(1e-300) == 0);
  CHECK(most(1e300) == 64);
  CHECK(most(std::numeric_limits<double>::max()) == 64);
}

TEST_CASE("stored bits of a corrected linear count codes, shared exponents and factors") {
  at::manual_seed(3);
  const Scheme weight = Scheme::parse("mxint4:b16", "weights", Role::weight), eight = Scheme::parse("mxint8:b16", "factors", Role::weight);
  QuantizedLinear l;
  const Tensor w = at::randn({4096, 4096}) * 0.02;
  l.grid = fit_grid(w, weight), l.codes = quantize(w, l.grid);
  l.correction = round_factors({at::randn({4096, 32}), at::randn({32, 4096}), 0}, eight, FactorBlocks::outer);
  CHECK(l.bits().per_weight() == Approx(4.5 + 32.0 * 8192 / (4096.0 * 4096) * 8.5));  // 4.6328
  CHECK(l.bits().per_weight() == Approx(4.6328).epsilon(1e-5));
  const double published =
      (4096.0 * 4096 * 4.5 + 32.0 * 8192 * 8.5) / (4096.0 * 4096 + 32.0 * 8192);  // factors' entries in the denominator
  CHECK(published == Approx(4.5615).epsilon(1e-5));
}

TEST_CASE("factors are rounded along the axes that are asked for, in every kind of format") {
  at::manual_seed(6);
  const LowRank f{at::randn({40, 5}), at::randn({5, 24}), 0};
  const auto rows = [](const Tensor& t) { return block_float(t, 16, {6, false}); };
  const auto columns = [&](const Tensor& t) { return rows(t.t()).t(); };
  const Scheme mx = Scheme::parse("mxint6:b16", "factors", Role::weight);
  const LowRank outer = round_factors(f, mx, FactorBlocks::outer), last = round_factors(f, mx, FactorBlocks::last),
                first = round_factors(f, mx, FactorBlocks::first);
  CHECK(at::equal(outer.a, columns(f.a)));
  CHECK(at::equal(outer.b, rows(f.b)));
  CHECK(at::equal(last.a, rows(f.a)));
  CHECK(at::equal(last.b, rows(f.b)));
  CHECK(at::equal(first.a, columns(f.a)));
  CHECK(at::equal(first.b, columns(f.b)));
  CHECK(outer.bits == 6 * (200 + 120) + 8 * (5 * 3 + 5 * 2));
  CHECK(last.bits == 6 * (200 + 120) + 8 * (40 * 1 + 5 * 2));
  const LowRank channel = round_factors(f, Scheme::parse("int8:channel:sym", "factors", Role::weight), FactorBlocks::outer);
  CHECK((channel.a - f.a).abs().max().item<double>() < 0.02);
  CHECK(channel.bits == 8 * (200 + 120) + 32 * 10);
  const LowRank none = round_factors(f, {}, FactorBlocks::outer);
  CHECK(at::equal(none.a, f.a));
  CHECK(none.bits == 32 * (200 + 120));
}
