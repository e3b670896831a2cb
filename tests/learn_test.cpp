// Stage "learn" through the whole walk, with a small rounding written for the test: an element-wise divisor and a learned step.
#include <ptq/methods.hpp>
#include <ptq/quantize/refit.hpp>
#include <ptq/run/block_file.hpp>

#include <map>
#include <numeric>
#include <set>

#include "catch.hpp"
#include "lists.hpp"
#include "models.hpp"
#include "temporary_folder.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;
using Catch::Matchers::ContainsSubstring;

namespace ptq::test {

/// The mean squared error, noting what it was given.
struct Spy {
  static constexpr std::string_view tag = "spy";
  static inline std::vector<std::pair<Tensor, Tensor>> seen;  ///< target, output
  [[nodiscard]] Tensor operator()(const Tensor& target, const Tensor& output) const {
    seen.emplace_back(target.detach().clone(), output.detach().clone());
    return Mse{}(target, output);
  }
  [[nodiscard]] bool averages() const { return true; }
};

}  // namespace ptq::test
BOOST_HANA_ADAPT_STRUCT(ptq::test::Spy);

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

/// Weights, inputs of linears and q, k, v of attention in four bits, as in LRQuant's experiments.
Precision four_bits() {
  Precision p = formats("int4:channel:range=omni", "int4:token");
  for (const auto which : {Operand::query, Operand::key, Operand::value}) p.attention[static_cast<size_t>(which)] = p.activations;
  return p;
}

/// LRQuant with a schedule of a few updates.
auto lrquant(int64_t steps, double rate = 1e-2) {
  auto r = methods::lrquant;
  r.learning.steps = steps, r.learning.epochs = 0, r.rounding.rate = rate, r.smoothing.rate = rate / 2;
  return r;
}

Tensor committed_output(const Transformer& model, int64_t block, const QuantizedBlock& artefact, const Tensor& x) {
  QuantizedOperators ops(model.config(), artefact);
  return model.forward(block, x, ops);
}

/// The block as learning sees it, at the state that a committed block keeps.
Tensor temporary_output(const Stages& stages, const Transformer& model, int64_t block, const QuantizedBlock& artefact,
                        const Precision& precision, const Tensor& x) {
  const std::vector<Scheme> schemes(model.layout().sites.size(), precision.weights);
  const BlockState state = ptq::detail::calibrated_state(artefact, model.layout());
  FormatOperators ops(model.config(), fake_quantized(stages, model.layout(), model.load(block), state, schemes), artefact.formats);
  return model.forward(block, x, ops);
}

