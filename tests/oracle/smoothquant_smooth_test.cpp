// SmoothQuant on a small LLaMA and a small OPT against the released code: factors, folds, W8A8 logits, static scales.
#include <ptq/quantize.hpp>
#include <ptq/smoothing/smoothquant.hpp>

#include "toy_model.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

/// The float stream with the maxima of the file, which are those of the released float32 run.
struct GivenMaxima : ComputedReference {
  using ComputedReference::ComputedReference;
  std::vector<Statistics> given;
  std::vector<Statistics> statistics(int64_t) override { return given; }
};

struct Sink : CommitSink {
  std::vector<QuantizedBlock> blocks;
  void commit(int64_t, const QuantizedBlock& b, const Tensor&, const BlockReport&) override { blocks.push_back(b); }
};

Scheme absmax(Granularity granularity) {
  Scheme s;
  s.bits = 8, s.symmetric = true, s.granularity = granularity, s.range = Range::absmax;
  return s;
}

struct Toy {
  std::shared_ptr<const io::Hdf5Reader> file;
  Precise precise;
  Transformer model;
  Head head;
  Tensor ids;  // (samples, tokens)

  Toy(const std::shared_ptr<const io::Hdf5Reader>& f, Family family, const Precise& p)
      : file(f),
        precise(p),
        model(toy_model(f, family, p.dtype)),
        head(model.load_head()),
        ids(io::get(*f, "in/input_ids").to(at::kLong)) {}

  [[nodiscard]] Tensor golden(const std::string& name) const { return io::get(*file, precise.name + ("/" + name)); }

  /// The maxima of the file by input group.
  [[nodiscard]] std::vector<Statistics> maxima() const {
    std::vector<Statistics> all;
    for (const InputGroup& g : model.layout().groups) {
      Statistics s;
      s.absmax = io::get(*file, "act_scales/layers.0." + model.layout().sites[static_cast<size_t>(g.sites[0])].name);
      all.push_back(s);
    }
    return all;
  }

  /// Logits of all samples, run in one call. (samples, tokens, vocab)
  [[nodiscard]] Tensor logits(Operators& ops) const { return model.logits(head, model.forward(0, model.embed(ids), ops)); }
};

/// The walk at W8A8, then one call over the whole batch.
Tensor quantized_logits(const Toy& toy, double alpha, Granularity weights, Granularity activations, bool outputs) {
  GivenMaxima reference(toy.model, toy.ids, 4096);
  reference.given = toy.maxima();
  Walk walk;
  walk.precision.weights = absmax(weights);
  walk.precision.activations = absmax(activations);
  if (outputs)
    for (const char* name : {"q_proj", "k_proj", "v_proj"}) walk.precision.outputs.emplace_back(name, absmax(activations));
  Sink sink;
  const Recipe<Nearest, SmoothQuant> recipe{.smoothing = {.alpha = alpha}};
  CHECK(quantize(stages(recipe), toy.model, toy.ids, reference, sink, walk) == 1);
  QuantizedOperators ops(toy.model.config(), sink.blocks.at(0));
  return toy.logits(ops);
}

void replay_alpha(const Toy& toy, double alpha, const std::string& group) {
  INFO(group);
  const bool wide = toy.precise.dtype == at::kDouble;
  const double close = wide ? 1e-9 : 2e-6, logits_close = wide ? 1e-9 : 1e-2;  // one flipped code moves float32 logits by up to 6e-3
  const Layout& layout = toy.model.layout();
  const BlockParameters block = toy.model.load(0);
  const SmoothQuant smooth{.alpha = alpha};
  const NamedTensors state = smooth.start(layout, block, toy.maxima());
  CHECK(state.size() == 2);
  const BlockParameters fused = smooth.fuse(layout, block, state);
  for (size_t i = 0; i < layout.norms.size(); ++i) {
    const std::string norm = group + "/layers.0/" + layout.norms[i];
    CHECK(far(state.at("s." + layout.groups[2 * i].name), toy.golden(norm + "/scale")) <= close);
    CHECK(far(fused.norms[i].weight, toy.golden(norm + "/norm_weight")) <= close);
    if (toy.model.config().is_opt()) CHECK(far(fused.norms[i].bias, toy.golden(norm + "/norm_bias")) <= close);
  }
  if (const std::string weights = group + "/layers.0/fused_weight"; toy.file->exists(toy.precise.name + ("/" + weights)))
    for (const std::string& name : toy.file->datasets(toy.precise.name + ("/" + weights)))
      CHECK(far(fused.linears[static_cast<size_t>(layout.site(name))].weight, toy.golden(weights + "/" + name)) <= close);

  FloatOperators before(toy.model.config(), block), after(toy.model.config(), fused);
  const Tensor plain = toy.logits(before);
  CHECK(far(toy.logits(after), plain) < (wide ? 1e-14 : 3e-6));  // the file's output_rel_change: 1e-15 and 6e-7
  CHECK(far(plain[0], toy.golden("reference_logits_first_sample")) <= close);

  const auto tensor_weights = toy.model.config().is_opt() ? Granularity::tensor : Granularity::channel;
  const Tensor token = quantized_logits(toy, alpha, Granularity::channel, Granularity::token, false);
  CHECK(far(token[0], toy.golden(group + "/w8a8_per_token_bmm0_logits_first_sample")) <= logits_close);
  const Tensor tensor = quantized_logits(toy, alpha, tensor_weights, Granularity::tensor, true);
  CHECK(far(tensor[0], toy.golden(group + "/w8a8_per_tensor_bmm1_logits_first_sample")) <= logits_close);
}

