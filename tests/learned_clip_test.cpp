// Learned clipping: the worked example of its formula, what a clip can and cannot reach, hostile rows.
#include <ptq/quantize.hpp>
#include <ptq/rounding/learned_clip.hpp>

#include "catch.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;
using Catch::Matchers::ContainsSubstring;

TEST_CASE("a row of six numbers, worked out by hand") {
  const Tensor w = at::tensor({-1.0, -0.5, 0.0, 0.3, 0.75, 1.5}).view({1, 6});
  const Scheme scheme = weights("int4:range=omni");
  const NamedTensors state = LearnedClip{}.start(w, scheme);
  const Grid grid = *LearnedClip{}.coordinates(state, w, scheme).grid;
  CHECK(grid.scale.item<double>() == Approx(0.16366896500631806).epsilon(1e-15));
  CHECK(grid.zero.item<int>() == 6);
  CHECK(at::equal(quantize(w, grid), at::tensor({0, 3, 6, 8, 11, 15}).view({1, 6}).to(at::kByte)));
  const Tensor expected = at::tensor({-0.98201379, -0.49100690, 0.0, 0.32733793, 0.81834483, 1.47302069}).view({1, 6});
  CHECK(at::allclose(LearnedClip{}.weight(state, w, scheme), expected, 0, 5e-9));
}

TEST_CASE("logits of 40 keep the whole range, in every convention and granularity") {
  at::manual_seed(1);
  Tensor w = at::randn({6, 16});
  w[0].zero_(), w[1] = w[1].abs(), w[2] = -w[2].abs(), w[3].fill_(0.25);
  for (const char* format : {"int4", "int3:sym", "int4:g4", "int2:tensor", "int4:range=flexround", "int8:sym:range=flexround",
                             "int4:g8:range=omni", "int4:sym:range=omni_no_zero_point", "int5:sym:range=absmax"}) {
    INFO(format);
    const Scheme scheme = weights(format);
    const LearnedClip whole{.start_logit = 40};
    const Grid mine = *whole.coordinates(whole.start(w, scheme), w, scheme).grid, plain = fit_grid(w, scheme);
    CHECK(at::equal(mine.scale, plain.scale));
    CHECK(at::equal(mine.zero, plain.zero));
  }
}

TEST_CASE("the range follows the weight of the moment, and learning lowers the loss") {
  const Scheme scheme = weights("int3:range=omni");
  const Tensor w = at::randn({4, 8}, at::kDouble);
  const NamedTensors state = LearnedClip{}.start(w, scheme);
  const Tensor once = LearnedClip{}.coordinates(state, w, scheme).grid->scale,
               twice = LearnedClip{}.coordinates(state, 2 * w, scheme).grid->scale;
  CHECK(at::allclose(2 * once, twice, 1e-14, 0));

  const Transformer model = tiny_model(Family::llama);
  Recipe<LearnedClip> r{.rounding = {.rate = 0.05}, .learning = {.steps = 60, .batch = 2}};
  for (const char* format : {"int3:range=omni", "int3:g8:range=omni", "int3:sym:range=omni_no_zero_point"}) {
    INFO(format);
    const Kept done = walk(model, stages(r), formats(format), tiny_tokens(4, 16));
    for (const BlockReport& b : done.reports) CHECK(b.tracked.back() < b.tracked.front());
  }
}

TEST_CASE("a search beside a learned clip is refused, and so are rates without sense") {
  CHECK_THAT(refuses(Recipe<LearnedClip>{}, formats("int4:search")), ContainsSubstring("drop :search"));
  CHECK_THAT(refuses(Recipe<LearnedClip>{.rounding = {.rate = -0.1}}, formats("int4")), ContainsSubstring("rounding.rate"));
  CHECK(refuses(Recipe<LearnedClip>{}, formats("int4:g8")).empty());
  static_assert(learns_range<LearnedClip>);
}
