// Test-time adaptation on a small model: what it fits, what it leaves alone, what it forgets.
#include <ptq/adaptation/episodic_tta.hpp>
#include <ptq/adaptation/tta.hpp>
#include <ptq/evaluate/adapted.hpp>
#include <ptq/loss/nlc.hpp>
#include <ptq/loss/sum.hpp>
#include <ptq/smoothing/learned_log.hpp>
#include <ptq/smoothing/smoothquant.hpp>
#include <ptq/solver/gptq.hpp>

#include "catch.hpp"
#include "models.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;
using Catch::Matchers::ContainsSubstring;

namespace {

template <class A = Tta, class V = Direct>
using Learned = Recipe<Nearest, LearnedLog, Sum<Mse, Nlc>, V, NoCorrection, A>;

template <class R>
R recipe(const R& start = {}) {
  R r = start;
  r.smoothing.rate = 3e-3, r.learning.steps = 24, r.learning.batch = 2;
  return r;
}

Tta fast(RefitInput input = RefitInput::same_input, int64_t blocks = 1) {
  return {.epochs = 8, .blocks = blocks, .batch = 2, .input = input, .smoothing_rate = 3e-3, .rounding_rate = 3e-3};
}

Precision coarse() {
  Precision p = formats("int3:channel:range=omni", "int8");
  for (const size_t i : {0, 1, 3}) p.attention[i] = activations("int8");
  return p;
}

/// A calibrated model and a text under test.
struct Calibrated {
  Transformer model;
  Head head = model.load_head();
  Tensor windows = tiny_tokens(6, 20, 77);
  Walk walk;
  Kept kept;

  template <class R>
  explicit Calibrated(const R& r, at::ScalarType dtype = at::kFloat)
      : model(tiny_model(Family::llama, dtype)), kept(test::walk(model, stages(r), coarse(), tiny_tokens(6, 20))) {
    walk.precision = coarse();
  }
  [[nodiscard]] CommittedBlock committed() const {
    return [this](int64_t b) { return kept.blocks.at(static_cast<size_t>(b)); };
  }
  template <class R>
  [[nodiscard]] AdaptedPerplexity adapted(const R& r, const Tensor& ids) const {
    return adapted_perplexity(stages(r), model, head, {ids}, committed(), walk);
  }
  [[nodiscard]] Perplexity plain(const Tensor& ids) const {
    return perplexity(model, head, {ids}, committed_operators(model, committed()));
  }
};

bool same(const QuantizedBlock& a, const QuantizedBlock& b) {
  for (size_t i = 0; i < a.linears.size(); ++i)
    if (!at::equal(a.linears[i].codes, b.linears[i].codes) || !at::equal(a.linears[i].grid.scale, b.linears[i].grid.scale)) return false;
  for (const auto& [name, t] : a.state)
    if (!at::equal(t, b.state.at(name))) return false;
  return true;
}

QuantizedBlock copy(QuantizedBlock b) {
  for (QuantizedLinear& l : b.linears) l.codes = l.codes.clone(), l.grid.scale = l.grid.scale.clone();
  for (auto& [name, t] : b.state) t = t.clone();
  return b;
}

}  // namespace

TEST_CASE("an adaptation of zero steps is the committed model, bit for bit") {
  Learned<> r = recipe(Learned<>{});
  const Calibrated c(r);
  const Perplexity before = c.plain(c.windows);
  r.adaptation.epochs = 0;
  CHECK(c.adapted(r, c.windows).perplexity.nll == before.nll);
  Learned<EpisodicTta> e = recipe(Learned<EpisodicTta>{});
  e.adaptation.updates = 0;
  CHECK(c.adapted(e, c.windows).perplexity.nll == before.nll);
  // Nor does a rate of zero change anything, whatever the steps.
  r.adaptation = fast(), r.adaptation.smoothing_rate = 0;
  const AdaptedPerplexity still = c.adapted(r, c.windows);
  CHECK(still.perplexity.nll == before.nll);
  CHECK(!still.refits.at(0).at(0).kept);
}

