// Block floating point as a format: texts, grids, activations, ragged and two-dimensional blocks, column solvers, bits.
#include <ptq/core/activation.hpp>
#include <ptq/core/minifloat.hpp>
#include <ptq/core/quantized_linear.hpp>
#include <ptq/solver/awrq.hpp>
#include <ptq/solver/gptaq.hpp>
#include <ptq/solver/gptq.hpp>

#include "catch.hpp"

using namespace ptq;

namespace {

Scheme weight(const std::string& text) { return Scheme::parse(text, "weights", Role::weight); }
Scheme activation(const std::string& text) { return Scheme::parse(text, "activations", Role::activation); }

/// One block by the definition, in float64.
Tensor by_definition(const Tensor& block, int bits, bool ceil) {
  const double most = block.abs().max().item<double>();
  if (most == 0) return at::zeros_like(block);
  const double e = ceil ? std::ceil(std::log2(most)) : std::floor(std::log2(most)) + 1, step = std::exp2(e - bits + 1);
  const double top = std::exp2(bits - 1) - 1;
  return (block.to(at::kDouble) / step).round().clamp(-top, top).mul(step).to(block.scalar_type());
}

Tensor values(const Tensor& w, const Scheme& scheme) {
  const Grid g = fit_grid(w, scheme);
  return dequantize(quantize(w, g), g);
}

}  // namespace

TEST_CASE("block formats read back as written, and nonsense is refused by name") {
  for (const char* text : {"mxint4:b16", "mxint2:b32:ceil", "mxint8:channel", "mxint4:tensor:ceil", "mxint4:b4x8", "mxint3:b128"}) {
    CHECK(weight(text).text() == text);
    CHECK(weight(weight(text).text()) == weight(text));
    CHECK(weight(text).brief(Role::weight) == text);
  }
  CHECK(weight("mxint4") == weight("mxint4:b16"));
  CHECK(activation("mxint8:token").text() == "mxint8:token");
  CHECK(weight("mxint4:b16:ceil") != weight("mxint4:b16"));
  for (const char* text : {"mxint", "mxint1", "mxint9", "mxint4:b", "mxint4:b0", "mxint4:b-1", "mxint4:b16x", "mxint4:bx16", "mxint4:g16",
                           "mxint4:token", "mxint4:sym", "mxint4:range=gptq", "mxint4:", "int4:g16:sym:range=mx", "int4:b16"})
    CHECK_THROWS_WITH(weight(text), Catch::Contains("weights"));
  CHECK_THROWS_WITH(activation("mxint8:channel"), Catch::Contains("activations"));
  CHECK_THROWS_WITH(activation("mxint8:b2x16"), Catch::Contains("later"));
}

TEST_CASE("weights share exponents along input channels, with a short block at the end") {
  at::manual_seed(1);
  for (const auto dtype : {at::kFloat, at::kDouble})
    for (const bool ceil : {false, true}) {
      const Tensor w = at::randn({5, 20}, dtype);
      const Scheme scheme = weight(ceil ? "mxint4:b16:ceil" : "mxint4:b16");
      const Tensor q = values(w, scheme);
      for (int64_t row = 0; row < 5; ++row) {
        CHECK(at::equal(q[row].narrow(0, 0, 16), by_definition(w[row].narrow(0, 0, 16), 4, ceil)));
        CHECK(at::equal(q[row].narrow(0, 16, 4), by_definition(w[row].narrow(0, 16, 4), 4, ceil)));
      }
      CHECK(at::equal(q, block_float(w, scheme)));
      Tensor moved = w.clone();
      moved[0][0] = 100, moved[1][17] = 100;
      const Tensor differs = values(moved, scheme).ne(q);
      CHECK(differs[0].narrow(0, 0, 16).any().item<bool>());
      CHECK(!differs[0].narrow(0, 16, 4).any().item<bool>());
      CHECK(!differs[1].narrow(0, 0, 16).any().item<bool>());
      CHECK(!differs.narrow(0, 2, 3).any().item<bool>());
    }
}

TEST_CASE("blocks of rows and columns share exponents, whatever sizes are left at the ends") {
  at::manual_seed(2);
  const Tensor w = at::randn({10, 21});
  for (const bool ceil : {false, true}) {
    const Scheme scheme = weight(ceil ? "mxint4:b4x8:ceil" : "mxint4:b4x8");
    const Tensor q = values(w, scheme);
    for (int64_t r = 0; r < 10; r += 4)
      for (int64_t c = 0; c < 21; c += 8) {
        const auto part = [&](const Tensor& t) {
          return t.slice(0, r, std::min<int64_t>(10, r + 4)).slice(1, c, std::min<int64_t>(21, c + 8));
        };
        CHECK(at::equal(part(q), by_definition(part(w), 4, ceil)));
      }
    CHECK(at::equal(q, block_float(w, scheme)));
  }
  CHECK(at::equal(values(w, weight("mxint4:tensor")), by_definition(w, 4, false)));
  CHECK(at::equal(block_float(w, 0, 0, {4}), by_definition(w, 4, false)));
  for (int64_t row = 0; row < 10; ++row) CHECK(at::equal(values(w, weight("mxint3:channel"))[row], by_definition(w[row], 3, false)));
}

