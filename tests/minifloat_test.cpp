// Minifloats with scales: weights, activations and factors on values listed bit pattern by bit pattern.
#include <ptq/core/activation.hpp>
#include <ptq/core/factors.hpp>
#include <ptq/rounding/flexround.hpp>
#include <ptq/rounding/learned_clip.hpp>
#include <ptq/run/block_file.hpp>
#include <ptq/solver/awrq.hpp>
#include <ptq/solver/claq.hpp>
#include <ptq/solver/gptaq.hpp>
#include <ptq/solver/gptq.hpp>

#include "catch.hpp"
#include "temporary_folder.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

/// The number that a bit pattern stands for: sign, exponent, mantissa; the least exponent has no implicit one.
double decode(unsigned pattern, int bits, int exponent_bits, int bias) {
  const int mantissa = bits - exponent_bits - 1;
  const unsigned m = pattern & ((1u << mantissa) - 1), e = (pattern >> mantissa) & ((1u << exponent_bits) - 1);
  const double fraction = static_cast<double>(m) / std::pow(2, mantissa);
  const double magnitude = e == 0 ? fraction * std::pow(2, 1 - bias) : (1 + fraction) * std::pow(2, static_cast<int>(e) - bias);
  return pattern >> (bits - 1) ? -magnitude : magnitude;
}

/// The pattern's value nearest to x; of two equally near the one whose last bit is zero.
double nearest(double x, int bits, int exponent_bits, int bias) {
  double best = 0;
  bool even = true;
  for (unsigned p = 0; p < (1u << bits); ++p) {
    const double y = decode(p, bits, exponent_bits, bias), here = std::abs(y - x), there = std::abs(best - x);
    if (here < there || (here == there && !even && p % 2 == 0)) best = y, even = p % 2 == 0;
  }
  return best;
}

double largest(const Scheme& s) { return decode((1u << (s.bits - 1)) - 1, s.bits, s.exponent_bits, s.exponent_bias); }

/// w on scales of blocks of rows x cols, entry by entry, in float64. `power`: scales are powers of two.
Tensor by_blocks(const Tensor& w, const Scheme& s, int64_t rows, int64_t cols, bool power) {
  Tensor y = w.clone();
  for (int64_t r = 0; r < w.size(0); r += rows)
    for (int64_t c = 0; c < w.size(1); c += cols) {
      const Tensor block = w.slice(0, r, r + rows).slice(1, c, c + cols);
      const double most = block.abs().max().item<double>(), top = largest(s);
      double scale = most / top;
      if (power) scale = std::pow(2, std::floor(std::log2(most)) - std::floor(std::log2(top)));
      for (int64_t i = 0; i < block.size(0); ++i)
        for (int64_t j = 0; j < block.size(1); ++j)
          y[r + i][c + j] = nearest(block[i][j].item<double>() / scale, s.bits, s.exponent_bits, s.exponent_bias) * scale;
    }
  return y;
}

Tensor values(const Tensor& w, const Scheme& scheme) {
  const Grid g = fit_grid(w, scheme);
  const Tensor codes = quantize(w, g);
  CHECK(codes.max().item<int>() <= g.highest);
  CHECK(at::equal(dequantize(codes, g), fake_quantize(w, g)));
  return dequantize(codes, g);
}

const char* const small[] = {"float3:e1", "float4:e2", "float4:e1", "float5:e2",      "float6:e2",
                             "float6:e3", "float8:e4", "float8:e5", "float4:e2:bias3"};

}  // namespace

TEST_CASE("the values of a minifloat are those of its bit patterns") {
  for (const char* text : small) {
    INFO(text);
    const Scheme s = weights(text);
    std::vector<double> all;
    for (unsigned p = 0; p < (1u << s.bits); ++p) all.push_back(decode(p, s.bits, s.exponent_bits, s.exponent_bias) + 0.0);  // no −0
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    CHECK(at::equal(minifloat_levels(s.bits, s.exponent_bits, s.exponent_bias), at::tensor(all, at::kDouble)));
  }
  const std::vector<double> fp4{-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6};  // OCP's E2M1
  CHECK(at::equal(minifloat_levels(4, 2, 1), at::tensor(fp4, at::kDouble)));
  CHECK(minifloat_levels(6, 3, 3)[-1].item<double>() == 28);   // E3M2
  CHECK(minifloat_levels(6, 2, 1)[-1].item<double>() == 7.5);  // E2M3
}