TEST_CASE("an adaptation lowers the loss on the text it sees, in the last block alone, and keeps its formats") {
  for (const auto input : {RefitInput::same_input, RefitInput::full_teacher})
    for (const int64_t blocks : {1, 2}) {
      const bool own = input == RefitInput::same_input;  // else what earlier blocks lost stays in the loss, and little can be gained
      Learned<> r = recipe(Learned<>{});
      const Calibrated c(r);
      const std::vector<QuantizedBlock> before{copy(c.kept.blocks[0]), copy(c.kept.blocks[1])};
      const Perplexity plain = c.plain(c.windows);
      r.adaptation = fast(input, blocks);
      const AdaptedPerplexity done = c.adapted(r, c.windows);
      REQUIRE(done.refits.size() == 1);
      REQUIRE(done.refits[0].size() == static_cast<size_t>(blocks));
      REQUIRE(done.blocks.size() == static_cast<size_t>(blocks));
      for (const RefitReport& report : done.refits[0]) {
        INFO("block " << report.block << " of input " << static_cast<int>(input));
        REQUIRE(report.losses.size() == 24);  // 8 passes of 3 batches
        const double begin = report.losses[0] + report.losses[1] + report.losses[2],
                     end = report.losses[21] + report.losses[22] + report.losses[23];
        CHECK(end < (own ? 1 : 1.1) * begin);
        CHECK(report.kept == (report.after < report.before));
      }
      const bool moved = done.refits[0].back().kept;
      CHECK((moved || !own));
      if (moved) CHECK(done.perplexity.nll != plain.nll);
      for (size_t b = 0; b < 2; ++b) CHECK(same(c.kept.blocks[b], before[b]));  // nothing is written back
      CHECK(c.plain(c.windows).nll == plain.nll);
      const QuantizedBlock &last = done.blocks.back(), &was = before[1];
      CHECK(same(last, was) == !moved);
      CHECK(last.bits().codes == was.bits().codes);
      for (size_t g = 0; g < 4; ++g) CHECK(last.formats.inputs[g].scheme == was.formats.inputs[g].scheme);
      CHECK(last.formats.attention == was.formats.attention);
    }
}

TEST_CASE("a data set is fitted as if no other had been") {
  Learned<> r = recipe(Learned<>{});
  const Calibrated c(r);
  r.adaptation = fast();
  const Tensor other = tiny_tokens(4, 20, 5);
  const auto alone = c.adapted(r, c.windows).perplexity.nll;
  (void)c.adapted(r, other);
  CHECK(c.adapted(r, c.windows).perplexity.nll == alone);
}

TEST_CASE("an episode sees its own segment only, whatever came before") {
  Learned<EpisodicTta> r = recipe(Learned<EpisodicTta>{});
  r.adaptation = {.updates = 6, .smoothing_rate = 3e-3};
  const Calibrated c(r, at::kDouble);
  const AdaptedPerplexity forward = c.adapted(r, c.windows), backward = c.adapted(r, c.windows.flip(0).contiguous());
  REQUIRE(forward.refits.size() == 6);
  CHECK(forward.blocks.empty());
  for (size_t i = 0; i < 6; ++i) CHECK(forward.perplexity.nll[i] == Approx(backward.perplexity.nll[5 - i]).epsilon(1e-5));
  const AdaptedPerplexity alone = c.adapted(r, c.windows.narrow(0, 2, 1));
  CHECK(alone.perplexity.nll[0] == Approx(forward.perplexity.nll[2]).epsilon(1e-5));
  CHECK(forward.perplexity.nll != c.plain(c.windows).nll);
}

TEST_CASE("the literal adaptation fits the last block to embeddings, with activations unrounded then and afterwards") {
  Learned<> r = recipe(Learned<>{});
  const Calibrated c(r);
  r.adaptation = {.epochs = 4, .input = RefitInput::literal, .smoothing_rate = 1e-3, .rounding_rate = 1e-2};
  const AdaptedPerplexity done = c.adapted(r, c.windows);
  const QuantizedBlock& last = done.blocks.back();
  for (const Format& f : last.formats.inputs) CHECK(!f.scheme.active());
  CHECK(!last.formats.attention_active());
  CHECK(done.refits[0][0].kept);
  // Its first loss is that of plain rounding on embeddings: factors are one there.
  const BlockParameters block = c.model.load(1);
  BlockParameters rounded = block;
  for (LinearParameters& l : rounded.linears) l.weight = fake_quantize(l.weight, fit_grid(l.weight, coarse().weights));
  const Tensor x = c.model.embed(c.windows).narrow(0, 0, 1);
  FloatOperators plain(c.model.config(), block), quantized(c.model.config(), rounded);
  const double first = r.loss(c.model.forward(1, x, plain), c.model.forward(1, x, quantized)).item<double>();
  CHECK(done.refits[0][0].losses[0] == Approx(first).epsilon(1e-4));
}

TEST_CASE("where only the solver reads data, an adaptation solves again on the text") {
  Recipe<Nearest, NoSmoothing, Mse, Gptq, NoCorrection, Tta> r;
  const Calibrated c(r);
  const AdaptedPerplexity done = c.adapted(r, c.windows);
  const RefitReport& report = done.refits[0][0];
  CHECK(report.losses.empty());
  CHECK(report.kept);
  CHECK(report.after < report.before);
  CHECK(!same(done.blocks[0], c.kept.blocks[1]));
}