TEST_CASE("the default form is idempotent, the published one is not") {
  at::manual_seed(3);
  const Tensor w =
      at::randn({64, 160}) * at::exp2(at::rand({64, 10, 1})).expand({-1, -1, 16}).reshape({64, 160});  // ranges anywhere in an octave
  for (int bits = 2; bits <= 8; ++bits) {
    const Scheme floor = weight(cat("mxint", bits, ":b16")), ceil = weight(cat("mxint", bits, ":b16:ceil"));
    CHECK(at::equal(values(values(w, floor), floor), values(w, floor)));
    const double changed = values(values(w, ceil), ceil).ne(values(w, ceil)).view({-1, 16}).any(1).to(at::kDouble).mean().item<double>();
    if (bits == 4) CHECK(changed == Approx(std::log2(1.125)).margin(0.05));  // maxima of ½ to ½ + ½/8 round to the power of two ½
    if (bits == 2) CHECK(changed == 1);
  }
}

TEST_CASE("powers of two pass through, and errors stay within half a step unless a value saturates") {
  at::manual_seed(4);
  const Tensor w = at::randn({32, 64});
  for (const bool ceil : {false, true}) {
    const Scheme scheme = weight(ceil ? "mxint4:b16:ceil" : "mxint4:b16");
    const Tensor q = values(w, scheme);
    for (const int p : {-12, 3, 20}) CHECK(at::equal(values(w * std::exp2(p), scheme), q * std::exp2(p)));
    const Grid g = fit_grid(w, scheme);
    const Tensor step = g.scale.repeat_interleave(16, 1), off = (w - q).abs() / step;
    const Tensor saturated = w.abs().ge(7.5 * step);
    CHECK(off.masked_fill(saturated, 0).max().item<float>() <= 0.5f);
    CHECK(off.max().item<float>() <= 1.0f);
  }
}

TEST_CASE("zero blocks, dead columns and values that are not finite") {
  Tensor w = at::zeros({2, 32});
  w[0][20] = -3;
  for (const char* text : {"mxint4:b16", "mxint4:b16:ceil", "mxint4:b2x8"}) {
    const Tensor q = values(w, weight(text));
    CHECK(q.ne(0).sum().item<int64_t>() == 1);
    CHECK(q[0][20].item<float>() == -3);
  }
  w[1][1] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_AS(fit_grid(w, weight("mxint4:b16")), Error);
  CHECK_THROWS_AS(fit_grid(w, weight("mxint4:b2x8")), Error);
  CHECK_THROWS_AS(quantize_activation(w, activation("mxint8:b16")), Error);
  CHECK(at::equal(quantize_activation(at::zeros({0, 16}), activation("mxint8:b16")), at::zeros({0, 16})));
}

TEST_CASE("an activation's token is rounded alone, by blocks of its channels") {
  at::manual_seed(5);
  const Tensor x = at::randn({2, 3, 40});
  const Tensor y = quantize_activation(x, activation("mxint8:b16"));
  for (int64_t b = 0; b < 2; ++b)
    for (int64_t t = 0; t < 3; ++t) {
      CHECK(at::equal(y[b][t].narrow(0, 16, 16), by_definition(x[b][t].narrow(0, 16, 16), 8, false)));
      CHECK(at::equal(y[b][t].narrow(0, 32, 8), by_definition(x[b][t].narrow(0, 32, 8), 8, false)));
      CHECK(at::equal(quantize_activation(x[b][t], activation("mxint8:b16")), y[b][t]));
    }
  CHECK(at::equal(quantize_activation(x, activation("mxint8:token"))[1][2], by_definition(x[1][2], 8, false)));
  const c10::AutoGradMode on(true);
  const Tensor leaf = x.clone().requires_grad_(true);
  quantize_activation(leaf, activation("mxint8:b16")).sum().backward();
  CHECK(at::equal(leaf.grad(), at::ones_like(x)));  // straight through
}