TEST_CASE("weights go to the nearest value, ties to the even mantissa") {
  at::manual_seed(1);
  for (const char* text : small)
    for (const auto dtype : {at::kFloat, at::kDouble}) {
      INFO(text << " " << c10::toString(dtype));
      const Scheme s = weights(text);
      const Tensor levels = minifloat_levels(s.bits, s.exponent_bits, s.exponent_bias).to(dtype);
      const int64_t count = levels.size(0);
      const Tensor ties = (levels.narrow(0, 0, count - 1) + levels.narrow(0, 1, count - 1)) / 2;
      const Tensor x = at::cat({levels, ties, at::randn({60}, dtype) * largest(s) / 3, 1.5 * levels.narrow(0, 0, 1)}).unsqueeze(0);
      const Tensor y = values(x, s);
      for (int64_t i = 0; i < x.numel(); ++i)
        CHECK(y[0][i].item<double>() == nearest(x[0][i].item<double>(), s.bits, s.exponent_bits, s.exponent_bias));
    }
}

TEST_CASE("scales of rows, groups and blocks put the largest magnitude where the format says") {
  at::manual_seed(2);
  const Tensor w = at::randn({6, 40}, at::kDouble);
  struct Case {
    const char* text;
    int64_t rows, cols;
    bool power;
  };
  for (const char* number : {"float4:e2", "float6:e3", "float8:e4"})
    for (const Case& c : {Case{":channel", 1, 40, false},
                          {":g8", 1, 8, false},
                          {":tensor", 6, 40, false},
                          {":b16", 1, 16, true},
                          {":b32", 1, 32, true},
                          {":b4x16", 4, 16, true},
                          {":b100", 1, 100, true},
                          {":b1073741824x1073741824", 6, 40, true}}) {
      INFO(number << c.text);
      const Scheme s = weights(cat(number, c.text));
      CHECK(at::allclose(values(w, s), by_blocks(w, s, c.rows, c.cols, c.power), 1e-14, 0));
      const Tensor narrow = values(w.to(at::kFloat), s).to(at::kDouble);
      CHECK((narrow - by_blocks(w, s, c.rows, c.cols, c.power)).abs().gt(1e-6).sum().item<int>() == 0);
      if (c.power) {
        int exponent = 0;
        const Tensor scale = fit_grid(w, s).scale;
        for (int64_t i = 0; i < scale.numel(); ++i) CHECK(std::frexp(scale.reshape({-1})[i].item<double>(), &exponent) == 0.5);
        CHECK(at::equal(values(values(w, s), s), values(w, s)));  // a second rounding changes nothing
      }
    }
  CHECK_THROWS_WITH(fit_grid(w, weights("float4:e2:g16")), Catch::Contains("do not divide"));
}

TEST_CASE("blocks of a minifloat with nothing in them, tiny, huge or not finite") {
  for (const char* text : {"float4:e2:g4", "float4:e2:b4", "float8:e4:channel", "float8:e5:b3", "float4:e2"}) {
    INFO(text);
    const Scheme s = weights(text);
    CHECK(at::equal(values(at::zeros({2, 8}), s), at::zeros({2, 8})));
    for (const double size : {1e-45, 1e-39, 1e-30, 1e30, 3e38}) {
      const Tensor y = values(at::full({2, 8}, size), s);
      CHECK(at::isfinite(y).all().item<bool>());
      if (s.scaled() && size > 1e-35 && size < 1e38) CHECK(at::allclose(y, at::full({2, 8}, size), 0.35));
    }
    Tensor bad = at::ones({2, 8});
    bad[1][3] = std::numeric_limits<float>::quiet_NaN();
    CHECK_THROWS_WITH(fit_grid(bad, s), Catch::Contains("NaN"));
    CHECK_THROWS_WITH(fake_quantize(bad, fit_grid(at::ones({2, 8}), s)), Catch::Contains("NaN"));
  }
}

