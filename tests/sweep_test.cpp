// Sweeps: every entry runs, or is counted with its reason; everything that exists runs on a tiny model.
#include <ptq/sweep.hpp>

#include <set>

#include <ptq/quantize.hpp>

#include "catch.hpp"
#include "lists.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;

TEST_CASE("a sweep runs what composes once and counts the rest by reason") {
  const auto all = sweep(axis(Nearest{}, ToyDivisor{}, ToyClip{}), axis(NoSmoothing{}, SmoothQuant{}), axis(Mse{}, Mse{Reduce::sum}),
                         axis(Direct{}, Gptq{}, ToyCodebook{}), axis(NoCorrection{}), axis(NoAdaptation{}, ToyTta{}, ToyEpisodic{}));
  std::set<std::string> labels;
  const SweepCount count = all.for_each(formats("int4"), [&](const auto& recipe) { labels.insert(label(recipe)); });
  CHECK(count.total() == 3 * 2 * 2 * 3 * 1 * 3);
  CHECK(count.ill_formed == 2 * 2 * 3 + 3 * 2 * 2);  // clip and codebook; one segment's Hessian
  // Learned: 2 smoothings, 2 losses, 5 of solver and adaptation, 3 more with a codebook that does not read the rounding.
  // Not learned: one loss, or two where an adaptation is judged by it; adaptations need a solver that looks at data.
  CHECK(count.run == 2 * 2 * 5 + 2 * (3 + 2 + 2 * 2));
  CHECK(count.dropped.at("a rounding that the solver, with levels of its own, does not read") == 2 * 2 * 3);
  CHECK(count.dropped.at("a loss where nothing is learned") == 2 * (3 + 2));
  CHECK(count.dropped.at("an adaptation where nothing is learned and neither solver nor correction needs data") == 2 * 2 * (4 + 2));
  CHECK(count.dropped.size() == 3);
  CHECK(static_cast<int64_t>(labels.size()) == count.run);
}

TEST_CASE("entries that are refused at a precision, or described like another, are counted") {
  const auto all = sweep(axis(Nearest{}), axis(NoSmoothing{}, SmoothQuant{.alpha = 2}), axis(Mse{}),
                         axis(Gptq{}, Gptq{}, Gptq{.damp = 0.02}, ToyCodebook{}));
  int64_t visited = 0;
  const SweepCount count = all.for_each(formats("int4:g8"), [&](const auto&) { ++visited; });
  CHECK(count.total() == 8);
  CHECK(count.run == 2);
  CHECK(visited == 2);
  CHECK(count.dropped.at("the same description as another entry") == 1);
  CHECK(count.dropped.at("smoothing.alpha must lie in [0, 1], it is 2") == 4);
  CHECK(count.dropped.at("a codebook has no groups; choose :channel") == 1);
}

TEST_CASE("axes left out keep their null object") {
  const SweepCount count = sweep(axis(Nearest{})).for_each(formats("int4"), [](const auto& recipe) {
    static_assert(std::is_same_v<std::remove_cvref_t<decltype(recipe)>, Recipe<>>);
    CHECK(label(recipe) == "rtn");
  });
  CHECK(count.run == 1);
}

TEST_CASE("everything that exists runs on a tiny model") {
  const auto all = sweep(axis(Nearest{}, ToyDivisor{}), axis(NoSmoothing{}, SmoothQuant{.sites = SmoothSites::all}),
                         axis(Mse{}, Mse{Reduce::sum}), axis(Direct{}, Gptq{}), axis(NoCorrection{}), axis(NoAdaptation{}));
  for (const Family family : {Family::llama, Family::opt}) {
    const Transformer model = tiny_model(family);
    const Tensor tokens = tiny_tokens(2, 12);
    for (const auto& precision : {formats("int4"), formats("int3:g8", "int8")}) {
      const SweepCount count = all.for_each(precision, [&](auto recipe) {
        INFO(name(family) << " " << label(recipe));
        recipe.learning.steps = 2;
        const Kept kept = walk(model, stages(recipe), precision, tokens);
        CHECK(kept.blocks.size() == 2);
        for (const BlockReport& r : kept.reports) {
          CHECK(r.error > 0);
          CHECK(r.error < 0.5);
          CHECK(r.losses.size() == (learns(recipe) ? 2 : 0));
        }
      });
      CHECK(count.total() == 16);
      CHECK(count.run == 4 + 8);
    }
  }
}
