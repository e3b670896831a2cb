// generalisation: FlexRound and LRQ learned on the same sample, block by block on that sample and on a text they have not seen.
#include <cstdio>

#include <ptq/io/corpus/overlap.hpp>
#include <ptq/methods.hpp>
#include <ptq/quantize.hpp>

#include "inputs.hpp"
#include "program.hpp"
#include "progress.hpp"

namespace ptq::driver {
namespace {

/// ‖B(x) − B_q(x_q)‖² of every sequence over the mean of ‖B(x)‖². x, xq (N, T, hidden) → N
std::vector<double> relative_errors(const Tensor& x, const Tensor& xq) {
  const auto squares = [](const Tensor& t) { return t.square().sum({1, 2}, false, at::kDouble); };  // (N)
  const Tensor relative = squares(xq - x) / squares(x).mean();
  return {relative.const_data_ptr<double>(), relative.const_data_ptr<double>() + relative.numel()};
}

double mean(const std::vector<double>& x) {
  double sum = 0;
  for (const double v : x) sum += v;
  return sum / static_cast<double>(x.size());
}

struct Errors {
  std::vector<std::vector<double>> learned, held_out;  ///< by block and sequence
};

/// Sends held-out tokens through every block as it is committed, beside the float block.
struct Probe : CommitSink {
  const Transformer& model;
  ReferenceStream& reference;
  Progress& progress;
  Tensor x, xq;  // (N, T, hidden) held out: float, quantized
  Errors errors;

