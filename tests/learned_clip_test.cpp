// Learned clipping: the worked example of its formula, what a clip can and cannot reach, hostile rows.
#include <ptq/core/packing.hpp>
#include <ptq/quantize.hpp>
#include <ptq/rounding/learned_clip.hpp>

#include <array>
#include <functional>

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

TEST_CASE("gradients of a clip are those of its formula with a constant zero point, and not those of one that rounding passes through") {
  at::manual_seed(3);
  for (const char* format : {"int4:range=omni", "int3:g8:range=omni", "int2:range=omni"}) {
    INFO(format);
    const Scheme scheme = weights(format);
    const int64_t each = scheme.group > 0 ? scheme.group : 24;
    const double most = (1 << scheme.bits) - 1;
    const Tensor w = at::randn({6, 24}, at::kDouble) + 0.3, g = at::randn({6, 24}, at::kDouble);
    NamedTensors state = LearnedClip{}.start(w, scheme);
    for (auto& [name, t] : state) t = 1 + 0.5 * at::randn_like(t);
    const c10::AutoGradMode on(true);
    const auto gradients = [&](const std::function<Tensor(const Tensor&, const NamedTensors&)>& value) {
      NamedTensors leaves;
      for (const auto& [name, t] : state) leaves[name] = t.clone().requires_grad_(true);
      const Tensor x = w.clone().requires_grad_(true);
      (value(x, leaves) * g).sum().backward();
      return std::array<Tensor, 3>{x.grad(), leaves.at("up").grad().reshape({-1}), leaves.at("low").grad().reshape({-1})};
    };
    const auto by_hand = [&](bool zero_passes) {
      return gradients([&, zero_passes](const Tensor& x, const NamedTensors& leaves) {
        const Tensor rows = x.view({-1, each});
        const Tensor high = rows.amax(1, true) * leaves.at("up").view({-1, 1}).sigmoid(),
                     low = rows.amin(1, true) * leaves.at("low").view({-1, 1}).sigmoid();
        const auto passed = [](const Tensor& t) { return t + (t.round() - t).detach(); };
        const Tensor h = (high - low) / most, exact = -low / h, z = zero_passes ? passed(exact) : exact.round().detach();
        const Tensor codes = passed(rows / h) + z,
                     clamped = at::where(codes.lt(0), at::zeros_like(codes), at::where(codes.gt(most), at::full_like(codes, most), codes));
        return (h * (clamped - z)).view(x.sizes());
      });
    };
    const auto mine = gradients([&](const Tensor& x, const NamedTensors& leaves) { return LearnedClip{}.weight(leaves, x, scheme); });
    const auto constant = by_hand(false), passing = by_hand(true);
    for (size_t i = 0; i < 3; ++i) {
      INFO(i);
      const double size = constant[i].abs().max().item<double>();
      CHECK((mine[i] - constant[i]).abs().max().item<double>() < 1e-12 * size);
      CHECK((mine[i] - passing[i]).abs().max().item<double>() > 1e-2 * size);
    }
  }
}

TEST_CASE("unpacked codes times the stored step are the weight that learning saw, bit for bit") {
  at::manual_seed(4);
  for (const char* format : {"int4:range=omni", "int3:g8:range=omni", "int2:range=omni", "int4:sym:range=omni"})
    for (const auto dtype : {at::kFloat, at::kDouble}) {
      INFO(format);
      const Scheme scheme = weights(format);
      const Tensor w = at::randn({6, 24}, dtype);
      NamedTensors state = LearnedClip{}.start(w, scheme);
      for (auto& [name, t] : state) t = 1 + 0.5 * at::randn_like(t);
      const Grid grid = *LearnedClip{}.coordinates(state, w, scheme).grid;
      const Tensor codes = unpack(pack(quantize(w, grid), scheme.bits), 24, scheme.bits).to(at::kInt) + grid.lowest;
      const int64_t each = 24 / grid.groups();
      const Tensor s = grid.scale.repeat_interleave(each, 1), z = grid.zero.repeat_interleave(each, 1);
      CHECK(at::equal(s * (codes - z).to(dtype), LearnedClip{}.weight(state, w, scheme)));
    }
}

TEST_CASE("a group that does not divide the columns is refused, never padded in silence") {
  CHECK_THROWS_WITH(LearnedClip{}.start(at::randn({4, 20}), weights("int4:g8:range=omni")), ContainsSubstring("groups of 8 do not divide"));
  CHECK_THROWS_WITH(walk(tiny_model(Family::llama), stages(Recipe<LearnedClip>{}), formats("int4:g20:range=omni"), tiny_tokens()),
                    ContainsSubstring("groups of 20 do not divide 32 columns"));
}
