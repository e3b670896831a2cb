// What solvers are told about the inputs of a block, against direct formulas on the inputs themselves.
#include <ptq/quantize/observe.hpp>

#include <limits>

#include "catch.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;
using Catch::Matchers::ContainsSubstring;

namespace {

/// The inputs of every group in one forward of all sequences.
struct Recorded : FloatOperators {
  using FloatOperators::FloatOperators;
  std::vector<Tensor> inputs = std::vector<Tensor>(4);
  Tensor input(int group, const Tensor& x) override { return inputs[static_cast<size_t>(group)] = FloatOperators::input(group, x); }
};

std::vector<Tensor> inputs(const Transformer& model, const BlockParameters& block, const Tensor& x) {
  Recorded ops(model.config(), block);
  (void)model.forward(0, x, ops);
  return ops.inputs;
}

Tensor flat(const Tensor& x) { return x.reshape({-1, x.size(-1)}); }

bool near(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>() <= 1e-10 * b.abs().max().item<double>(); }

constexpr Needs everything{.absmax = true, .extent = true, .profile = true, .square = true, .hessian = true, .cross = true};

}  // namespace

TEST_CASE("plain statistics are sums and extremes over the inputs, whatever the batch") {
  for (const Family family : {Family::llama, Family::opt}) {
    const Transformer model = tiny_model(family, at::kDouble);
    const Tensor x = model.embed(tiny_tokens(5, 12));
    const BlockParameters block = model.load(0);
    const auto seen = inputs(model, block, x);
    for (const int64_t batch : {1, 24, 4096}) {
      const auto stats =
          observe(model, 0, block, x, {.absmax = true, .extent = true, .middle = true, .profile = true, .square = true, .hessian = true},
                  {}, batch);
      for (size_t g = 0; g < 4; ++g) {
        const Tensor t = flat(seen[g]);
        CHECK(near(stats[g].hessian, at::mm(t.t(), t)));
        CHECK(near(stats[g].absmax, t.abs().amax(0)));
        CHECK(near(stats[g].low, t.amin(0)));
        CHECK(near(stats[g].high, t.amax(0)));
        CHECK(near(stats[g].profile, seen[g].abs().sum(1)));
        CHECK(near(stats[g].square, t.square().sum(0)));
        Tensor weights = at::tensor({0.99 * 0.99 * 0.99 * 0.99, 0.99 * 0.99 * 0.99 * 0.01, 0.99 * 0.99 * 0.01, 0.99 * 0.01, 0.01});
        CHECK(near(stats[g].middle, at::mv(((seen[g].amax(1) + seen[g].amin(1)) / 2).t(), weights)));
        CHECK(stats[g].sequences == 5);
        CHECK(stats[g].tokens == 60);
        CHECK(!stats[g].cross.defined());
      }
    }
  }
}

TEST_CASE("rounded statistics compare inputs in their activation format with inputs before it") {
  const Transformer model = tiny_model(Family::llama, at::kDouble);
  const Tensor x = model.embed(tiny_tokens(3, 12));
  const BlockParameters block = model.load(0);
  const auto seen = inputs(model, block, x);
  for (const char* text : {"int4:tensor", "int6"}) {  // a range a sequence; a range a token
    INFO(text);
    const Formats formats = formats_of(test::formats("int4", text), model.layout(), 0);
    const auto stats = observe(model, 0, block, x, everything, {Observed::rounded, &formats}, 24);
    for (size_t g = 0; g < 4; ++g) {
      Tensor h, d;
      for (int64_t i = 0; i < 3; ++i) {
        const Tensor one = flat(seen[g][i]), rounded = flat(quantize_activation(seen[g].narrow(0, i, 1), activations(text)));
        const Tensor hi = at::mm(rounded.t(), rounded), di = at::mm((one - rounded).t(), rounded);
        h = h.defined() ? h + hi : hi, d = d.defined() ? d + di : di;
      }
      CHECK(near(stats[g].hessian, h));
      CHECK(near(stats[g].cross, d));
      CHECK(stats[g].cross.abs().max().item<double>() > 0);
    }
  }
}

