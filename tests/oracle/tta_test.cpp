// The test-time adaptation of LRQuant as released, which fits the last block to embeddings, against its driver.
#include <ptq/adaptation/tta.hpp>
#include <ptq/loss/nlc.hpp>
#include <ptq/loss/sum.hpp>
#include <ptq/quantize/refit.hpp>
#include <ptq/rounding/learned_clip.hpp>

#include "let_file.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

using Method = Recipe<LearnedClip, LearnedLog, Sum<Mse, Nlc>, Direct, NoCorrection, Tta>;

struct GivenStatistics : ComputedReference {
  using ComputedReference::ComputedReference;
  std::function<std::vector<Statistics>(int64_t block)> given;
  std::vector<Statistics> statistics(int64_t block) override { return given(block); }
};

struct Sink : CommitSink {
  std::vector<QuantizedBlock> blocks;
  std::vector<BlockReport> reports;
  void commit(int64_t, const QuantizedBlock& b, const Tensor&, const BlockReport& r) override { blocks.push_back(b), reports.push_back(r); }
};

Precision four_bits(const io::Hdf5Reader& file) {
  Precision p;
  p.weights.bits = file.attribute<int>("/", "wbits"), p.weights.range = Range::omni;
  p.activations.bits = file.attribute<int>("/", "abits");
  p.activations.granularity = Granularity::token, p.activations.range = Range::omni;
  for (const auto which : {Operand::query, Operand::key, Operand::value}) p.attention[static_cast<size_t>(which)] = p.activations;
  return p;
}

Method method(const io::Hdf5Reader& file) {
  Method m;
  const auto count = [&](const char* name) { return file.attribute<int64_t>("/", name); };
  m.smoothing.tie_rotary = false, m.smoothing.rate = file.attribute<double>("/", "tta_let_lr");
  m.rounding.rate = file.attribute<double>("/", "tta_lwc_lr");
  m.learning.optimizer = Optimizer::adamw, m.learning.epochs = count("calibration_epochs"), m.learning.tracked = 0;
  m.learning.epsilon = 1e-8 * static_cast<double>(count("tokens"));
  m.adaptation = {.epochs = count("tta_epochs"),
                  .batch = count("tta_batch"),
                  .input = RefitInput::literal,
                  .smoothing_rate = m.smoothing.rate,
                  .rounding_rate = m.rounding.rate};
  return m;
}

/// Mean next-token loss of every segment under the given operators of the last block.
Tensor segments(const Transformer& model, const Tensor& x, const Tensor& ids) { return model.nll(model.load_head(), x, ids).mean(1); }

}  // namespace

TEST_CASE("test-time adaptation as released: losses of every step, parameters, codes, scores of every segment", "[oracle]") {
  const auto files = oracles({"lrquant_tta"});
  if (files.empty()) SKIP_TEST("no lrquant_tta*.h5 in data/oracles or PTQ_ORACLES");
  const c10::NoGradGuard off;
  for (const auto& path : files) {
    const auto file = std::make_shared<const io::Hdf5Reader>(path);
    for (const Precise& p : golden_precisions) {
      INFO(path.filename().string() << " " << p.name);
      const bool wide = p.dtype == at::kDouble;
      const auto tolerance = [&](const char* what) { return file->attribute<double>("/", cat("tol_", p.name, "_", what)); };
      const auto golden = [&](const std::string& name) { return io::get(*file, cat(p.name, "/", name)); };
      const Transformer model = toy_model(file, Family::llama, p.dtype);
      const Layout& layout = model.layout();
      const Method recipe = method(*file);
      const Stages parts = stages(recipe);
      const Tensor calibration = io::get(*file, "in/calibration_ids").to(at::kLong), ids = io::get(*file, "in/test_ids").to(at::kLong);
      Walk walk;
      walk.precision = four_bits(*file);
      GivenStatistics reference(model, calibration, 64);
      reference.given = [&](int64_t block) { return let_statistics(*file, layout, cat("layers.", block, ".")); };
      Sink sink;
      REQUIRE(quantize(parts, model, calibration, reference, sink, walk) == model.blocks());
      if (wide)
        for (size_t b = 0; b < sink.blocks.size(); ++b) {
          const Tensor mine = at::tensor(sink.reports[b].losses, at::kDouble), losses = golden(cat("calibration/block", b, "/loss"));
          CHECK(largest((mine - losses) / losses) <= tolerance("loss_rel"));
        }

      Tensor x = model.embed(ids);
      const Tensor embedded = x.clone();
      for (int64_t b = 0; b + 1 < model.blocks(); ++b) x = ptq::detail::run_block(model, b, sink.blocks[static_cast<size_t>(b)], x);
      ComputedReference floats(model, ids, 64);
      const Refitted done = refit(
          parts, model, [&](int64_t b) { return sink.blocks.at(static_cast<size_t>(b)); }, {embedded, x}, floats, walk);
      REQUIRE(done.blocks.size() == 1);
      const QuantizedBlock& last = done.blocks[0];
      const Tensor mine = at::tensor(done.reports[0].losses, at::kDouble), losses = golden("loss");
      REQUIRE(mine.numel() == losses.numel());
      CHECK(largest((mine - losses) / losses) <= tolerance("loss_rel"));
      const std::string end = cat("params/step", losses.numel());
      int64_t wrong = 0, all = 0;
      for (const auto& [name, t] : last.state) {
        INFO(name);
        std::string at = name.starts_with("smoothing.") ? let_name(name.substr(10)) : "";
        if (at.empty()) {
          const std::string site = name.substr(9, name.rfind('.') - 9);  // rounding.<site>.<up|low>
          at = cat(short_name(site), "/lwc_", name.substr(name.rfind('.') + 1));
        }
        // The state is stored after the floor, the snapshot before it.
        Tensor expected = golden(end + "/" + at).reshape({-1});
        if (name.starts_with("smoothing.s.")) expected = away_from_zero(expected, 0.01);
        CHECK(largest(t.reshape({-1}) - expected) <= tolerance("param_abs"));
      }
      for (size_t i = 0; i < layout.sites.size(); ++i) {
        const std::string at = "final/" + short_name(layout.sites[i].name);
        wrong += last.linears[i].codes.to(at::kInt).ne(golden(at + "/codes")).sum().item<int64_t>(), all += last.linears[i].codes.numel();
        if (wide) check_equal(last.linears[i].grid.zero, golden(at + "/zero"));
        if (wide) CHECK(far(last.linears[i].grid.scale.reshape({-1}), golden(at + "/scale").reshape({-1})) <= 1e-8);
      }
      CHECK(static_cast<double>(wrong) <= tolerance("code_fraction") * static_cast<double>(all));
      if (!wide) continue;
      const Tensor before = ptq::detail::run_block(model, 1, sink.blocks[1], x), after = ptq::detail::run_block(model, 1, last, x);
      CHECK(far(segments(model, before, ids), golden("nll_per_segment/calibrated")) <= 1e-9);
      CHECK(far(segments(model, after, ids), golden("nll_per_segment/after_tta")) <= 1e-9);
      CHECK(far(segments(model, floats.input(2), ids), golden("nll_per_segment/fp")) <= 1e-9);
    }
  }
}
