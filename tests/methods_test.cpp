// The learned methods on a small trained model, held against what their papers order: every block's error falls, perplexity follows.
#include "catch.hpp"
#include "pipeline.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

struct Outcome {
  MemorySink kept;
  Perplexity perplexity;
  Tensor last;  // (N, T, hidden) the quantized stream after the last block
};

/// A trained model, a calibration sample and windows of another text.
struct Trained {
  std::shared_ptr<const io::Checkpoint> file =
      std::make_shared<const io::Checkpoint>(io::Checkpoint::open((data() / "models/llama_books").string()));
  std::unique_ptr<Transformer> model;
  Tensor calibration, held_out;

  /// `outliers`: a few channels behind norms carry values thirty times as large and meet weights that are thirty times smaller, as in
  /// models of billions of weights; the float model computes the same.
  explicit Trained(bool outliers = false, int64_t samples = 16, int64_t length = 128, int64_t scored = 24)
      : calibration(windows(data() / "models/llama_books", "books_valid.txt", samples, length)),
        held_out(windows(data() / "models/llama_books", "books_test.txt", scored, 256)) {
    const auto load = [f = file, outliers](const std::string& name, at::IntArrayRef shape) {
      Tensor w = f->load(name, shape);
      const auto ends = [&](const std::string& with) { return name.ends_with(with + ".weight"); };
      const bool gain = ends("input_layernorm") || ends("post_attention_layernorm");
      const bool reader = ends("q_proj") || ends("k_proj") || ends("v_proj") || ends("gate_proj") || ends("up_proj");
      if (!outliers || (!gain && !reader)) return w;
      Tensor s = at::ones({w.size(-1)});
      for (const int64_t channel : {7, 50, 101}) s[channel] = 30;
      return gain ? w * s : w / s;
    };
    model = std::make_unique<Transformer>(file->config(), TensorLookup{[f = file](const std::string& n) { return f->has(n); }, load});
  }
  [[nodiscard]] Outcome run(const Stages& recipe, const Precision& precision, uint64_t seed = 0) const {
    struct Sink : MemorySink {
      Tensor last;
      void commit(int64_t b, const QuantizedBlock& block, const Tensor& stream, const BlockReport& r) override {
        MemorySink::commit(b, block, stream, r), last = stream;
      }
    } sink;
    ComputedReference reference(*model, calibration, 4096);
    Walk walk;
    walk.precision = precision, walk.seed = seed;
    CHECK(quantize(recipe, *model, calibration, reference, sink, walk) == model->blocks());
    Perplexity p = evaluate(*model, sink, held_out);
    return {sink, std::move(p), sink.last};
  }
  [[nodiscard]] Perplexity full() const { return perplexity(*model, model->load_head(), {held_out}, float_operators(*model)); }
};

/// Inputs of linears and q, k, v of attention in four bits, weights too or as given.
Precision four_bits(const char* weight = "int4:channel:range=omni") {
  Precision p = precision(weight, "int4:token");
  for (const auto which : {Operand::query, Operand::key, Operand::value}) p.attention[static_cast<size_t>(which)] = p.activations;
  return p;
}

/// Whether a is below b, by so many paired standard errors.
void check_below(const Perplexity& a, const Perplexity& b, double errors = 2) {
  const Estimate d = difference(a, b);
  INFO(a.estimate().value << " and " << b.estimate().value << ", difference " << d.value << " ± " << d.standard_error);
  CHECK(d.value < -errors * d.standard_error);
}

}  // namespace

TEST_CASE("FlexRound and LRQ at three bits: every block errs less than by plain rounding, perplexity lies between, and both end alike") {
  const Trained t;
  const Perplexity full = t.full();
  auto flexround = methods::flexround_w3;
  auto lrq = methods::lrq_w3;
  flexround.learning.steps = lrq.learning.steps = 120;
  flexround.rounding.rate = lrq.rounding.rate = 3e-3;
  lrq.rounding.ranks = RankRule::fixed, lrq.rounding.rank = 64;
  for (const char* format : {"int3:channel:range=flexround", "int3:channel:range=flexround:search"}) {
    INFO(format);
    const Outcome plain = t.run(stages(methods::rtn), precision(format)), flex = t.run(stages(flexround), precision(format)),
                  low = t.run(stages(lrq), precision(format));
    for (const Outcome* learned : {&flex, &low})
      for (size_t b = 0; b < 4; ++b) {
        const BlockReport &r = learned->kept.reports[b], &p = plain.kept.reports[b];
        INFO("block " << b);
        CHECK(r.tracked.back() < r.tracked.front());
        CHECK(r.error < p.error);
      }
    check_below(full, flex.perplexity);
    check_below(full, low.perplexity);
    check_below(flex.perplexity, plain.perplexity);
    check_below(low.perplexity, plain.perplexity);
    const double f = flex.perplexity.estimate().value, l = low.perplexity.estimate().value;
    WARN(format << ": full " << full.estimate().value << ", FlexRound " << f << ", LRQ " << l << ", plain "
                << plain.perplexity.estimate().value);
    CHECK(l / f == Approx(1).margin(0.03));
  }
}