/// The share of values that differ by more than products in float32 do. Where an activation lies at the edge of a cell, its code may flip,
/// and its sequence goes another way.
double share_that_differs(const Tensor& a, const Tensor& b) {
  return (a - b).abs().gt(1e-5 * b.abs().max()).to(at::kDouble).mean().item<double>();
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

TEST_CASE("a block learns on the quantized stream it is given, towards the float model's own stream") {
  const c10::NoGradGuard off;
  const Transformer model = tiny_model(Family::llama, at::kDouble);
  const Tensor tokens = tiny_tokens(4, 12);
  ComputedReference reference(model, tokens, 4096);
  struct Resumed : Kept {  // block 0 is done, and what it gave is known
    Tensor given;
    int64_t resume(Tensor& stream) override { return stream = given, 1; }
  };
  at::manual_seed(9);
  Resumed kept, plain;
  kept.given = plain.given = reference.input(1) + 0.5 * at::randn_like(reference.input(1));
  Recipe<ToyDivisor, NoSmoothing, Spy> recipe{.rounding = {1e-9}};
  recipe.learning.epochs = 1, recipe.learning.tracked = 0;
  Walk how;
  how.precision = formats("int3", "int8");
  Spy::seen.clear();
  ComputedReference again(model, tokens, 4096), third(model, tokens, 4096);
  CHECK(quantize(stages(recipe), model, tokens, again, kept, how) == 2);
  CHECK(quantize(stages(Recipe<>{}), model, tokens, third, plain, how) == 2);
  FloatOperators block(model.config(), model.load(1));
  const Tensor target = reference.input(2), of_given = model.forward(1, kept.given, block);
  REQUIRE(Spy::seen.size() == 4);
  for (int64_t i = 0; i < 4; ++i) {
    const auto& [wanted, output] = Spy::seen[static_cast<size_t>(i)];
    CHECK(at::equal(wanted, target.narrow(0, i, 1)));
    CHECK(relative_error(wanted, of_given.narrow(0, i, 1)) > 0.05);
    CHECK(relative_error(output, committed_output(model, 1, plain.blocks[0], kept.given.narrow(0, i, 1))) < 1e-7);  // the rate moves it
  }
  CHECK(relative_error(kept.streams[0], committed_output(model, 1, kept.blocks[0], kept.given)) < 1e-12);
}

TEST_CASE("through a whole walk targets are the float model's hidden states, inputs what the committed blocks give with formats on") {
  const c10::NoGradGuard off;
  for (const Family family : {Family::llama, Family::opt}) {
    INFO(name(family));
    const Transformer model = tiny_model(family, at::kDouble);
    const Tensor tokens = tiny_tokens(3, 12);
    Recipe<ToyDivisor, NoSmoothing, Spy> recipe{.rounding = {1e-9}};
    recipe.learning.epochs = 1, recipe.learning.tracked = 0;
    Precision precision = formats("int4", "int4:token");
    precision.attention[0] = precision.attention[1] = precision.attention[3] = activations("int4:token");
    Spy::seen.clear();
    const Kept kept = walk(model, stages(recipe), precision, tokens), plain = walk(model, stages(Recipe<>{}), precision, tokens);
    REQUIRE(Spy::seen.size() == 6);
    Tensor hidden = model.embed(tokens), x = hidden;
    for (int64_t b = 0; b < 2; ++b) {
      FloatOperators block(model.config(), model.load(b));
      hidden = model.forward(b, hidden, block);
      const auto at = static_cast<size_t>(b);
      for (int64_t i = 0; i < 3; ++i) {
        const auto& [wanted, output] = Spy::seen[3 * at + static_cast<size_t>(i)];
        CHECK(relative_error(wanted, hidden.narrow(0, i, 1)) < 1e-12);
        CHECK(relative_error(output, committed_output(model, b, plain.blocks[at], x.narrow(0, i, 1))) < 1e-7);  // the rate moves it
      }
      x = committed_output(model, b, kept.blocks[at], x);
      CHECK(relative_error(kept.streams[at], x) < 1e-12);
      Precision unrounded = formats("int4");
      CHECK(relative_error(walk(model, stages(Recipe<>{}), unrounded, tokens).streams[at], x) > 1e-3);
    }
  }
}

TEST_CASE("a committed block computes what its last learning step did, with smoothing and clipping, divisors, shared heads and biases") {
  const c10::NoGradGuard off;
  const auto compare = [](const auto& recipe, const Precision& precision) {
    for (const Family family : {Family::llama, Family::opt})
      for (const auto dtype : {at::kFloat, at::kDouble}) {
        INFO(label(recipe) << " " << name(family) << " " << c10::toString(dtype));
        const Transformer model = tiny_model(family, dtype);
        const Tensor tokens = tiny_tokens(4, 12);
        const Kept kept = walk(model, stages(recipe), precision, tokens);
        for (int64_t b = 0; b < 2; ++b) {
          const QuantizedBlock& done = kept.blocks[static_cast<size_t>(b)];
          const Tensor x = b == 0 ? model.embed(tokens) : kept.streams[0];
          const Tensor temporary = temporary_output(stages(recipe), model, b, done, precision, x),
                       out = committed_output(model, b, done, x);
          if (dtype == at::kFloat)
            CHECK(share_that_differs(temporary, out) < 0.5);
          else
            CHECK(relative_error(temporary, out) < 1e-12);
          CHECK(relative_error(
                    out, committed_output(model, b, walk(model, stages(Recipe<>{}), precision, tokens).blocks[static_cast<size_t>(b)], x)) >
                1e-3);
        }
      }
  };
  compare(lrquant(6), four_bits());
  auto flex = methods::flexround;
  auto low = methods::lrq;
  flex.learning.steps = low.learning.steps = 6, low.rounding.ranks = RankRule::fixed, low.rounding.rank = 4;
  flex.rounding.rate = low.rounding.rate = 2e-2;
  compare(flex, formats("int3:range=flexround", "int8"));
  compare(low, formats("int3:range=flexround", "int8"));
}

TEST_CASE("no epochs are the start of smoothing and clipping, folded and rounded") {
  const c10::NoGradGuard off;
  for (const Family family : {Family::llama, Family::opt}) {
    INFO(name(family));
    const Transformer model = tiny_model(family);
    const Tensor tokens = tiny_tokens(4, 12);
    const auto recipe = lrquant(0);
    const Kept kept = walk(model, stages(recipe), four_bits(), tokens);
    ComputedReference reference(model, tokens, 4096);
    for (int64_t b = 0; b < 2; ++b) {
      const QuantizedBlock& done = kept.blocks[static_cast<size_t>(b)];
      const NamedTensors state = recipe.smoothing.start(model.layout(), model.load(b), reference.statistics(b));
      const BlockParameters fused = recipe.smoothing.fuse(model.layout(), model.load(b), state);
      CHECK(kept.reports[static_cast<size_t>(b)].losses.empty());
      for (size_t i = 0; i < fused.linears.size(); ++i) {
        const Tensor& w = fused.linears[i].weight;
        const Tensor share = at::sigmoid(at::full({1}, 4.0));  // both ends of a row's range are kept to 0.982
        const Tensor high = w.amax(1, true) * share, low = w.amin(1, true) * share, step = ((high - low) / 15).clamp(1e-5, 1e4);
        const Tensor zero = -(low / step).round();
        CHECK(at::equal(done.linears[i].codes.to(at::kInt), ((w / step).round() + zero).clamp(0, 15).to(at::kInt)));
        CHECK((!done.linears[i].bias.defined() || at::equal(done.linears[i].bias, fused.linears[i].bias)));
      }
      for (size_t i = 0; i < fused.norms.size(); ++i) CHECK(at::equal(done.norms[i].weight, fused.norms[i].weight));
    }
  }
}

TEST_CASE("what was learned comes back from its file: the same outputs, while learning and committed, and learning goes on from it") {
  const c10::NoGradGuard off;
  const TemporaryFolder folder("learned");
  const auto recipe = lrquant(6);
  const Transformer model = tiny_model(Family::llama);
  const Kept kept = walk(model, stages(recipe), four_bits(), tiny_tokens(4, 12));
  const Tensor x = kept.streams[0];
  save_block(folder / "block.h5", kept.blocks[1], model.layout());
  const QuantizedBlock read = load_block_file(folder / "block.h5", model.layout());
  REQUIRE(read.state.size() == kept.blocks[1].state.size());
  REQUIRE(read.state.size() == 7 + 2 * 7);
  for (const auto& [key, t] : kept.blocks[1].state) CHECK(at::equal(read.state.at(key), t));
  CHECK(at::equal(committed_output(model, 1, read, x), committed_output(model, 1, kept.blocks[1], x)));
  CHECK(at::equal(temporary_output(stages(recipe), model, 1, read, four_bits(), x),
                  temporary_output(stages(recipe), model, 1, kept.blocks[1], four_bits(), x)));
}

TEST_CASE("a later token changes nothing before it: in float, while learning, and committed") {
  for (const Family family : {Family::llama, Family::opt}) {
    INFO(name(family));
    const Transformer model = tiny_model(family, at::kDouble);
    const Tensor tokens = tiny_tokens(3, 16);
    const auto recipe = lrquant(4);
    const Kept kept = [&] {
      const c10::NoGradGuard off;
      return walk(model, stages(recipe), four_bits(), tokens);
    }();
    const Tensor x = kept.streams[0], changed = x.clone();
    changed.narrow(1, 9, 1).add_(3 * at::randn({3, 1, 32}, at::kDouble));
    const auto compare = [&](const std::function<Tensor(const Tensor&)>& output) {
      const Tensor a = output(x).detach(), b = output(changed).detach();
      CHECK(relative_error(b.narrow(1, 0, 9), a.narrow(1, 0, 9)) < 1e-13);
      CHECK(relative_error(b.narrow(1, 9, 1), a.narrow(1, 9, 1)) > 1e-3);
      CHECK(relative_error(b.narrow(1, 10, 6), a.narrow(1, 10, 6)) > 1e-6);
    };
    FloatOperators ops(model.config(), model.load(1));
    compare([&](const Tensor& in) { return model.forward(1, in, ops); });
    compare([&](const Tensor& in) { return committed_output(model, 1, kept.blocks[1], in); });
    const c10::AutoGradMode on(true);
    QuantizedBlock taught = kept.blocks[1];
    for (auto& [name, t] : taught.state) t = t.clone().requires_grad_(true);
    BlockState state = ptq::detail::calibrated_state(taught, model.layout());
    const std::vector<Scheme> schemes(model.layout().sites.size(), four_bits().weights);
    compare([&](const Tensor& in) {
      FormatOperators learning(model.config(), fake_quantized(stages(recipe), model.layout(), model.load(1), state, schemes),
                               taught.formats);
      const Tensor y = model.forward(1, in, learning);
      CHECK(y.requires_grad());
      return y;
    });
  }
}

TEST_CASE("clipping and smoothing have a rate each, with the members that the papers count") {
  for (const Family family : {Family::llama, Family::opt}) {
    INFO(name(family));
    const Transformer model = tiny_model(family);
    const Stages parts = stages(methods::lrquant);
    const BlockParameters block = model.load(0);
    ComputedReference reference(model, tiny_tokens(), 4096);
    BlockState state;
    state.smoothing = parts.smoothing->start(model.layout(), block, reference.statistics(0));
    int64_t rows = 0;
    for (const LinearParameters& l : block.linears)
      state.rounding.push_back(parts.rounding->start(l.weight, weights("int4:range=omni"))), rows += l.weight.size(0);
    std::vector<ParameterGroup> groups;
    for (NamedTensors& r : state.rounding) ptq::detail::collect_groups(parts.rounding->learnable(), {}, r, groups);
    ptq::detail::collect_groups(parts.smoothing->learnable(), {}, state.smoothing, groups);
    std::map<double, std::set<const void*>> by_rate;
    std::map<double, int64_t> numbers;
    for (const ParameterGroup& g : groups)
      for (const Tensor& t : g.tensors) by_rate[g.rate].insert(t.const_data_ptr()), numbers[g.rate] += t.numel();
    REQUIRE(by_rate.size() == 2);
    CHECK(numbers.at(1e-2) == 2 * rows);  // 2 (5 D + I) for OPT
    if (family == Family::opt) CHECK(rows == 5 * 32 + 48);
    for (const NamedTensors& r : state.rounding)
      for (const auto& [name, t] : r) CHECK(by_rate.at(1e-2).count(t.const_data_ptr()) == 1);
    for (const auto& [name, t] : state.smoothing) {
      INFO(name);
      CHECK(by_rate.at(1e-3).count(t.const_data_ptr()) == 1);
    }
    CHECK(by_rate.at(1e-3).size() == 7);  // three factors, three shifts, q and k
    CHECK(by_rate.at(1e-2).size() == 2 * block.linears.size());
  }
}

TEST_CASE("every step begins from the block's own weights, which nothing touches") {
  const c10::NoGradGuard off;
  const Transformer model = tiny_model(Family::opt);
  const Tensor tokens = tiny_tokens(1, 12), x = model.embed(tokens);
  const BlockParameters block = model.load(0), before = model.load(0);
  ComputedReference reference(model, tokens, 4096);
  const auto run = [&](double rate) {
    const auto recipe = lrquant(12, rate);
    const Stages parts = stages(recipe);
    BlockState state;
    state.smoothing = parts.smoothing->start(model.layout(), block, reference.statistics(0));
    const BlockParameters fused = parts.smoothing->fuse(model.layout(), block, state.smoothing);
    for (const LinearParameters& l : fused.linears) state.rounding.push_back(parts.rounding->start(l.weight, four_bits().weights));
    int64_t looked = 0;
    LearnOptions options;
    options.on_step = [&](int64_t) {
      ++looked;
      for (size_t i = 0; i < block.linears.size(); ++i) {
        CHECK(at::equal(block.linears[i].weight, before.linears[i].weight));
        CHECK(at::equal(block.linears[i].bias, before.linears[i].bias));
      }
      for (size_t i = 0; i < block.norms.size(); ++i) CHECK(at::equal(block.norms[i].weight, before.norms[i].weight));
    };
    const std::vector<Scheme> schemes(block.linears.size(), four_bits().weights);
    const auto losses =
        learn_block(parts, model, 0, block, state, schemes, formats_of(four_bits(), model.layout(), 0), x, reference.input(1), 0, options)
            .losses;
    CHECK(looked == 13);
    return losses;
  };
  CHECK(run(1e-2).back() != run(1e-2).front());
  for (const double loss : run(1e-30))
    CHECK(loss == run(1e-30).front());  // parameters stay: so does the loss, however often they are folded
}
