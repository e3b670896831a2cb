// Rounding of activations: what one token may owe to others, how far values move, what a block rounds and what it leaves alone.
#include <ptq/loss/nlc.hpp>
#include <ptq/loss/sum.hpp>
#include <ptq/quantize.hpp>
#include <ptq/rounding/learned_clip.hpp>
#include <ptq/smoothing/learned_log.hpp>

#include <map>
#include <set>

#include "catch.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

/// Codes of a format of tokens: which of its levels each value took, up to the level of zero. x (tokens, n).
Tensor levels(const Tensor& x, const Scheme& scheme) {
  Scheme rows = scheme;
  rows.granularity = Granularity::channel;
  return quantize(x, fit_grid(x, rows));
}

/// The formats of LRQuant's experiments: every linear's input and q, k, v of attention.
Precision four_bits(const char* weight = "int4:channel:range=omni") {
  Precision p = formats(weight, "int4:token");
  for (const auto which : {Operand::query, Operand::key, Operand::value}) p.attention[static_cast<size_t>(which)] = p.activations;
  return p;
}

/// Counts what the formats of a block change: inputs of linears by site, operands of attention.
struct Counter : FormatOperators {
  using FormatOperators::FormatOperators;
  std::map<int, int> rounded_inputs;   // by site
  std::map<int, int> rounded, passed;  // operands
  int group = -1;
  bool changed = false;

  Tensor input(int g, const Tensor& x) override {
    const Tensor y = FormatOperators::input(g, x);
    group = g, changed = !at::equal(x, y);
    return y;
  }
  Tensor linear(int site, const Tensor& x) override {
    rounded_inputs[site] += changed;
    return FormatOperators::linear(site, x);
  }
  Tensor operand(Operand which, const Tensor& t) override {
    const Tensor y = FormatOperators::operand(which, t);
    ++(at::equal(t, y) ? passed : rounded)[static_cast<int>(which)];
    return y;
  }
};

}  // namespace

TEST_CASE("a value within its token's range moves by half a step at most, in constant and one-signed tokens too") {
  at::manual_seed(1);
  Tensor x = at::randn({9, 32}, at::kDouble);
  x[1] = x[1].abs(), x[2] = -x[2].abs(), x[3].fill_(0.37), x[4].fill_(-2.5), x[5].zero_(), x[6] *= 1e-4, x[7] *= 1e4, x[8] = x[8].abs() + 5;
  for (const char* text : {"int4:token", "int8:token", "int3:token:range=flexround_activation", "int8:token:range=flexround_activation"}) {
    INFO(text);
    const Scheme scheme = activations(text);
    Tensor y = quantize_activation(x, scheme);
    CHECK(at::isfinite(y).all().item<bool>());
    // OmniQuant's range has no zero of its own: a token of one value has a step at its floor and a zero point beyond 10⁴, where that stops.
    if (scheme.range == Range::omni) y = y.clone(), y.narrow(0, 3, 2).copy_(x.narrow(0, 3, 2));
    Scheme rows = scheme;
    rows.granularity = Granularity::channel;
    const Tensor step = fit_grid(x, rows).scale;                 // (tokens, 1)
    const Tensor low = x.amin(1, true), high = x.amax(1, true);  // (tokens, 1)
    const Tensor width = (high.clamp_min(0) - low.clamp_max(0)) / ((1 << scheme.bits) - 1);
    CHECK((step <= width * (1 + 1e-9) + 1.01e-5).all().item<bool>());  // the floor of a step
    // The zero point is rounded, so an end of the range may lie half a step outside the codes.
    const Tensor inside = (x - low > step / 2) & (high - x > step / 2) | (x.eq(low) & low.eq(high));
    CHECK(((y - x).abs() <= step / 2 * (1 + 1e-9)).masked_select(inside).all().item<bool>());
    CHECK(((y - x).abs() <= step * (1 + 1e-9)).all().item<bool>());
    CHECK(y[5].eq(0).all().item<bool>());
  }
}

TEST_CASE("the worked token: zero points to the even number, asymmetric and symmetric") {
  const Tensor x = at::tensor({0.2, -3.0, 7.0, 1.1}).view({1, 4});
  CHECK(at::equal(levels(x, activations("int4:token")), at::tensor({4, 0, 14, 6}).view({1, 4}).to(at::kByte)));
  CHECK(at::allclose(quantize_activation(x, activations("int4:token")), at::tensor({0.0, -8.0 / 3, 20.0 / 3, 4.0 / 3}).view({1, 4}), 1e-14,
                     1e-14));
  CHECK(at::equal(quantize_activation(x, activations("int4:token:sym")), at::tensor({0.0, -3.0, 7.0, 1.0}).view({1, 4})));
}

