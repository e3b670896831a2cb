// Laws of losses and adaptations, on every member; and null policies are the absence of their axis.
#include <ptq/quantize.hpp>

#include "catch.hpp"
#include "lists.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;

TEMPLATE_LIST_TEST_CASE("a loss is a finite scalar that autograd can follow, smallest where nothing is off", "[laws]", Losses) {
  for (const TestType& loss : Variants<TestType>::all())
    for (const auto dtype : {at::kFloat, at::kDouble}) {
      INFO(label(loss) << " " << c10::toString(dtype));
      at::manual_seed(3);
      const Tensor target = at::randn({2, 5, 8}, dtype);
      const Tensor off = (target + 0.1 * at::randn_like(target)).detach();
      const c10::AutoGradMode on(true);
      const Tensor leaf = off.clone().requires_grad_(true), value = loss(target, leaf);
      CHECK(value.dim() == 0);
      CHECK(value.scalar_type() == dtype);
      value.backward();
      CHECK(at::isfinite(leaf.grad()).all().item<bool>());
      CHECK(leaf.grad().abs().sum().item<double>() > 0);
      const double at_target = loss(target, target).template item<double>();
      CHECK(at_target < value.template item<double>());
      CHECK(loss(target, (target + 2 * (off - target))).template item<double>() > value.template item<double>());
      for (const Tensor& hostile : {at::zeros_like(target), 1e4 * target, 1e-4 * target})
        CHECK(std::isfinite(loss(target, hostile).template item<double>()));
      // Twice the tokens, each as wrong: a mean stays, a sum doubles.
      const double twice = loss(at::cat({target, target}, 1), at::cat({off, off}, 1)).template item<double>();
      CHECK(twice == Approx((loss.averages() ? 1 : 2) * value.template item<double>()).epsilon(1e-5).margin(1e-6));
    }
}

TEST_CASE("the mean squared error is what its formula says", "[laws]") {
  const Tensor f = at::tensor({1.0, 2.0, 3.0, 4.0, 5.0, 6.0}).view({1, 3, 2}),
               q = f + at::tensor({0.0, 1.0, 0.0, -2.0, 0.0, 3.0}).view({1, 3, 2});
  CHECK(Mse{Reduce::mean}(f, q).item<double>() == Approx(14.0 / 6));
  CHECK(Mse{Reduce::sum}(f, q).item<double>() == Approx(14.0 / 2));
  CHECK(Mse{}(f, f).item<double>() == 0);
}

TEMPLATE_LIST_TEST_CASE("an adaptation that sees nothing makes no steps", "[laws]", Adaptations) {
  for (const TestType& p : Variants<TestType>::all())
    if (p.scope() == AdaptationScope::nothing) CHECK(p.steps() == 0);
}

TEST_CASE("null policies are bit for bit the absence of their axis", "[laws]") {
  const c10::NoGradGuard off;
  for (const Family family : {Family::llama, Family::opt})
    for (const char* format : {"int4", "int3:g8:sym", "none"}) {
      INFO(name(family) << " " << format);
      const Transformer model = tiny_model(family);
      const Tensor tokens = tiny_tokens();
      const Kept kept = walk(model, stages(Recipe<>{}), formats(format), tokens);
      Tensor x = model.embed(tokens);  // the walk written out without any policy
      for (int64_t b = 0; b < model.blocks(); ++b) {
        const QuantizedBlock& done = kept.blocks.at(static_cast<size_t>(b));
        BlockParameters plain = model.load(b);
        for (size_t i = 0; i < plain.linears.size(); ++i) {
          Tensor& w = plain.linears[i].weight;
          if (weights(format).active()) w = fake_quantize(w, fit_grid(w, weights(format)));
          CHECK(at::equal(done.linears[i].effective_weight(), w));
          CHECK(!done.linears[i].correction.defined());
        }
        for (size_t i = 0; i < plain.norms.size(); ++i) CHECK(at::equal(done.norms[i].weight, plain.norms[i].weight));
        for (const Tensor& t : done.input_scale) CHECK(!t.defined());
        CHECK(done.state.empty());
        FloatOperators ops(model.config(), plain);
        x = model.forward(b, x, ops);
        CHECK(at::equal(kept.streams[static_cast<size_t>(b)], x));
      }
    }
}
