// Statistics of the float model that corrections read: from the reference stream, in the basis of a smoothing, and second moments on disk.
#include <ptq/calibration/cache.hpp>
#include <ptq/correction/l2qer.hpp>
#include <ptq/correction/lqer.hpp>
#include <ptq/correction/qera.hpp>
#include <ptq/smoothing/smoothquant.hpp>

#include "catch.hpp"
#include "temporary_folder.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;

TEST_CASE("second moments are computed once and then read from their file") {
  const c10::NoGradGuard off;
  const TemporaryFolder folder("moments");
  const Transformer model = tiny_model(Family::llama);
  const Tensor tokens = tiny_tokens();
  CachedReference first(folder.path, {"model", "tokenizer", "sampling", "f32", "here"}, model, tokens, 4096);
  const Needs needs{.square = true, .hessian = true};
  const auto made = reference_statistics(model, 1, model.load(1), true, needs, first, 4096);
  const auto seen = observe(model, 1, model.load(1), first.input(1), needs, {}, 4096);
  for (size_t g = 0; g < made.size(); ++g) {
    CHECK(at::equal(made[g].hessian, seen[g].hessian));
    CHECK(at::equal(made[g].square, seen[g].square));
    CHECK(at::allclose(made[g].square, made[g].hessian.diagonal().to(at::kDouble), 1e-5));
  }
  CachedReference second(folder.path, {"model", "tokenizer", "sampling", "f32", "here"}, model, tokens, 4096);
  CHECK(second.found());
  const auto read = second.second_moments(1, []() -> std::vector<Tensor> { fail("they are on disk"); });
  for (size_t g = 0; g < read.size(); ++g) CHECK(at::equal(read[g], made[g].hessian));
  int asked = 0;
  (void)second.second_moments(0, [&] {
    ++asked;
    return read;
  });
  CHECK(asked == 1);
  CachedReference other(folder.path, {"another model", "tokenizer", "sampling", "f32", "here"}, model, tokens, 4096);
  CHECK_THROWS_WITH(other.second_moments(1, []() -> std::vector<Tensor> { fail("not here"); }), Catch::Contains("not here"));
}

TEST_CASE("behind a smoothing the float model's statistics are those of the divided inputs") {
  const c10::NoGradGuard off;
  for (const Family family : {Family::llama, Family::opt}) {
    const Transformer model = tiny_model(family, at::kDouble);
    const Tensor tokens = tiny_tokens();
    ComputedReference reference(model, tokens, 4096);
    const SmoothQuant smoothing{.sites = SmoothSites::all, .fold = false};
    const BlockParameters block = model.load(0);
    const NamedTensors state = smoothing.start(model.layout(), block, reference.statistics(0));
    const BlockParameters fused = smoothing.fuse(model.layout(), block, state);
    const Needs needs{.profile = true, .square = true, .hessian = true};
    const auto plain = reference_statistics(model, 0, block, true, needs, reference, 4096);
    const auto moved = reference_statistics(model, 0, fused, false, needs, reference, 4096);
    for (size_t g = 0; g < plain.size(); ++g) {
      const auto s = state.find("s." + model.layout().groups[g].name);
      REQUIRE(s != state.end());
      CHECK(at::allclose(moved[g].profile, plain[g].profile / s->second, 1e-9));
      CHECK(at::allclose(moved[g].square, plain[g].square / s->second.square(), 1e-9));
      CHECK(at::allclose(moved[g].hessian, plain[g].hessian / at::outer(s->second, s->second), 1e-9, 1e-12));
    }
  }
}

TEST_CASE("on the tokens it was fitted to, exact QERA has the least output error of all corrections") {
  const c10::NoGradGuard off;
  for (const Family family : {Family::llama, Family::opt})
    for (const char* format : {"mxint3:b16", "int3"}) {
      const Transformer model = tiny_model(family, at::kDouble);
      const Tensor tokens = tiny_tokens(), x = model.embed(tokens);
      const BlockParameters block = model.load(0);
      const Needs needs{.absmax = true, .extent = true, .profile = true, .square = true, .hessian = true};
      const auto stats = observe(model, 0, block, x, needs, {}, 4096);
      for (size_t i = 0; i < block.linears.size(); ++i) {
        const Statistics& seen = stats[static_cast<size_t>(model.layout().sites[i].group)];
        const Tensor& w = block.linears[i].weight;
        Shared shared;
        const Residual residual{"layer", w - fake_quantize(w, fit_grid(w, weights(format))), &seen, &shared, {}};
        const auto error = [&](const auto& p) {
          const LowRank f = p.fit(residual);
          const Tensor left = residual.error - at::mm(f.a, f.b).t();
          return (at::mm(left, seen.hessian) * left).sum().template item<double>();
        };
        const double exact = error(Qera{.rank = 4});
        CHECK(exact <= error(Qera{.rank = 4, .form = QeraForm::approximate}) * (1 + 1e-9));
        CHECK(exact <= error(L2qer{.rank = 4}) * (1 + 1e-9));
        CHECK(exact <= error(Lqer{.rank = 4}) * (1 + 1e-9));
        CHECK(exact < (residual.error.matmul(seen.hessian) * residual.error).sum().item<double>());
      }
    }
}