TEST_CASE("a token's codes depend on no other token, and not on its own scale") {
  at::manual_seed(2);
  const Tensor x = at::randn({2, 7, 24});
  for (const char* text :
       {"int4:token", "int8:token", "int4:token:sym", "int6:token:range=flexround_activation", "mxint8:b16", "float8:e4:token"}) {
    INFO(text);
    const Scheme scheme = activations(text);
    const Tensor y = quantize_activation(x, scheme);
    Tensor other = x.clone();
    other[1][3] = 100 * at::randn({24});
    const Tensor z = quantize_activation(other, scheme);
    CHECK(!at::equal(y[1][3], z[1][3]));
    for (int64_t b = 0; b < 2; ++b)
      for (int64_t t = 0; t < 7; ++t)
        if (b != 1 || t != 3) CHECK(at::equal(y[b][t], z[b][t]));
  }
  for (const char* text : {"int4:token", "int8:token", "int4:token:sym"}) {
    INFO(text);
    const Tensor flat = x.view({14, 24}).to(at::kDouble);
    CHECK(at::equal(levels(flat, activations(text)), levels(10 * flat, activations(text))));
  }
}

TEST_CASE("one range a head where attention rounds its operands, one a token where projections round their outputs") {
  for (const Family family : {Family::llama, Family::opt}) {
    INFO(name(family));
    const Transformer model = tiny_model(family);
    const Layout& layout = model.layout();
    BlockParameters plain = model.load(0), loud = model.load(0);  // in the latter head 0 of v is a hundred times as large
    const auto v = static_cast<size_t>(layout.value);
    loud.linears[v].weight = loud.linears[v].weight.clone();
    loud.linears[v].weight.narrow(0, 0, 8).mul_(100);
    const Tensor x = model.embed(tiny_tokens(1, 12));
    struct Values : FormatOperators {
      using FormatOperators::FormatOperators;
      Tensor value;  // (1, heads, tokens, head), as attention multiplies it
      Tensor operand(Operand which, const Tensor& t) override {
        const Tensor y = FormatOperators::operand(which, t);
        if (which == Operand::value) value = y;
        return y;
      }
      [[nodiscard]] bool operands_pass() const override { return false; }
    };
    const auto second_head = [&](const BlockParameters& block, const Precision& precision) {
      const Formats formats = formats_of(precision, layout, 0);
      Values ops(model.config(), block, formats);
      (void)model.forward(0, x, ops);
      return ops.value.select(1, 1).clone();
    };
    Precision by_head, by_token;
    by_head.attention[static_cast<size_t>(Operand::value)] = activations("int4:token");
    by_token.outputs.emplace_back("v_proj", activations("int4:token"));
    CHECK(!at::equal(second_head(plain, by_head), second_head(plain, {})));
    CHECK(at::equal(second_head(plain, by_head), second_head(loud, by_head)));
    CHECK(at::equal(second_head(plain, {}), second_head(loud, {})));
    CHECK(!at::equal(second_head(plain, by_token), second_head(loud, by_token)));
  }
}

TEST_CASE("a block rounds the inputs of all its linears and q, k, v, and never the probabilities; without formats nothing") {
  for (const Family family : {Family::llama, Family::opt}) {
    INFO(name(family));
    const Transformer model = tiny_model(family);
    const auto count = [&](const Precision& precision) {
      const Formats formats = formats_of(precision, model.layout(), 0);
      Counter ops(model.config(), model.load(0), formats);
      (void)model.forward(0, model.embed(tiny_tokens(1, 12)), ops);
      return ops;
    };
    const Counter c = count(four_bits());
    int inputs = 0;
    for (const auto& [site, times] : c.rounded_inputs) inputs += times;
    CHECK(inputs == (family == Family::llama ? 7 : 6));
    CHECK(c.rounded_inputs.size() == static_cast<size_t>(inputs));
    CHECK(c.rounded == std::map<int, int>{{static_cast<int>(Operand::query), 1},
                                          {static_cast<int>(Operand::key), 1},
                                          {static_cast<int>(Operand::value), 1}});
    CHECK(c.passed == std::map<int, int>{{static_cast<int>(Operand::probability), 1}});
    const Counter none = count(formats("int4"));
    for (const auto& [site, times] : none.rounded_inputs) CHECK(times == 0);
    CHECK(none.rounded.empty());
  }
  const Tensor x = at::randn({2, 3, 8});
  CHECK(quantize_activation(x, Scheme{}).is_same(x));  // sixteen bits and more are no format
}

TEST_CASE("activations stay asymmetric beside symmetric weights") {
  const Precision p = four_bits("int4:channel:sym:range=omni");
  CHECK(p.weights.symmetric);
  CHECK(!p.activations.symmetric);
  const Tensor x = at::rand({3, 16}) + 0.5;  // positive: a symmetric grid would leave half of its levels unused
  const Tensor y = Format{p.activations, {}}(x);
  const Tensor codes = levels(x, p.activations).reshape({-1});
  CHECK(std::set<uint8_t>(codes.const_data_ptr<uint8_t>(), codes.const_data_ptr<uint8_t>() + codes.numel()).size() > 8);
  CHECK((y - x).abs().max().item<double>() < 1.5 / 15);
}