TEST_CASE("texts of minifloats with scales read back, and nonsense is refused by name") {
  for (const char* text : {"float4:e2:channel", "float4:e2:g32", "float8:e4:bias8:tensor", "float6:e3:b32", "float4:e2:b4x16"}) {
    CHECK(weights(text).text() == text);
    CHECK(weights(text).brief(Role::weight) == text);
    CHECK(weights(text).scaled());
    CHECK(weights(text) != weights("float4:e2"));
  }
  for (const char* text : {"float4:e2:token", "float8:e4:tensor"}) CHECK(activations(text).text() == text);
  for (const char* text : {"float4:e2:g0", "float4:e2:b", "float4:e2:sym", "float4:e2:ceil", "float16:e5:channel", "float9:e4:b32",
                           "float4:e2:g8:b8", "float4:e2:channel:tensor", "float4:e2:token", "mxint4:b16:channel", "mxint4:channel:b2x4"})
    CHECK_THROWS_WITH(weights(text), Catch::Contains("weights"));
  CHECK_THROWS_WITH(activations("float4:e2:g8"), Catch::Contains("activations"));
  CHECK_THROWS_WITH(activations("float4:e2:b2x8"), Catch::Contains("later"));
  CHECK_THROWS_WITH(fit_grid(at::ones({2, 2}), weights("float16:e5")), Catch::Contains("8 bits"));
}

TEST_CASE("activations have scales of their tokens and blocks, and gradients pass straight through") {
  at::manual_seed(3);
  const Tensor x = at::randn({2, 3, 20});
  const auto rows = [&](const char* text, int64_t cols, bool power) {
    const Scheme s = activations(text);
    const Tensor wanted = by_blocks(x.reshape({6, 20}).to(at::kDouble), s, 1, cols, power).to(at::kFloat).view(x.sizes());
    return at::allclose(quantize_activation(x, s), wanted, 1e-5, 1e-6);
  };
  CHECK(rows("float8:e4:token", 20, false));
  CHECK(rows("float4:e2:b16", 16, true));
  CHECK(at::allclose(quantize_activation(x, activations("float8:e4:tensor")).reshape({6, 20}),
                     by_blocks(x.reshape({6, 20}).to(at::kDouble), activations("float8:e4:tensor"), 6, 20, false).to(at::kFloat), 1e-5,
                     1e-6));
  CHECK(quantize_activation(at::zeros({0, 4}), activations("float8:e4:token")).numel() == 0);
  const c10::AutoGradMode on(true);
  const Tensor leaf = x.clone().requires_grad_(true), matrix = x.reshape({6, 20}).clone().requires_grad_(true);
  quantize_activation(leaf, activations("float8:e4:token")).sum().backward();
  CHECK(at::equal(leaf.grad(), at::ones_like(x)));
  fake_quantize_through(matrix, weights("float4:e2:g4")).sum().backward();
  CHECK(at::equal(matrix.grad(), at::ones_like(matrix)));
}

TEST_CASE("column solvers round onto minifloats, and what owns or learns a grid says why it cannot") {
  at::manual_seed(4);
  const Tensor mix = at::randn({72, 72}), x = at::matmul(at::randn({4, 60, 72}), mix), w = at::randn({24, 72});
  Statistics stats;
  stats.add({.hessian = true, .cross = true}, x, x + 0.1 * at::randn_like(x));
  stats.finish();
  const auto error = [&](const QuantizedLinear& l) { return at::matmul(x, (w - l.weight()).t()).norm().item<double>(); };
  for (const char* text : {"float4:e2:channel", "float4:e2:g8", "float4:e2:b16", "float4:e2:b2x16", "float6:e3:tensor", "float4:e2"}) {
    Problem p;
    p.place = "w", p.weight = w, p.scheme = weights(text), p.stats = &stats;
    const auto check = [&](const auto& solver, double factor) {
      INFO(text << " " << label(solver));
      CHECK(solver.refuses(p.scheme).empty());
      Shared own;
      p.shared = &own;
      const QuantizedLinear l = solver.solve(p).linear;
      CHECK(l.codes.max().item<int>() <= l.grid.highest);
      CHECK(at::equal(fake_quantize(l.weight(), l.grid), l.weight()));
      CHECK(error(l) < factor * error(Direct{}.solve(p).linear));
    };
    check(Gptq{}, 0.8);
    check(Gptq{.order = ColumnOrder::descending}, 0.8);
    check(Gptq{.order = ColumnOrder::descending, .static_groups = true}, 0.8);
    check(Gptq{.as_published = true}, 0.8);
    check(Gptaq{}, 1e9);
    if (!(p.scheme.granularity == Granularity::group && !p.scheme.block_float()))
      check(Gptaq{.block = 7, .order = ColumnOrder::descending, .as_published = true}, 1e9);
    check(Awrq{}, 1e9);
    CHECK(!Claq{}.refuses(p.scheme).empty());
  }
  CHECK_THAT(Claq{}.refuses(weights("float4:e2:channel")), Catch::Contains("levels"));
  CHECK_THAT(refuses(Recipe<FlexRound>{}, formats("float4:e2:channel")), Catch::Contains("minifloat"));
  CHECK_THAT(refuses(Recipe<LearnedClip>{}, formats("float4:e2:g8")), Catch::Contains("minifloat"));
}

