// FlexRound and LRQ through a two-block LLaMA, against the released procedure: streams, losses, codes, steps, logits.
#include "division.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

/// A walk that also looks at the streams which enter each block.
void replay(const std::shared_ptr<const io::Hdf5Reader>& file, const Precise& p) {
  const bool wide = p.dtype == at::kDouble;
  const Transformer model = toy_model(file, Family::llama, p.dtype);
  const Tensor ids = io::get(*file, "in/input_ids").to(at::kLong);  // (samples, tokens)
  Stages stages = division_stages(*file);
  if (is_lrq(*file, "/")) {
    const auto given = std::make_shared<GivenFactors>();
    given->inner = stages.rounding;
    for (int64_t b = 0; b < model.blocks(); ++b) {
      const BlockParameters loaded = model.load(b);
      for (size_t i = 0; i < loaded.linears.size(); ++i)
        given->factors.emplace_back(loaded.linears[i].weight,
                                    io::get(*file, cat("in/U_init/layers.", b, ".", model.layout().sites[i].name)).to(p.dtype));
    }
    stages.rounding = given;
  }
  Precision precision;
  precision.weights = division_scheme(*file, "/");
  const Kept kept = walk(model, stages, precision, ids);
  ComputedReference reference(model, ids, 4096);

  for (int64_t b = 0; b < model.blocks(); ++b) {
    INFO("block " << b);
    const auto n = static_cast<size_t>(b);
    const std::string at = cat(p.name, "/block", b, "/");
    const DivisionTolerance t(*file, p, cat("_block", b));
    check_losses(kept.reports[n].losses, io::get(*file, at + "loss"), t, p);
    const BlockParameters loaded = model.load(b);
    for (size_t i = 0; i < loaded.linears.size(); ++i) {
      const Site& site = model.layout().sites[i];
      INFO(site.name);
      const std::string name = short_name(site);
      const QuantizedLinear& mine = kept.blocks[n].linears[i];
      check_signed(signed_codes(mine.codes, mine.grid), io::get(*file, at + "codes_final/" + name), t.codes);
      if (!wide) continue;
      const NamedTensors start = stages.rounding->start(loaded.linears[i].weight, precision.weights);
      check_signed(signed_codes(*stages.rounding, start, loaded.linears[i].weight, precision.weights),
                   io::get(*file, at + "codes_init/" + name), 0);
      check_step(start.at("l1").exp(), io::get(*file, at + "step/" + name), {p.name, p.dtype, 1e-13, 0});
      check_equal(mine.grid.zero, io::get(*file, at + "zero/" + name));
      const Tensor l1 = kept.blocks[n].state.at(cat("rounding.", site.name, ".l1"));
      CHECK(largest(l1 - io::get(*file, cat(at, "learned/", name, "/l1"))) <= t.parameter);
    }
    if (!wide) continue;
    const Tensor xq = b == 0 ? model.embed(ids) : kept.streams[n - 1];  // (samples, tokens, hidden)
    const Tensor norms = io::get(*file, at + "stream_norms");           // (samples, 3)
    const std::pair<const char*, Tensor> streams[] = {{"X_q", xq}, {"Y_fp", reference.input(b + 1)}, {"X_fp", reference.input(b)}};
    int64_t column = 0;
    for (const auto& [name, stream] : streams) {
      INFO(name);
      CHECK(far(stream[0], io::get(*file, cat(at, "stream_first_sample/", name))) <= 1e-9);
      CHECK(far(stream.flatten(1).norm(2, 1), norms.select(1, column++)) <= 1e-9);
    }
  }
  const Head head = model.load_head();
  const Tensor& last = kept.streams.back();
  const double tolerance = wide ? 1e-9 : 1e-4;
  CHECK(far(model.logits(head, last[0]), io::get(*file, "f64/logits_first_sample")) <= tolerance);
  const auto loss = [&](const Tensor& stream) { return model.nll(head, stream, ids).mean().item<double>(); };
  CHECK(loss(last) == Approx(file->attribute<double>(p.name, "nll_quantized")).epsilon(tolerance));
  CHECK(loss(reference.input(model.blocks())) == Approx(file->attribute<double>(p.name, "nll_fp")).epsilon(tolerance));
}

}  // namespace

TEST_CASE("FlexRound and LRQ quantize a two-block LLaMA as the released code does", "[oracle]") {
  const auto files = oracles({"flexround_pipeline", "lrq_pipeline"});
  if (files.empty()) SKIP_TEST("no flexround_pipeline*.h5 or lrq_pipeline*.h5 in data/oracles or PTQ_ORACLES");
  const c10::NoGradGuard off;
  for (const auto& path : files)
    for (const Precise& p : golden_precisions) {
      INFO(path.filename().string() << " " << p.name);
      replay(std::make_shared<const io::Hdf5Reader>(path), p);
    }
}