TEST_CASE("without activation formats rounded sums are the plain ones, to the last bit") {  // so AWRQ's codes are GPTQ's on ties, too
  const Transformer model = tiny_model(Family::llama);
  const Tensor x = model.embed(tiny_tokens(8, 40));
  const BlockParameters block = model.load(0);
  const Formats none = formats_of({}, model.layout(), 0);
  Observation how;
  how.form = Observed::rounded, how.formats = &none;
  const auto plain = observe(model, 0, block, x, {.hessian = true}, {}, 4096);
  const auto rounded = observe(model, 0, block, x, {.hessian = true, .cross = true}, how, 4096);
  for (size_t g = 0; g < plain.size(); ++g) {
    CHECK(at::equal(rounded[g].hessian, plain[g].hessian));
    CHECK(rounded[g].sequences == 8);
    CHECK_FALSE(rounded[g].cross.any().item<bool>());
  }
}

TEST_CASE("paired statistics compare the quantized stream's inputs with the float model's") {
  const Transformer model = tiny_model(Family::opt, at::kDouble);
  const Tensor x = model.embed(tiny_tokens(3, 12)), xq = x + 0.05 * at::sin(10 * x);
  const BlockParameters block = model.load(0);
  BlockParameters work = block;
  for (LinearParameters& l : work.linears) l.weight = fake_quantize(l.weight, fit_grid(l.weight, weights("int4")));
  const auto reference = inputs(model, block, x), seen = inputs(model, work, xq);
  Observation how{Observed::paired};
  how.reference = &block, how.reference_input = x;
  for (const int64_t batch : {12, 4096}) {
    const auto stats = observe(model, 0, work, xq, everything, how, batch);
    for (size_t g = 0; g < 4; ++g) {
      const Tensor a = flat(reference[g]), b = flat(seen[g]);
      CHECK(near(stats[g].hessian, at::mm(b.t(), b)));
      CHECK(near(stats[g].cross, at::mm((a - b).t(), b)));
    }
  }
}

TEST_CASE("one group alone can be observed") {
  const Transformer model = tiny_model(Family::llama, at::kDouble);
  const Tensor x = model.embed(tiny_tokens());
  const BlockParameters block = model.load(0);
  const auto all = observe(model, 0, block, x, {.hessian = true}, {}, 4096),
             one = observe(model, 0, block, x, {.hessian = true}, {}, 4096, 2);
  CHECK(at::equal(one[2].hessian, all[2].hessian));
  for (const size_t g : {0, 1, 3}) CHECK(one[g].tokens == 0);
}

TEST_CASE("an input that is not a number is an error that names the block and the inputs") {
  const Transformer model = tiny_model(Family::llama);
  Tensor x = model.embed(tiny_tokens()).clone();
  x[0][3][1] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(observe(model, 1, model.load(1), x, {.hessian = true}, {}, 4096),
                    ContainsSubstring("block 1") && ContainsSubstring("attention_in") && ContainsSubstring("NaN"));
}

TEST_CASE("static grids hold the range over all batches of the inputs and outputs they stand for") {
  const Transformer model = tiny_model(Family::llama, at::kDouble);
  const Tensor x = model.embed(tiny_tokens(4, 12));
  Precision p = test::formats("int4", "int8:static");
  p.outputs.emplace_back("v_proj", activations("int6:static:sym"));
  Formats formats = formats_of(p, model.layout(), 0);
  CHECK(has_static(formats));
  const BlockParameters block = model.load(0);
  set_static_grids(formats, model, 0, block, x, 12);
  const auto seen = inputs(model, block, x);
  for (size_t g = 0; g < 4; ++g) {
    const double low = seen[g].min().item<double>(), high = seen[g].max().item<double>();
    CHECK(formats.inputs[g].fixed.scale.item<double>() == Approx((high - low) / 255));
    CHECK(formats.inputs[g].fixed.zero.item<int>() ==
          static_cast<int>(std::nearbyint(-low / formats.inputs[g].fixed.scale.item<double>())));
  }
  const Tensor v = at::matmul(seen[0], block.linears[2].weight.t());
  CHECK(formats.outputs[2].fixed.scale.item<double>() == Approx(v.abs().max().item<double>() / 31));
}