TEST_CASE("column solvers round onto steps that are fitted beforehand, in any order, and store no permutation") {
  at::manual_seed(6);
  const Tensor mix = at::randn({70, 70}), x = at::matmul(at::randn({4, 60, 70}), mix), w = at::randn({24, 70});
  Statistics stats;
  stats.add({.hessian = true, .cross = true}, x, x + 0.1 * at::randn_like(x));
  stats.finish();
  const auto error = [&](const QuantizedLinear& l) { return at::matmul(x, (w - l.weight()).t()).norm().item<double>(); };
  for (const char* text : {"mxint3:b16", "mxint3:b16:ceil", "mxint3:b2x16", "mxint3:channel"}) {
    Shared shared;
    Problem p;
    p.place = "w", p.weight = w, p.scheme = weight(text), p.stats = &stats, p.shared = &shared;
    const Grid plain = fit_grid(w, p.scheme);
    const auto check = [&](const auto& solver, double factor) {
      INFO(text << " " << label(solver));
      CHECK(solver.refuses(p.scheme).empty());
      Shared own;
      p.shared = &own;
      const QuantizedLinear l = solver.solve(p).linear;
      CHECK(at::equal(l.grid.scale, plain.scale));
      CHECK(!l.grid.group_of.defined());
      CHECK(!l.permuted);
      CHECK(l.codes.max().item<int>() <= l.grid.highest - l.grid.lowest);
      CHECK(error(l) < factor * error(Direct{}.solve(p).linear));
    };
    check(Gptq{}, 0.8);
    check(Gptq{.order = ColumnOrder::descending}, 0.8);
    check(Gptq{.block = 7}, 0.8);
    check(Gptq{.as_published = true}, 0.8);
    check(Gptaq{}, 1e9);
    check(Gptaq{.block = 7, .order = ColumnOrder::descending, .as_published = true}, 1e9);
    check(Awrq{}, 1e9);
    check(Awrq{.block = 4}, 1e9);
  }
}

TEST_CASE("a block of weights costs one exponent of 8 bits") {
  const Tensor w = at::ones({8, 40});
  const auto bits = [&](const char* text) {
    QuantizedLinear l;
    l.grid = fit_grid(w, weight(text)), l.codes = quantize(w, l.grid);
    return l.bits().total();
  };
  CHECK(bits("mxint4:b16") == 4 * 320 + 8 * 8 * 3);
  CHECK(bits("mxint4:b4x8") == 4 * 320 + 8 * 2 * 5);
  CHECK(bits("mxint4:b3x40") == 4 * 320 + 8 * 3);
  CHECK(bits("mxint2:channel") == 2 * 320 + 8 * 8);
  CHECK(bits("mxint8:tensor") == 8 * 320 + 8);
}

TEST_CASE("fixed point is a grid that no data moves, and a minifloat needs no scale") {
  for (const char* text : {"fixed8:f4", "fixed4:f-2", "fixed8:f7:unsigned", "float8:e4", "float8:e4:bias15", "float16:e5", "float3:e1"}) {
    CHECK(weight(text).text() == text);
    CHECK(weight(text).brief(Role::weight) == text);
    CHECK(activation(text) == weight(text));
  }
  for (const char* text : {"fixed8", "fixed9:f4", "fixed8:f", "fixed8:f99", "fixed8:f4:sym", "float8", "float8:e7", "float17:e5",
                           "float8:e4:bias", "float8:e4:x", "float2:e1"})
    CHECK_THROWS_WITH(weight(text), Catch::Contains("weights"));
  at::manual_seed(7);
  const Tensor w = at::randn({6, 20});
  for (const char* text : {"fixed6:f3", "fixed6:f3:unsigned"}) {
    const Scheme s = weight(text);
    CHECK(at::equal(values(w, s), fixed_point(w, 6, 3, s.symmetric)));
    CHECK(at::equal(quantize_activation(w, s), fixed_point(w, 6, 3, s.symmetric)));
    QuantizedLinear l;
    l.grid = fit_grid(w, s), l.codes = quantize(w, l.grid);
    CHECK(l.bits().total() == 6 * 120);
  }
  CHECK(at::equal(quantize_activation(w, activation("float6:e3")), minifloat(w, 6, 3, 3)));
  CHECK(at::equal(quantize_activation(at::tensor({1.0f / 3, 70000.0f}), activation("float16:e5")),
                  at::tensor({static_cast<float>(c10::Half(1.0f / 3)), 70016.0f})));  // the top exponent is an ordinary one
  CHECK_THROWS_AS(quantize_activation(at::tensor({std::numeric_limits<float>::infinity()}), activation("float8:e4")), Error);
}

TEST_CASE("small floating point formats round to their own values") {
  // 1 sign, 2 exponent, 1 mantissa bit, bias 1: 0, 0.5, 1, 1.5, 2, 3, 4, 6.
  const Tensor x = at::tensor({0.2, 0.26, 0.8, 1.2, 1.9, 2.4, 2.6, 3.9, 5.1, 100.0, -0.3, -7.0}, at::kDouble);
  CHECK(at::equal(minifloat(x, 4, 2, 1), at::tensor({0.0, 0.5, 1.0 - 0.5, 1.0, 1.5, 2.0, 3.0, 3.0, 6.0, 6.0, -0.5, -6.0}, at::kDouble)));
  CHECK(at::equal(fixed_point(at::tensor({0.3, -0.4, 9.0, -9.0}), 4, 2), at::tensor({0.25, -0.5, 1.75, -2.0})));
  CHECK(at::equal(fixed_point(at::tensor({0.3, -0.4, 9.0}), 4, 2, false), at::tensor({0.25, 0.0, 3.75})));
}