  Probe(const Transformer& m, ReferenceStream& r, Progress& p, const Tensor& tokens)
      : model(m), reference(r), progress(p), x(m.embed(tokens)), xq(x.clone()) {}
  void commit(int64_t block, const QuantizedBlock& artefact, const Tensor& stream, const BlockReport&) override {
    FloatOperators plain(model.config(), model.load(block));
    QuantizedOperators committed(model.config(), artefact);
    ptq::detail::advance(model, block, plain, x, {}), ptq::detail::advance(model, block, committed, xq, {});
    errors.learned.push_back(relative_errors(reference.input(block + 1), stream)), errors.held_out.push_back(relative_errors(x, xq));
    progress.say(cat("block ", block, ": ", mean(errors.learned.back()), " where it learned, ", mean(errors.held_out.back()), " held out"));
  }
};

int generalisation(int argc, char** argv) {
  std::string path, weights = "int4:channel:range=flexround", calibrate = "books_valid:32x256", held_out = "books_test:32x256",
                    steps = "250", batch = "2", rank = "64", seed = "0", threads = "0", flexround_rate = "3e-3", lrq_rate = "3e-3";
  CLI::App app("Errors of blocks that FlexRound and LRQ learned, on the calibration sample and on held-out text");
  app.add_option("--model", path, "a .gguf file or a Hugging Face folder")->required();
  app.add_option("--weights", weights, "FORMAT (" + weights + ")");
  app.add_option("--calibrate", calibrate, "NAME|FILE:NxL (" + calibrate + ")");
  app.add_option("--held-out", held_out, "NAME|FILE:NxL (" + held_out + ")");
  app.add_option("--steps", steps, "updates a block (250)");
  app.add_option("--batch", batch, "sequences an update (2)");
  app.add_option("--rank", rank, "of LRQ (64)");
  app.add_option("--flexround-rate", flexround_rate, "(3e-3)");
  app.add_option("--lrq-rate", lrq_rate, "(3e-3)");
  app.add_option("--seed", seed, "of crops and batches (0)");
  app.add_option("--threads", threads, "0: all cores");
  read_arguments(app, argc, argv);
  if (const int n = parse_integer<int>(threads, "--threads", 0, 4096); n > 0) at::set_num_threads(n);
  auto flexround = methods::flexround;
  auto lrq = methods::lrq;
  flexround.learning.steps = parse_integer<int64_t>(steps, "--steps", 1, 1'000'000);
  flexround.learning.batch = parse_integer<int64_t>(batch, "--batch", 1, 4096);
  lrq.learning = flexround.learning;
  lrq.rounding.ranks = RankRule::fixed, lrq.rounding.rank = parse_integer<int64_t>(rank, "--rank", 1, 1 << 20);
  flexround.rounding.rate = parse_number(flexround_rate, "--flexround-rate"), lrq.rounding.rate = parse_number(lrq_rate, "--lrq-rate");
  Walk walk;
  walk.precision.weights = Scheme::parse(weights, "--weights", Role::weight);
  walk.seed = parse_integer<uint64_t>(seed, "--seed", 0, 1'000'000'000);

  const Model m = open_model(path);
  const io::TextSpec sample = io::parse_text_spec(calibrate), unseen = io::parse_text_spec(held_out);
  const auto places = places_of_texts();
  const io::Text text = io::load_text(sample.source, io::TextRole::calibration, places),
                 other = io::load_text(unseen.source, io::TextRole::evaluation, places);
  if (const auto same = io::overlap(text, other)) refuse("--held-out ", held_out, ": ", *same);
  Progress progress(false, m.transformer->blocks());
  const int64_t count = unseen.count.value_or(32), length = sample.length.value_or(256), window = unseen.length.value_or(256);
  if (count < 2) refuse("--held-out ", held_out, ": two windows at least, for a standard error");
  const auto say = [&](const std::string& line) { progress.say(line); };
  check_window("--calibrate", length, m.transformer->config(), say), check_window("--held-out", window, m.transformer->config(), say);
  const io::TokenSample crops =
      io::sample_tokens(text, m.tokenizer, io::Sampling::gptq, sample.count.value_or(32), length, walk.seed, io::Special::default_);
  const Tensor tokens = to_tensor(crops.rows, 0, crops.rows.count());
  const EvaluationText windows = cut(other, m.tokenizer, io::Protocol::gptq, window, count, io::Special::default_);
  std::vector<Errors> probes;  ///< FlexRound's, LRQ's
  for (const Stages& recipe : {stages(flexround), stages(lrq)}) {
    progress.say(recipe.label);
    ComputedReference reference(*m.transformer, tokens, walk.batch_tokens);
    Probe probe(*m.transformer, reference, progress, windows.windows.at(0));
    (void)quantize(recipe, *m.transformer, tokens, reference, probe, walk);
    probes.push_back(std::move(probe.errors));
  }
  std::printf("block   FlexRound: learned   held out   LRQ: learned   held out   LRQ - FlexRound, held out\n");
  size_t fewer_learned = 0, fewer = 0, surely = 0, surely_not = 0;
  for (size_t b = 0; b < probes[0].learned.size(); ++b) {
    const std::vector<double>&f = probes[0].held_out[b], &l = probes[1].held_out[b];
    std::vector<double> paired;
    for (size_t i = 0; i < f.size(); ++i) paired.push_back(l[i] - f[i]);
    const double difference = mean(paired), error = standard_error(paired), seen_f = mean(probes[0].learned[b]),
                 seen_l = mean(probes[1].learned[b]);
    fewer_learned += seen_l <= seen_f, fewer += difference <= 0, surely += difference<-2 * error, surely_not += difference> 2 * error;
    std::printf("%5zu   %18.6f   %8.6f   %12.6f   %8.6f   %+.3e ± %.1e\n", b, seen_f, mean(f), seen_l, mean(l), difference, error);
  }
  const size_t all = probes[0].learned.size();
  std::printf(
      "LRQ errs no more than FlexRound in %zu of %zu blocks where it learned, in %zu held out (by two standard errors less in %zu, more in "
      "%zu)\n",
      fewer_learned, all, fewer, surely, surely_not);
  return 0;
}

}  // namespace
}  // namespace ptq::driver

int main(int argc, char** argv) {
  return ptq::driver::guarded([&] { return ptq::driver::generalisation(argc, argv); });
}
