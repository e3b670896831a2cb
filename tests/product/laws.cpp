#include "product/laws.hpp"

#include <ptq/evaluate/adapted.hpp>
#include <ptq/export/plain_block.hpp>
#include <ptq/run/block_file.hpp>

#include "catch.hpp"
#include "models.hpp"
#include "temporary_folder.hpp"

namespace ptq::test {
namespace {

using Catch::Matchers::ContainsSubstring;

/// What passes between the stages of a walk.
struct Trace {
  const Layout& layout;
  BlockParameters fused;                   // what the smoothing gave last
  std::map<std::string, Solution> solved;  // by place
  int64_t fits = 0;

  [[nodiscard]] size_t site(const std::string& place) const {
    for (size_t i = 0; i < layout.sites.size(); ++i)
      if (place.ends_with("." + layout.sites[i].name)) return i;
    fail("no site ", place);
  }
};

struct TracedSmoothing final : SmoothingStage {
  std::shared_ptr<const SmoothingStage> inner;
  Trace& trace;
  TracedSmoothing(std::shared_ptr<const SmoothingStage> s, Trace& t) : inner(std::move(s)), trace(t) {}
  Needs needs() const override { return inner->needs(); }
  Stream source() const override { return inner->source(); }
  NamedTensors start(const Layout& l, const BlockParameters& b, const std::vector<Statistics>& s) const override {
    return inner->start(l, b, s);
  }
  std::vector<Learnable> learnable() const override { return inner->learnable(); }
  BlockParameters fuse(const Layout& l, const BlockParameters& b, const NamedTensors& s) const override {
    return trace.fused = inner->fuse(l, b, s);
  }
  void project(NamedTensors& state) const override { inner->project(state); }
};

/// The weight of a linear, written out from its codes.
Tensor written_weight(const QuantizedLinear& l) {
  const Tensor codes = l.codes.to(at::kLong);  // (out, in)
  const int64_t in = codes.size(1);
  if (l.codebook.defined()) {
    Tensor w = at::empty(codes.sizes(), l.codebook.levels.options());
    for (int64_t j = 0; j < in; ++j) w.select(1, j).copy_(l.codebook.levels[j].index_select(0, codes.select(1, j)));
    return w;
  }
  const Tensor group = l.grid.group_of.defined() ? l.grid.group_of.to(at::kLong) : at::floor_divide(at::arange(in), in / l.grid.groups());
  const Tensor s = l.grid.scale.index_select(1, group), z = l.grid.zero.index_select(1, group);  // (out or 1, in)
  return (codes + l.grid.lowest - z).to(s.scalar_type()) * s;
}

void check_codes(const QuantizedLinear& l, const Scheme& scheme) {
  const Tensor codes = l.codes.to(at::kLong);
  if (l.codebook.defined()) {
    CHECK((codes < at::pow(2, l.codebook.bits.to(at::kLong))).all().item<bool>());
    CHECK(at::isfinite(l.codebook.levels).all().item<bool>());
    CHECK((l.codebook.levels.diff(1, 1) >= 0).all().item<bool>());
  } else {
    CHECK(codes.max().item<int64_t>() <= l.grid.highest - l.grid.lowest);
    CHECK(codes.max().item<int64_t>() < int64_t{1} << scheme.bits);
    CHECK((at::isfinite(l.grid.scale) & l.grid.scale.gt(0)).all().item<bool>());
  }
  CHECK(at::equal(l.weight(), written_weight(l)));
}

struct TracedSolver final : SolverStage {
  std::shared_ptr<const SolverStage> inner;
  std::string tag;
  Trace& trace;
  TracedSolver(std::shared_ptr<const SolverStage> s, std::string name, Trace& t) : inner(std::move(s)), tag(std::move(name)), trace(t) {}
  Needs needs() const override { return inner->needs(); }
  Observed observed() const override { return inner->observed(); }
  bool sequential() const override { return inner->sequential(); }
  std::optional<int> statistic_bits() const override { return inner->statistic_bits(); }
  Solution solve(const Problem& problem) const override {
    INFO(problem.place);
    CHECK(at::equal(problem.weight, trace.fused.linears[trace.site(problem.place)].weight));
    const Solution s = inner->solve(problem);
    check_codes(s.linear, problem.scheme);
    CHECK(at::isfinite(s.target).all().item<bool>());
    // A solver that makes up for something else than its own rounding moves the target; the others aim at the weight itself.
    if (tag != "awrq" && tag != "gptaq") CHECK(at::equal(s.target, problem.weight));
    // A learned grid is the solver's; levels of its own replace it.
    if (problem.coordinates.grid && !s.linear.codebook.defined()) CHECK(at::equal(s.linear.grid.scale, problem.coordinates.grid->scale));
    return trace.solved[problem.place] = s;
  }
};

/// The metric G of a correction's norm tr (E G Eᵀ), (in, in), as its paper has it.
Tensor metric(const std::string& tag, const Statistics& stats, int64_t in) {
  const auto tokens = static_cast<double>(stats.tokens);
  if (tag == "qera") return stats.hessian.to(at::kDouble) / tokens;
  if (tag != "l2qer") return at::eye(in, at::kDouble);
  const int64_t n = stats.profile.size(0);  // sequences, in batches of two
  REQUIRE(n % 2 == 0);
  const Tensor mean = stats.profile.reshape({n / 2, 2, in}).sum(1) / (2 * tokens / static_cast<double>(n));  // (batches, in)
  const Tensor a = mean.amax(0).clamp_min(1e-4);                                                             // (in)
  return at::diag(a.square() / (a.min() * a.max()));
}

struct TracedCorrection final : CorrectionStage {
  std::shared_ptr<const CorrectionStage> inner;
  std::string tag;
  Trace& trace;
  TracedCorrection(std::shared_ptr<const CorrectionStage> c, std::string name, Trace& t)
      : inner(std::move(c)), tag(std::move(name)), trace(t) {}
  bool active() const override { return inner->active(); }
  Needs needs() const override { return inner->needs(); }
  Stream source() const override { return inner->source(); }
  LowRank fit(const Residual& r) const override {
    INFO(r.place);
    ++trace.fits;
    const Solution& s = trace.solved.at(r.place);
    CHECK(at::equal(r.error, s.target - written_weight(s.linear)));  // W* − Q, not W − Q
    const LowRank f = inner->fit(r);
    REQUIRE(f.defined());
    CHECK(f.a.size(1) <= 4);
    const Tensor g = metric(tag, *r.stats, r.error.size(1)), before = r.error.to(at::kDouble),
                 after = before - at::mm(f.a.to(at::kDouble), f.b.to(at::kDouble)).t();  // (out, in)
    const auto size = [&](const Tensor& e) { return (at::mm(e, g) * e).sum().item<double>(); };
    CHECK(size(after) <= size(before) * (1 + 1e-6));
    CHECK(size(after) < size(before));  // full residuals: four directions always take something away
    return f;
  }
};

/// Keeps what is committed, beside the float block in the same basis.
struct TracedSink final : CommitSink {
  Trace& trace;
  Kept kept;
  std::vector<BlockParameters> fused;
  explicit TracedSink(Trace& t) : trace(t) {}
  void commit(int64_t i, const QuantizedBlock& b, const Tensor& x, const BlockReport& r) override {
    kept.commit(i, b, x, r), fused.push_back(trace.fused);
  }
};

/// The committed block written out: weights from codes, rounded inputs and operands, factors beside the product.
struct Written final : FloatOperators {
  const QuantizedBlock& block;
  Written(const ModelConfig& config, const QuantizedBlock& b) : FloatOperators(config, with_weights(b)), block(b) {}
  static BlockParameters with_weights(const QuantizedBlock& b) {
    BlockParameters p = b.parameters();
    for (size_t i = 0; i < p.linears.size(); ++i) p.linears[i].weight = written_weight(b.linears[i]);
    return p;
  }
  Tensor input(int group, const Tensor& x) override {
    return quantize_activation(FloatOperators::input(group, x), block.formats.inputs[static_cast<size_t>(group)].scheme);
  }
  Tensor linear(int site, const Tensor& x) override {
    const LowRank& c = block.linears[static_cast<size_t>(site)].correction;
    const Tensor y = FloatOperators::linear(site, x);
    return c.defined() ? y + at::matmul(at::matmul(x, c.a), c.b) : y;
  }
  Tensor operand(Operand which, const Tensor& t) override {
    return quantize_activation(t, block.formats.attention[static_cast<size_t>(which)]);
  }
  [[nodiscard]] bool operands_pass() const override { return !block.formats.attention_active(); }
};

std::string bytes(const Tensor& t) {
  if (!t.defined()) return "-";
  const Tensor c = t.contiguous();
  return cat(c10::toString(c.scalar_type()), shape_text(c)) +
         std::string(static_cast<const char*>(c.const_data_ptr()), static_cast<size_t>(c.nbytes()));
}

/// All that runs; not what was learned on the way to it.
std::string content(const QuantizedBlock& b) {
  std::string all;
  for (const QuantizedLinear& l : b.linears)
    for (const Tensor& t : {l.dense, l.codes, l.grid.scale, l.grid.zero, l.grid.group_of, l.codebook.levels, l.codebook.bits, l.kept.rows,
                            l.kept.values, l.correction.a, l.correction.b, l.bias})
      all += bytes(t);
  for (const NormParameters& n : b.norms) all += bytes(n.weight) + bytes(n.bias);
  for (const Tensor& t : b.input_scale) all += bytes(t);
  return all + bytes(b.query_norm) + bytes(b.key_norm);
}

std::map<std::string, std::string> state_of(const QuantizedBlock& b) {
  std::map<std::string, std::string> all;
  for (const auto& [name, t] : b.state) all[name] = bytes(t);
  return all;
}

Tensor forward(const Transformer& model, int64_t block, const Tensor& x, Operators&& ops) { return model.forward(block, x, ops); }

/// The block as an export to plain linears has it: no codes, no divisions at run time, no formats.
BlockParameters plain_parameters(const Transformer& model, const QuantizedBlock& block) {
  const auto tensors = plain_block(model.config(), model.layout(), block);
  const auto get = [&](const std::string& name) { return tensors.count(name) ? tensors.at(name) : Tensor(); };
  BlockParameters p;
  for (const Site& site : model.layout().sites) p.linears.push_back({get(site.name + ".weight"), get(site.name + ".bias")});
  for (const std::string& norm : model.layout().norms) p.norms.push_back({get(norm + ".weight"), get(norm + ".bias")});
  return p;
}

QuantizedBlock without_formats(QuantizedBlock b) {
  for (Format& f : b.formats.inputs) f = {};
  b.formats.attention = {};
  return b;
}

/// More bits than the format names, by what grids, codebooks and factors take.
void check_bits(const Entry& entry, const QuantizedBlock& b, const Scheme& scheme) {
  for (const QuantizedLinear& l : b.linears) {
    const BitCount bits = l.bits();
    if (l.codebook.defined())
      CHECK(bits.grid == 16.0 * static_cast<double>(l.codes.size(1) << scheme.bits) + 2.0 * static_cast<double>(l.codes.size(1)));
    else if (scheme.block_float())
      CHECK(bits.grid == 8.0 * static_cast<double>(l.grid.scale.numel()));
    else
      CHECK(bits.grid >= (32.0 + scheme.bits) * static_cast<double>(l.grid.scale.numel()));  // more where a zero point lies outside
    const double factors =
        entry.stages.correction->active() ? 32.0 * static_cast<double>(l.correction.a.numel() + l.correction.b.numel()) : 0;
    CHECK(bits.extra == factors);
    CHECK(bits.per_weight() > scheme.bits);
  }
}

/// Laws of a committed block. x, y (N, T, hidden): its stream; r, target: the float model's.
void check_block(const Entry& entry, const Setting& setting, int64_t i, const QuantizedBlock& b, const BlockParameters& fused,
                 const Tensor& x, const Tensor& y, const std::filesystem::path& file) {
  const Transformer& model = setting.model;
  const Layout& layout = model.layout();
  CHECK(at::isfinite(y).all().item<bool>());

  // It computes what fake quantization computes: bit for bit without factors, whose product has another order here.
  const Tensor written = forward(model, i, x, Written(model.config(), b));
  if (entry.stages.correction->active())
    CHECK(relative_error(written, y) < 2e-2);  // a last bit may carry an activation over the edge of its step
  else
    CHECK(at::equal(written, y));

  // With Direct, the committed weight is what learning saw.
  if (entry.tags[3] == "direct") {
    const BlockState state = detail::calibrated_state(b, layout);
    for (size_t k = 0; k < layout.sites.size(); ++k)
      CHECK(at::equal(b.linears[k].weight(),
                      entry.stages.rounding->weight(state.rounding[k], fused.linears[k].weight, setting.precision.weights)));
  }

  // Smoothing does not move what the float block computes; without one nothing is touched.
  const BlockParameters loaded = model.load(i);
  const Tensor plain = forward(model, i, x, FloatOperators(model.config(), loaded)),
               smooth = forward(model, i, x, FloatOperators(model.config(), fused));
  if (entry.tags[1] == "none") {
    CHECK(at::equal(plain, smooth));
    for (size_t k = 0; k < loaded.linears.size(); ++k) CHECK(at::equal(loaded.linears[k].weight, fused.linears[k].weight));
    for (size_t k = 0; k < loaded.norms.size(); ++k) CHECK(at::equal(loaded.norms[k].weight, b.norms[k].weight));
    for (const Tensor& t : b.input_scale) CHECK(!t.defined());
  } else {
    CHECK(relative_error(smooth, plain) < 1e-5);
    CHECK(!at::equal(loaded.norms[0].weight, b.norms[0].weight));
  }

  // On disk and back, bit for bit; and as plain linears, the same function with activations unquantized.
  save_block(file, b, layout);
  const QuantizedBlock read = load_block_file(file, layout);
  CHECK((content(read) == content(b)));
  CHECK((state_of(read) == state_of(b)));
  CHECK(read.bits().total() == b.bits().total());
  CHECK(at::equal(forward(model, i, x, QuantizedOperators(model.config(), read)), y));
  const Tensor exported = forward(model, i, x, FloatOperators(model.config(), plain_parameters(model, b)));
  CHECK(relative_error(exported, forward(model, i, x, QuantizedOperators(model.config(), without_formats(b)))) < 1e-5);

  check_bits(entry, b, setting.precision.weights);
  bool rounding = false, smoothing = false;  // what an adaptation goes on from is there, whether it was learned or not
  for (const auto& [name, t] : b.state) {
    (name.starts_with("rounding.") ? rounding : smoothing) = true;
    CHECK(at::isfinite(t).all().item<bool>());
  }
  CHECK(rounding == (entry.tags[0] != "nearest"));
  CHECK(smoothing == (entry.tags[1] != "none"));
}

}  // namespace

Outcome run(const Entry& entry, const Setting& setting) {
  static const TemporaryFolder folder("product");
  const c10::NoGradGuard off;
  const Transformer& model = setting.model;
  INFO(setting.name << ": " << entry.stages.label);

  Trace trace{model.layout(), {}, {}};
  Stages stages = entry.stages;
  stages.smoothing = std::make_shared<TracedSmoothing>(stages.smoothing, trace);
  stages.solver = std::make_shared<TracedSolver>(stages.solver, entry.tags[3], trace);
  stages.correction = std::make_shared<TracedCorrection>(stages.correction, entry.tags[4], trace);
  TracedSink sink(trace);
  ComputedReference reference(model, setting.tokens, 4096);
  Walk walk;
  walk.precision = setting.precision;
  REQUIRE(quantize(stages, model, setting.tokens, reference, sink, walk) == model.blocks());
  const Kept& kept = sink.kept;
  CHECK(trace.fits == (stages.correction->active() ? model.blocks() * static_cast<int64_t>(model.layout().sites.size()) : 0));

  Outcome out;
  for (int64_t i = 0; i < model.blocks(); ++i) {
    INFO("block " << i);
    const auto b = static_cast<size_t>(i);
    const QuantizedBlock& block = kept.blocks[b];
    const BlockReport& report = kept.reports[b];
    check_block(entry, setting, i, block, sink.fused[b], i == 0 ? model.embed(setting.tokens) : kept.streams[b - 1], kept.streams[b],
                folder / "block.h5");
    CHECK(report.error > 0);
    CHECK(report.error < 1);
    CHECK(report.losses.size() == (stages.learns() ? static_cast<size_t>(updates) : 0));
    for (const double l : report.losses) CHECK((std::isfinite(l) && l > 0));
    out.blocks.push_back(content(block));
    for (size_t k = 0; k < block.linears.size(); ++k) out.codes[cat(i, ".", model.layout().sites[k].name)] = bytes(block.linears[k].codes);
    for (const auto& [name, text] : state_of(block)) out.state[cat(i, ".", name)] = text;
  }

  // The text under test, after an adaptation to it where there is one; nothing of that is written back.
  const CommittedBlock committed = [&](int64_t b) { return kept.blocks.at(static_cast<size_t>(b)); };
  const AdaptedPerplexity score = adapted_perplexity(stages, model, model.load_head(), {setting.windows}, committed, walk);
  out.nll = score.perplexity.nll;
  for (const double l : out.nll) CHECK(std::isfinite(l));
  for (int64_t i = 0; i < model.blocks(); ++i) CHECK((content(committed(i)) == out.blocks[static_cast<size_t>(i)]));
  const QuantizedBlock& last = score.blocks.empty() ? kept.blocks.back() : score.blocks.back();
  out.adapted = content(last);
  CHECK(score.refits.size() == (stages.adaptation->steps() > 0 ? 1 : 0));
  for (const RefitReport& r : score.refits.empty() ? std::vector<RefitReport>{} : score.refits[0]) {
    CHECK(r.kept == (r.after < r.before));
    CHECK(last.bits().total() == kept.blocks.back().bits().total());
    CHECK((out.adapted != out.blocks.back()) <= r.kept);
    out.refitted = r.kept;
  }
  return out;
}

void require_refusal(const Entry& entry, const Setting& setting, const Reason& why) {
  INFO(setting.name << ": " << entry.stages.label);
  Trace trace{setting.model.layout(), {}, {}};
  TracedSink sink(trace);
  ComputedReference reference(setting.model, setting.tokens, 4096);
  Walk walk;
  walk.precision = setting.precision;
  CHECK_THROWS_WITH(quantize(entry.stages, setting.model, setting.tokens, reference, sink, walk),
                    ContainsSubstring(why) && ContainsSubstring(entry.stages.label));
  CHECK(sink.kept.blocks.empty());
}

}  // namespace ptq::test
