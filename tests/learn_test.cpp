// Stage "learn" through the whole walk, with a small rounding written for the test: an element-wise divisor and a learned step.
#include <ptq/quantize.hpp>
#include <ptq/rounding/flexround.hpp>

#include <numeric>
#include <set>

#include "catch.hpp"
#include "lists.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;
using Catch::Matchers::ContainsSubstring;

namespace {

using Learned = Recipe<ToyDivisor>;

Learned learned(double rate, int64_t steps, const std::function<void(Learned&)>& change = {}) {
  Learned r;
  r.rounding.rate = rate, r.learning.steps = steps, r.learning.batch = 2;
  if (change) change(r);
  return r;
}

double mean(const std::vector<double>& v, size_t first, size_t count) {
  return std::accumulate(v.begin() + static_cast<std::ptrdiff_t>(first), v.begin() + static_cast<std::ptrdiff_t>(first + count), 0.0) /
         static_cast<double>(count);
}

bool same(const Kept& a, const Kept& b) {
  for (size_t i = 0; i < a.blocks.size(); ++i) {
    if (!at::equal(a.streams[i], b.streams[i]) || a.reports[i].losses != b.reports[i].losses) return false;
    for (size_t j = 0; j < a.blocks[i].linears.size(); ++j)
      if (!at::equal(a.blocks[i].linears[j].codes, b.blocks[i].linears[j].codes)) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("learning lowers the loss and ends better than plain rounding, on LLaMA and OPT") {
  for (const Family family : {Family::llama, Family::opt})
    for (const char* activation : {"none", "int8"}) {
      INFO(name(family) << " activations " << activation);
      const Transformer model = tiny_model(family);
      const Tensor tokens = tiny_tokens(8, 24);
      const Precision precision = formats("int3", activation);
      const Kept plain = walk(model, stages(Recipe<>{}), precision, tokens),
                 done = walk(model, stages(learned(1e-2, 120)), precision, tokens);
      for (size_t b = 0; b < 2; ++b) {
        const auto& losses = done.reports[b].losses;
        REQUIRE(losses.size() == 120);
        CHECK(mean(losses, 100, 20) < 0.8 * mean(losses, 0, 20));
      }
      CHECK(done.reports[1].error < 0.8 * plain.reports[1].error);
    }
}

TEST_CASE("the same seed learns the same bytes; another order of samples does not") {
  const Transformer model = tiny_model(Family::llama);
  const Tensor tokens = tiny_tokens(6, 12);
  const auto shuffled = stages(learned(1e-2, 9, [](Learned& r) { r.learning.order = SampleOrder::shuffled; }));
  const Kept a = walk(model, shuffled, formats("int3"), tokens, 7), b = walk(model, shuffled, formats("int3"), tokens, 7),
             c = walk(model, shuffled, formats("int3"), tokens, 8);
  CHECK(same(a, b));
  CHECK(a.reports[0].losses != c.reports[0].losses);
}

TEST_CASE("zero steps of learning are plain rounding") {
  const Transformer model = tiny_model(Family::llama);
  const Tensor tokens = tiny_tokens(2, 12);
  const auto none = stages(learned(1e-2, 0, [](Learned& r) { r.learning.epochs = 0; }));
  const Kept a = walk(model, none, formats("int4"), tokens), plain = walk(model, stages(Recipe<>{}), formats("int4"), tokens);
  CHECK(a.reports[0].losses.empty());
  int64_t other = 0;
  for (size_t i = 0; i < a.blocks[0].linears.size(); ++i)
    other += a.blocks[0].linears[i].codes.ne(plain.blocks[0].linears[i].codes).sum().item<int64_t>();
  CHECK(other == 0);
}

TEST_CASE("a rate far too large ends in one error that names the block and what to do") {
  const Transformer model = tiny_model(Family::llama);
  for (const char* activation : {"none", "int8"}) {
    INFO(activation);
    CHECK_THROWS_WITH(walk(model, stages(learned(1e4, 20)), formats("int3", activation), tiny_tokens(4, 12)),
                      ContainsSubstring("block 0") && ContainsSubstring("lower the learning rate"));
  }
}

TEST_CASE("a column solver inherits the learned grid; divisors decide only when asked") {
  const Transformer model = tiny_model(Family::llama);
  const Tensor tokens = tiny_tokens(4, 24);
  Recipe<ToyDivisor, NoSmoothing, Mse, Gptq> r{.rounding = {1e-2}, .learning = {.steps = 40}};
  const Kept ignored = walk(model, stages(r), formats("int3:g8"), tokens);
  r.solver.divisors = Divisors::decide;
  const Kept decided = walk(model, stages(r), formats("int3:g8"), tokens);
  const Kept direct = walk(model, stages(Recipe<ToyDivisor>{.rounding = {1e-2}, .learning = {.steps = 40}}), formats("int3:g8"), tokens);
  const int q = model.layout().query;
  for (const Kept* k : {&ignored, &decided, &direct}) {  // the grid is what was learned, static over original columns
    const Grid& grid = k->blocks[0].linears[static_cast<size_t>(q)].grid;
    CHECK(at::equal(grid.scale, k->blocks[0].state.at("rounding.self_attn.q_proj.l").exp()));
    CHECK(at::equal(grid.scale, direct.blocks[0].linears[static_cast<size_t>(q)].grid.scale));
    CHECK(!at::equal(grid.scale, fit_grid(model.load(0).linears[static_cast<size_t>(q)].weight, weights("int3:g8")).scale));
  }
  CHECK(!at::equal(ignored.blocks[0].linears[0].codes, decided.blocks[0].linears[0].codes));
  CHECK(!at::equal(ignored.blocks[0].linears[0].codes, direct.blocks[0].linears[0].codes));
}

TEST_CASE("every sample is seen once an epoch, in order or shuffled anew") {
  const auto sequential = ptq::detail::batches({.epochs = 2, .batch = 2}, 6, 1);
  CHECK(sequential == std::vector<std::vector<int64_t>>{{0, 1}, {2, 3}, {4, 5}, {0, 1}, {2, 3}, {4, 5}});
  const auto shuffled = ptq::detail::batches({.epochs = 2, .batch = 3, .order = SampleOrder::shuffled}, 6, 1);
  REQUIRE(shuffled.size() == 4);
  for (const size_t epoch : {size_t{0}, size_t{2}}) {
    std::set<int64_t> seen(shuffled[epoch].begin(), shuffled[epoch].end());
    seen.insert(shuffled[epoch + 1].begin(), shuffled[epoch + 1].end());
    CHECK(seen == std::set<int64_t>{0, 1, 2, 3, 4, 5});
  }
  CHECK((shuffled[0] != shuffled[2] || shuffled[1] != shuffled[3]));
  CHECK(ptq::detail::batches({.steps = 5, .batch = 4}, 6, 1).size() == 5);      // the ragged rest of an epoch waits
  CHECK(ptq::detail::batches({.steps = 1, .batch = 99}, 6, 1)[0].size() == 6);  // a batch is at most all samples
}

TEST_CASE("learning from the reference stream does not see earlier blocks quantized") {
  const Transformer model = tiny_model(Family::llama);
  const Tensor tokens = tiny_tokens(4, 12);
  const auto from = [&](LearningInput input) {
    return walk(model, stages(learned(1e-2, 4, [&](Learned& r) { r.learning.input = input; })), formats("int2"), tokens);
  };
  const Kept q = from(LearningInput::quantized), x = from(LearningInput::reference);
  CHECK(q.reports[0].losses == x.reports[0].losses);                 // the first block's input is the same
  CHECK(q.reports[1].losses.front() > x.reports[1].losses.front());  // the second's is not
}

TEST_CASE("a diverged block begins again at half the rate as often as it may, from the very start") {
  const Transformer model = tiny_model(Family::llama);
  const Tensor tokens = tiny_tokens(4, 12);
  const auto at_rate = [&](double rate, int64_t restarts) {
    return walk(model, stages(learned(rate, 12, [&](Learned& r) { r.learning.restarts = restarts; })), formats("int3"), tokens);
  };
  const auto diverges = [&](double rate) {  // in its first block
    try {
      (void)at_rate(rate, 0);
      return false;
    } catch (const Error& e) {
      return std::string(e.what()).find("block 0") != std::string::npos;
    }
  };
  double rate = 1e-2;
  while (!diverges(rate)) rate *= 2;
  const Kept a = at_rate(rate, 9), b = at_rate(rate / 2, 9);
  CHECK(a.reports[0].losses == b.reports[0].losses);
  CHECK(at::equal(a.streams[0], b.streams[0]));
}

TEST_CASE("the best iterate on the tracked sequences is never worse than the start") {
  const Transformer model = tiny_model(Family::llama);
  const auto run = [&](Iterate keep) {
    return walk(model, stages(learned(0.3, 30, [&](Learned& r) { r.learning.keep = keep, r.learning.tracked = 3; })), formats("int4"),
                tiny_tokens(4, 12));
  };
  const Kept best = run(Iterate::best), last = run(Iterate::last);
  for (const BlockReport& r : best.reports) CHECK(r.tracked.back() <= r.tracked.front());
  CHECK(last.reports[0].tracked.back() > last.reports[0].tracked.front());  // this rate is too large, which is the point
}

TEST_CASE("with activations off, learning sees weights rounded and nothing else") {
  const Transformer model = tiny_model(Family::llama);
  const auto run = [&](bool on, const char* activation) {
    return walk(model, stages(learned(1e-2, 3, [&](Learned& r) { r.learning.activations = on; })), formats("int3", activation),
                tiny_tokens(4, 12));
  };
  CHECK(run(false, "int4").reports[0].losses == run(true, "none").reports[0].losses);
  CHECK(run(true, "int4").reports[0].losses != run(true, "none").reports[0].losses);
}

TEST_CASE(
    "products in bfloat16 learn nearly as float32 does, change nothing of a run without learning, and are refused where they are slow") {
  const Transformer model = tiny_model(Family::llama);
  const Tensor tokens = tiny_tokens(8, 24);
  const Precision precision = formats("int3", "none");
  const auto with = [&](LearningProducts products, int64_t steps) {
    const Learned r = learned(1e-2, steps, [&](Learned& each) { each.learning.products = products, each.learning.epochs = 0; });
    return walk(model, stages(r), precision, tokens);
  };
  const kernels::Isa before = kernels::isa();
  kernels::use_isa(kernels::Isa::portable);
  CHECK_THROWS_WITH(with(LearningProducts::bf16, 1),
                    ContainsSubstring("learning.products bf16 needs a processor") && ContainsSubstring("use f32"));
  kernels::use_isa(before);
  if (!kernels::multiplies_bfloat16()) SKIP_TEST("this processor does not multiply bfloat16");
  CHECK(same(with(LearningProducts::bf16, 0), with(LearningProducts::f32, 0)));
  // Rounding amplifies any difference: a code flips here and not there, and two right runs of so small a block end some percent apart,
  // either way. So one step is compared closely, and ends on the average over runs, in float32 both.
  const Tensor many = tiny_tokens(16, 64);
  double logarithms = 0;
  int runs = 0;
  for (const char* weight : {"int4:range=flexround", "int3:range=flexround"})
    for (const uint64_t seed : {1, 2, 3}) {
      const auto run = [&](LearningProducts products) {
        Recipe<FlexRound> r{.rounding = {.rate = 1e-3}, .loss = {Reduce::sum}};
        r.learning.steps = 120, r.learning.batch = 2, r.learning.tracked = 16, r.learning.schedule = Schedule::cosine;
        r.learning.order = SampleOrder::shuffled, r.learning.products = products;
        return walk(model, stages(r), formats(weight), many, seed);
      };
      const Kept narrow = run(LearningProducts::bf16), exact = run(LearningProducts::f32);
      CHECK_FALSE(same(narrow, exact));
      const BlockReport &n = narrow.reports[0], &e = exact.reports[0];
      CHECK(n.losses.front() == Approx(e.losses.front()).epsilon(0.02));
      CHECK(n.tracked.front() == e.tracked.front());
      CHECK(n.tracked.back() < 0.7 * n.tracked.front());
      logarithms += std::log(n.error / e.error), ++runs;  // of the committed block
    }
  CHECK(std::exp(logarithms / runs) <= 1.06);
}
