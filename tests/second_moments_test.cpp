// Statistics of the float model that corrections read: from the reference stream, in the basis of a smoothing, and second moments on disk.
#include <ptq/calibration/cache.hpp>
#include <ptq/correction/l2qer.hpp>
#include <ptq/correction/lqer.hpp>
#include <ptq/correction/qera.hpp>
#include <ptq/smoothing/learned_log.hpp>
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

TEST_CASE("behind a shift the float model's statistics are gathered again: those of what the linears read") {
  const c10::NoGradGuard off;
  for (const Family family : {Family::llama, Family::opt}) {
    const Transformer model = tiny_model(family, at::kDouble);
    const Tensor tokens = tiny_tokens();
    ComputedReference reference(model, tokens, 4096);
    const LearnedLog smoothing{.rate = 0};
    const BlockParameters block = model.load(0);
    const Layout& layout = model.layout();
    NamedTensors state = smoothing.start(layout, block, reference.statistics(0));
    for (auto& [name, t] : state)
      if (name.starts_with("d.")) t.add_(0.3 * at::randn(t.sizes(), t.options()));
    const BlockParameters fused = smoothing.fuse(layout, block, state);
    const Needs needs{.absmax = true, .profile = true, .square = true, .hessian = true};
    const auto moved = reference_statistics(model, 0, fused, false, needs, reference, 24);
    // Independently: the inputs of the block as it was, shifted and divided entry by entry.
    std::vector<Tensor> inputs(layout.groups.size());  // (sequences, tokens, width)
    Observer watch(model.config(), block);
    watch.on_input = [&](int group, const Tensor& x) { inputs[static_cast<size_t>(group)] = x.clone(); };
    (void)model.forward(0, reference.input(0), watch);
    size_t shifted = 0;
    for (size_t g = 0; g < layout.groups.size(); ++g) {
      INFO(name(family) << " " << layout.groups[g].name);
      const FoldSite* fold = fold_of(layout, g);
      Tensor x = inputs[g];
      const auto part = [&](const char* kind) {
        const auto found = state.find(kind + layout.groups[g].name);
        return found == state.end() ? Tensor() : spread_heads(found->second, fold->repeat, fold->head, layout.groups[g].width);
      };
      if (const Tensor d = part("d."); d.defined()) x = x - d, ++shifted;
      if (const Tensor s = part("s."); s.defined()) x = x / s;
      const Tensor flat = x.reshape({-1, x.size(2)});  // (tokens, width)
      CHECK(at::allclose(moved[g].absmax, flat.abs().amax(0), 1e-9));
      CHECK(at::allclose(moved[g].profile, x.abs().sum(1), 1e-9));
      CHECK(at::allclose(moved[g].square, flat.square().sum(0), 1e-9));
      CHECK(at::allclose(moved[g].hessian, at::mm(flat.t(), flat), 1e-9, 1e-9));
    }
    CHECK(shifted == 3);
    // And so through the walk: the factors of QERA behind the shift are those fitted to these inputs.
    Recipe<Nearest, LearnedLog, Mse, Direct, Qera> recipe{.smoothing = smoothing, .correction = {.rank = 2, .whole = true}};
    const Precision precision = formats("int3", "none");
    const Kept kept = walk(model, stages(recipe), precision, tokens);
    const NamedTensors plain = smoothing.start(layout, block, reference.statistics(0));
    const BlockParameters there = smoothing.fuse(layout, block, plain);
    for (size_t i = 0; i < layout.sites.size(); ++i) {
      const auto g = static_cast<size_t>(layout.sites[i].group);
      const auto part = [&](const char* kind) {
        const auto found = plain.find(kind + layout.groups[g].name);
        const FoldSite* fold = fold_of(layout, g);
        return found == plain.end() ? Tensor() : spread_heads(found->second, fold->repeat, fold->head, layout.groups[g].width);
      };
      Tensor x = inputs[g].reshape({-1, inputs[g].size(2)});
      if (const Tensor d = part("d."); d.defined()) x = x - d;
      if (const Tensor s = part("s."); s.defined()) x = x / s;
      const QuantizedLinear& l = kept.blocks[0].linears[i];
      const Tensor error = there.linears[i].weight - l.weight();  // (out, in)
      // The least E‖x (E − A B)ᵀ‖² of rank 2 is what the third singular value and those after it leave of x Eᵀ.
      const Tensor values = at::linalg_svdvals(at::mm(x, error.t()));
      const double least = values.narrow(0, 2, values.size(0) - 2).norm().item<double>();
      const double mine = at::mm(x, error.t() - at::mm(l.correction.a, l.correction.b)).norm().item<double>();
      CHECK(mine == Approx(least).epsilon(1e-6));
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