void replay(const fs::path& path, Family family) {
  const auto file = std::make_shared<const io::Hdf5Reader>(path);
  for (const Precise& p : golden_precisions) {
    INFO(path.filename().string() << " " << p.name);
    const Toy toy(file, family, p);
    for (const std::string& group : file->groups(p.name)) {
      if (!group.starts_with("alpha")) continue;
      replay_alpha(toy, file->attribute<double>(cat(p.name, "/", group), "alpha"), group);
    }
    // What the reference stream of our own gathers.
    ComputedReference reference(toy.model, toy.ids, 64);
    const std::vector<Statistics> mine = reference.statistics(0), given = toy.maxima();
    for (size_t g = 0; g < mine.size(); ++g) CHECK(far(mine[g].absmax, given[g].absmax) < 2e-6);
  }
}

}  // namespace

TEST_CASE("SmoothQuant replays the released code on a LLaMA model with grouped heads", "[oracle]") {
  const auto files = oracles({"smoothquant_smooth_llama"});
  if (files.empty()) SKIP_TEST("no smoothquant_smooth_llama*.h5 in data/oracles or PTQ_ORACLES");
  for (const auto& path : files) replay(path, Family::llama);
}

TEST_CASE("SmoothQuant replays the released code on an OPT model", "[oracle]") {
  const auto files = oracles({"smoothquant_smooth_opt"});
  if (files.empty()) SKIP_TEST("no smoothquant_smooth_opt*.h5 in data/oracles or PTQ_ORACLES");
  for (const auto& path : files) replay(path, Family::opt);
}

TEST_CASE("static scales are the running maxima of the released calibration", "[oracle]") {
  const auto files = oracles({"smoothquant_smooth_opt"});
  if (files.empty()) SKIP_TEST("no smoothquant_smooth_opt*.h5 in data/oracles or PTQ_ORACLES");
  for (const auto& path : files) {
    const auto file = std::make_shared<const io::Hdf5Reader>(path);
    const Toy toy(file, Family::opt, golden_precisions[1]);
    const Scheme fixed = Scheme::parse("int8:static:sym", "activations", Role::activation);
    Precision precision;
    precision.activations = fixed;
    for (const char* name : {"q_proj", "k_proj", "v_proj"}) precision.outputs.emplace_back(name, fixed);
    Formats formats = formats_of(precision, toy.model.layout(), 0);
    set_static_grids(formats, toy.model, 0, toy.model.load(0), toy.model.embed(toy.ids), 64);
    const auto golden = [&](const std::string& name) {
      return io::get(*file, "static_per_tensor/layers.0/" + name + "_scale").item<double>();
    };
    const char* inputs[] = {"attn_input", "out_input", "fc1_input", "fc2_input"};
    for (size_t g = 0; g < 4; ++g) CHECK(formats.inputs[g].fixed.scale.item<double>() == Approx(golden(inputs[g])).epsilon(2e-6));
    const char* outputs[] = {"q_output", "k_output", "v_output"};
    for (size_t s = 0; s < 3; ++s) CHECK(formats.outputs[s].fixed.scale.item<double>() == Approx(golden(outputs[s])).epsilon(2e-6));
    CHECK(!formats.outputs[3].scheme.active());
  }
}