TEST_CASE("with outlying channels plain rounding is worst, static smoothing better, learned best, and more epochs help") {
  const Trained t(true, 12, 128, 64);
  CHECK(t.full().estimate().value == Approx(Trained(false, 12, 128, 64).full().estimate().value).epsilon(1e-4));
  const auto lrquant = [&](int64_t epochs) {
    auto r = methods::lrquant;
    r.learning.epochs = epochs, r.smoothing.rate = 5e-3;
    return r;
  };
  auto clip_only = Recipe<LearnedClip, NoSmoothing, Sum<Mse, Nlc>>{.rounding = {.rate = 1e-2}, .learning = methods::equivalent_learning};
  auto smooth_only = Recipe<Nearest, LearnedLog, Sum<Mse, Nlc>>{.smoothing = {.rate = 5e-3}, .learning = methods::equivalent_learning};
  clip_only.learning.epochs = smooth_only.learning.epochs = 10;
  for (const char* weight : {"int4:channel:range=omni", "int3:channel:range=omni"}) {
    INFO(weight);
    const auto score = [&](const auto& recipe) { return t.run(stages(recipe), four_bits(weight)); };
    const Outcome plain = score(methods::rtn), smooth = score(methods::smoothquant), log = score(methods::static_log);
    const Outcome none = score(lrquant(0)), few = score(lrquant(3)), many = score(lrquant(10)), clip = score(clip_only),
                  let = score(smooth_only);
    std::string line = weight;
    for (const Outcome* o : {&plain, &smooth, &log, &none, &few, &many, &clip, &let})
      line += cat("; ", o->perplexity.estimate().value, " (", o->kept.reports.back().error, ")");
    WARN(
        "perplexity (error of the last block) of plain, SmoothQuant, static log, LRQuant of 0, 3, 10 epochs, clipping alone, smoothing "
        "alone: "
        << line);
    check_below(smooth.perplexity, plain.perplexity);
    check_below(log.perplexity, plain.perplexity);
    const double errors = weight == std::string("int4:channel:range=omni") ? 0 : 2;  // little is left to gain at four bits
    for (const Outcome* worse : {&smooth, &log, &none}) check_below(many.perplexity, worse->perplexity, errors);
    check_below(let.perplexity, clip.perplexity);  // what is lost without smoothing is more than without clipping
    const auto error = [](const Outcome& o) { return o.kept.reports.back().error; };
    CHECK(error(few) < error(none));
    CHECK(error(many) < error(few));
    CHECK(error(many) < error(clip));
    CHECK(error(many) < 1.1 * error(let));  // smoothing alone comes close
  }
}

TEST_CASE("squared error and cosine both fall in the first block and in the last, whether or not the cosine is in the loss") {
  const Trained t(true, 12, 128);
  ComputedReference reference(*t.model, t.calibration, 4096);
  const Tensor x = t.model->embed(t.calibration), first = reference.input(1), last = reference.input(t.model->blocks());
  auto both = methods::lrquant;
  auto squares = Recipe<LearnedClip, LearnedLog>{.rounding = both.rounding, .smoothing = both.smoothing, .learning = both.learning};
  both.smoothing.rate = squares.smoothing.rate = 5e-3;
  both.learning.order = squares.learning.order = SampleOrder::shuffled;
  both.learning.epochs = squares.learning.epochs = 6;
  auto start = both;
  start.learning.epochs = 0;
  const auto losses = [&](const auto& recipe) -> std::array<double, 4> {
    const Outcome o = t.run(stages(recipe), four_bits(), 1);
    QuantizedOperators ops(t.model->config(), o.kept.blocks[0]);
    const Tensor y = t.model->forward(0, x, ops);
    return {Mse{}(first, y).item<double>(), Nlc{}(first, y).item<double>(), Mse{}(last, o.last).item<double>(),
            Nlc{}(last, o.last).item<double>()};
  };
  const auto begun = losses(start), with = losses(both), without = losses(squares);
  WARN("squared error and cosine loss of the first block, of the last: "
       << Catch::Detail::stringify(begun) << " at the start, " << Catch::Detail::stringify(with) << " with the cosine in the loss, "
       << Catch::Detail::stringify(without) << " without");
  for (size_t i = 0; i < 4; ++i) {
    INFO(i);
    CHECK(with[i] < begun[i]);
    CHECK(without[i] < begun[i]);
  }
}