TEST_CASE("stored bits of minifloats: codes, and scales of 32 bits, exponents of 8, or none") {
  at::manual_seed(5);
  const Tensor w = at::randn({8, 40});
  const auto bits = [&](const char* text) {
    QuantizedLinear l;
    l.grid = fit_grid(w, weights(text)), l.codes = quantize(w, l.grid);
    return l.bits().total();
  };
  CHECK(bits("float4:e2") == 4 * 320);
  CHECK(bits("float4:e2:channel") == 4 * 320 + 32 * 8);
  CHECK(bits("float6:e3:g8") == 6 * 320 + 32 * 8 * 5);
  CHECK(bits("float4:e2:b32") == 4 * 320 + 8 * 8 * 2);
  CHECK(bits("float4:e2:b4x16") == 4 * 320 + 8 * 2 * 3);
  CHECK(bits("float8:e4:tensor") == 8 * 320 + 32);
  const LowRank f{at::randn({40, 5}), at::randn({5, 24}), 0};
  const LowRank rounded = round_factors(f, weights("float8:e4:b16"), FactorBlocks::last);
  CHECK(rounded.bits == 8 * (200 + 120) + 8 * (40 * 1 + 5 * 2));
  CHECK(at::allclose(rounded.a.to(at::kDouble), by_blocks(f.a.to(at::kDouble), weights("float8:e4"), 1, 16, true), 1e-6, 1e-7));
  CHECK(round_factors(f, weights("float16:e5"), FactorBlocks::last).bits == 16 * (200 + 120));
  CHECK(factor_bits(weights("float8:e4:b16")) == 8.5);
  CHECK(factor_bits(weights("float8:e4:g16")) == 10);
  CHECK(factor_bits(weights("float8:e4")) == 8);
}

TEST_CASE("minifloat weights walk through a model and reload bit for bit; damaged codes are an error") {
  const c10::NoGradGuard off;
  const TemporaryFolder folder("minifloat");
  for (const Family family : {Family::llama, Family::opt})
    for (const char* text : {"float4:e2:b12", "float4:e2:g8", "float6:e3:channel", "float4:e2:b3x5", "float6:e2:tensor", "float8:e4"}) {
      INFO(name(family) << " " << text);
      const Transformer model = tiny_model(family);
      const Recipe<Nearest, NoSmoothing, Mse, Gptq> recipe{.solver = {.order = ColumnOrder::descending}};
      const Kept kept = walk(model, stages(recipe), formats(text, "float8:e4:token"), tiny_tokens());
      save_block(folder / "a.h5", kept.blocks[1], model.layout());
      const QuantizedBlock read = load_block_file(folder / "a.h5", model.layout());
      for (size_t i = 0; i < read.linears.size(); ++i) {
        const QuantizedLinear &w = kept.blocks[1].linears[i], &r = read.linears[i];
        CHECK(at::equal(w.weight(), r.weight()));
        CHECK(w.grid.scheme == r.grid.scheme);
        CHECK(w.bits().total() == r.bits().total());
      }
      QuantizedOperators operators(model.config(), read);
      CHECK(at::equal(model.forward(1, kept.streams[0], operators), kept.streams[1]));
      QuantizedBlock damaged = kept.blocks[1];
      damaged.linears[0].codes = damaged.linears[0].codes.clone();
      damaged.linears[0].codes[0][0] = (1 << weights(text).bits) - 1;  // one beyond the last value
      save_block(folder / "b.h5", damaged, model.layout());
      CHECK_THROWS_WITH(load_block_file(folder / "b.h5", model.layout()), Catch::Contains("beyond") && Catch::Contains("b.h5"));
      damaged.linears[0].grid.scheme = weights("float8:e4"), damaged.linears[0].grid.scheme.bits = 12;
      save_block(folder / "c.h5", damaged, model.layout());
      CHECK_THROWS_WITH(load_block_file(folder / "c.h5", model.layout()), Catch::Contains("8 bits at most"));
    }
}