TEST_CASE("a smoothing that is not learned stays through an adaptation") {
  Recipe<Nearest, SmoothQuant, Mse, Gptq, NoCorrection, Tta> r;
  const Calibrated c(r);
  const AdaptedPerplexity done = c.adapted(r, c.windows);
  CHECK(done.refits[0][0].kept);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(at::equal(done.blocks[0].norms[i].weight, c.kept.blocks[1].norms[i].weight));
    CHECK(!at::equal(done.blocks[0].norms[i].weight, c.model.load(1).norms[i].weight));
  }
  CHECK(!same(done.blocks[0], c.kept.blocks[1]));
}

TEST_CASE("a shorter tail is scored with what the full windows taught") {
  Learned<> r = recipe(Learned<>{});
  const Calibrated c(r);
  r.adaptation = fast();
  const Tensor tail = tiny_tokens(1, 7, 9);
  const AdaptedPerplexity both = adapted_perplexity(stages(r), c.model, c.head, {c.windows, tail}, c.committed(), c.walk);
  const AdaptedPerplexity full = c.adapted(r, c.windows);
  CHECK(both.refits.size() == 1);
  CHECK(std::vector<double>(both.perplexity.nll.begin(), both.perplexity.nll.end() - 1) == full.perplexity.nll);
  const Perplexity scored = perplexity(c.model, c.head, {tail}, committed_operators(c.model, c.committed(), full.blocks));
  CHECK(both.perplexity.nll.back() == Approx(scored.nll[0]).epsilon(1e-6));
}

TEST_CASE("adaptations refuse what means nothing") {
  CHECK_THAT(Tta{.epochs = -1}.refuses({}), ContainsSubstring("must not be negative"));
  CHECK_THAT(Tta{.blocks = 0}.refuses({}), ContainsSubstring("adaptation.blocks"));
  CHECK_THAT(Tta{.smoothing_rate = -1}.refuses({}), ContainsSubstring("rates"));
  CHECK_THAT((Tta{.blocks = 2, .input = RefitInput::literal}.refuses({})), ContainsSubstring("literal"));
  CHECK_THAT(EpisodicTta{.updates = -2}.refuses({}), ContainsSubstring("must not be negative"));
  Learned<> r = recipe(Learned<>{});
  const Calibrated c(r);
  r.adaptation.blocks = 3;
  CHECK_THROWS_WITH(c.adapted(r, c.windows), ContainsSubstring("the model has 2"));
}

TEST_CASE("no label reaches an adaptation: whatever the head that scores, what is fitted is the same") {
  for (const auto input : {RefitInput::same_input, RefitInput::full_teacher}) {
    Learned<> r = recipe(Learned<>{});
    const Calibrated c(r);
    r.adaptation = fast(input);
    const AdaptedPerplexity done = c.adapted(r, c.windows);
    Head other = c.head;
    at::manual_seed(4);
    other.weight = at::randn_like(c.head.weight);
    const AdaptedPerplexity scored = adapted_perplexity(stages(r), c.model, other, {c.windows}, c.committed(), c.walk);
    CHECK(scored.perplexity.nll != done.perplexity.nll);
    REQUIRE(scored.blocks.size() == 1);
    CHECK(same(scored.blocks[0], done.blocks[0]));
    CHECK(scored.refits[0][0].losses == done.refits[0][0].losses);
    CHECK(same(done.blocks[0], c.kept.blocks[1]) == !done.refits[0][0].kept);
  }
}

TEST_CASE("what an adaptation forgets can be told: the calibration text under adapted blocks, the last alone or all") {
  const auto source_of = [](int64_t blocks) {
    Learned<> r = recipe(Learned<>{});
    const Calibrated c(r);
    r.adaptation = fast(RefitInput::full_teacher, blocks);
    r.adaptation.epochs = 20;
    const AdaptedPerplexity done = c.adapted(r, c.windows);
    const Tensor source = tiny_tokens(6, 20);  // what the model was calibrated on
    const double before = perplexity(c.model, c.head, {source}, committed_operators(c.model, c.committed())).estimate().value;
    const double after = perplexity(c.model, c.head, {source}, committed_operators(c.model, c.committed(), done.blocks)).estimate().value;
    WARN(blocks << " adapted: perplexity of the calibration text " << before << " to " << after);
    CHECK(std::isfinite(after));
    bool moved = false;
    for (const RefitReport& report : done.refits[0]) moved = moved || report.kept;
    CHECK((after != before) == moved);
    CHECK(perplexity(c.model, c.head, {source}, committed_operators(c.model, c.committed())).estimate().value == before);
    return after;
  };
  CHECK(source_of(1) != source_of(2));
}
