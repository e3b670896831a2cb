// The worked example of docs/adding_a_policy.md: a smoothing in one header, composed, swept and walked like every member.
#include <ptq/methods.hpp>
#include <ptq/quantize.hpp>
#include <ptq/sweep.hpp>

#include "catch.hpp"
#include "examples/equalize.hpp"
#include "models.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;

static_assert(Smoothing<Equalize> && !Rounding<Equalize> && !Loss<Equalize> && !Solver<Equalize> && !Correction<Equalize>);

namespace {

BlockParameters equalized(const Equalize& p, const Layout& layout, const BlockParameters& block) {
  return p.fuse(layout, block, p.start(layout, block, {}));
}

Tensor output(const Transformer& model, const BlockParameters& block, const Tensor& x) {
  FloatOperators ops(model.config(), block);
  return model.forward(0, x, ops);
}

double range(const Tensor& w) { return w.abs().max().item<double>(); }

}  // namespace

TEST_CASE("a row and the columns that read it meet in the middle") {
  const Transformer model = tiny_model(Family::llama, at::kDouble);  // 4 query heads of 8 on 2 value heads
  const Layout& layout = model.layout();
  const BlockParameters before = model.load(0), after = equalized({}, layout, before);
  const auto weight = [&](const BlockParameters& b, const char* name) { return b.linears[static_cast<size_t>(layout.site(name))].weight; };
  for (int64_t j = 0; j < 48; ++j) {  // up → down: one row, one column
    const double r = range(weight(before, "mlp.up_proj")[j]), c = range(weight(before, "mlp.down_proj").select(1, j));
    CHECK(range(weight(after, "mlp.up_proj")[j]) == Approx(std::sqrt(r * c)));
    CHECK(range(weight(after, "mlp.down_proj").select(1, j)) == Approx(std::sqrt(r * c)));
  }
  for (int64_t v = 0; v < 16; ++v) {  // v → o: value channel v is read by two query heads
    const int64_t head = v / 8, first = head * 16 + v % 8;
    const auto columns = [&](const BlockParameters& b) {
      const Tensor o = weight(b, "self_attn.o_proj");
      return std::max(range(o.select(1, first)), range(o.select(1, first + 8)));
    };
    const double r = range(weight(before, "self_attn.v_proj")[v]), c = columns(before);
    CHECK(range(weight(after, "self_attn.v_proj")[v]) == Approx(std::sqrt(r * c)));
    CHECK(columns(after) == Approx(std::sqrt(r * c)));
  }
  CHECK(at::equal(weight(after, "self_attn.q_proj"), weight(before, "self_attn.q_proj")));
}

TEST_CASE("equalization leaves the float output of a block where it was") {
  for (const Family family : {Family::llama, Family::opt}) {
    const Transformer model = tiny_model(family, at::kDouble);
    const Tensor x = model.embed(tiny_tokens());
    for (const double exponent : {0.0, 0.5, 1.0}) {
      const BlockParameters fused = equalized({.exponent = exponent}, model.layout(), model.load(0));
      CHECK(greatest_error(output(model, fused, x), output(model, model.load(0), x)) < 1e-12);
    }
  }
}

TEST_CASE("dead rows and columns get finite, positive factors") {
  const Transformer model = tiny_model(Family::llama, at::kDouble);
  BlockParameters block = model.load(0);
  const auto up = static_cast<size_t>(model.layout().site("mlp.up_proj")), down = static_cast<size_t>(model.layout().site("mlp.down_proj"));
  block.linears[up].weight = block.linears[up].weight.clone(), block.linears[down].weight = block.linears[down].weight.clone();
  block.linears[up].weight[1].zero_(), block.linears[up].weight[2].zero_();
  block.linears[down].weight.select(1, 2).zero_(), block.linears[down].weight.select(1, 3).zero_();
  for (const auto& [name, s] : Equalize{}.start(model.layout(), block, {})) {
    INFO(name);
    CHECK(at::isfinite(s).all().item<bool>());
    CHECK(s.gt(0).all().item<bool>());
  }
}

TEST_CASE("one scale for a whole matrix loses less after equalization") {
  const Transformer model = tiny_model(Family::llama);
  const Layout& layout = model.layout();
  BlockParameters block = model.load(0);
  Tensor& up = block.linears[static_cast<size_t>(layout.site("mlp.up_proj"))].weight;
  Tensor& down = block.linears[static_cast<size_t>(layout.site("mlp.down_proj"))].weight;
  up = up.clone(), down = down.clone();
  up[7].mul_(50), down.select(1, 7).div_(50);  // the same function, one row far out
  const Tensor x = model.embed(tiny_tokens()), exact = output(model, block, x);
  const auto error = [&](BlockParameters b) {
    for (LinearParameters& l : b.linears) l.weight = fake_quantize(l.weight, fit_grid(l.weight, weights("int6:tensor")));
    return relative_error(output(model, b, x), exact);
  };
  CHECK(error(equalized({}, layout, block)) < 0.5 * error(block));
}

TEST_CASE("a new policy composes, has a label and options, and can be refused") {
  // [compose]
  Recipe<Nearest, Equalize, Mse, Gptq> mine{.smoothing = {.exponent = 0.4}};
  CHECK(label(mine) == "equalize(exponent=0.4) + gptq");
  CHECK(refuses(mine, formats("int4")).empty());

  for (Field& field : describe(mine))
    if (field.path == "smoothing.exponent") field.set("2");  // what --smoothing.exponent 2 does
  CHECK(refuses(mine, formats("int4")) == "smoothing.exponent must lie in [0, 1], it is 2");
  // [/compose]
}

TEST_CASE("a new policy is swept and quantizes every block") {
  const Transformer model = tiny_model(Family::llama);
  const Tensor tokens = tiny_tokens();
  // [sweep]
  const auto grid = sweep(axis(Nearest{}), axis(NoSmoothing{}, Equalize{}), axis(Mse{}), axis(Direct{}, Gptq{}));
  std::map<std::string, double> errors;
  const SweepCount count = grid.for_each(formats("int4"), [&](const auto& recipe) {
    errors[label(recipe)] = walk(model, stages(recipe), formats("int4"), tokens).reports.back().error;
  });
  CHECK(count.run == 4);  // rtn, gptq, equalize, equalize + gptq
  // [/sweep]
  CHECK(errors.size() == 4);
  for (const auto& [name, error] : errors) {
    INFO(name);
    CHECK(error > 0);
    CHECK(error < 1);
  }
  CHECK(errors.at("equalize + gptq") != errors.at("gptq"));
}
