// A small OPT decoder through the whole of AWRQ against the released routine: smoothing, statistics, codes, streams; W4A8.
#include <ptq/methods.hpp>

#include "golden.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

struct Decoder {
  std::shared_ptr<const io::Hdf5Reader> file;
  at::ScalarType dtype;

  [[nodiscard]] int64_t count(const char* name) const { return file->attribute<int64_t>("/", name); }
  [[nodiscard]] double number(const char* name) const { return file->attribute<double>("/", name); }
  [[nodiscard]] Tensor get(const std::string& name) const { return io::get(*file, name).to(dtype); }

  /// The stream that enters a layer in the released run. (sequences, tokens, hidden)
  [[nodiscard]] Tensor input(int64_t layer) const { return get(layer == 0 ? "inputs/X" : cat("outputs/layer", layer - 1, "/Y")); }

  /// Layers `first` and later as a model whose embedding is the stream that enters them: token i is row i.
  [[nodiscard]] Transformer model(int64_t first, int64_t layers) const {
    ModelConfig c;
    c.family = Family::opt;
    c.hidden = c.embedding_dim = count("hidden"), c.ffn = count("ffn"), c.heads = c.kv_heads = count("heads");
    c.head_dim = c.hidden / c.heads, c.layers = layers, c.max_positions = count("tokens"), c.norm_eps = number("ln_eps");
    c.vocab = count("samples") * count("tokens"), c.activation = Activation::relu, c.qkv_bias = c.out_bias = c.mlp_bias = true;
    const Tensor stream = input(first).reshape({c.vocab, c.hidden});
    return Transformer(
        c,
        {[](const std::string&) { return true; },
         [=, file = file](const std::string& name, at::IntArrayRef shape) {
           const std::string inside = "layers.";
           const size_t at = name.find(inside);
           if (at != std::string::npos) {
             const size_t number = at + inside.size(), dot = name.find('.', number);
             return io::get(*file, cat("inputs/layer", first + std::stoll(name.substr(number, dot - number)), "/", name.substr(dot + 1)));
           }
           return name.ends_with("embed_tokens.weight") ? stream : at::zeros(shape);
         }},
        dtype);
  }
  [[nodiscard]] Tensor tokens() const { return at::arange(count("samples") * count("tokens")).view({count("samples"), count("tokens")}); }

  [[nodiscard]] Stages stages() const {
    auto recipe = methods::awrq_as_published;
    recipe.smoothing.alpha = number("alpha"), recipe.smoothing.min = number("min");
    recipe.solver.damp = number("percdamp"), recipe.solver.block = count("blocksize");
    recipe.solver.order = count("act_order") != 0 ? ColumnOrder::descending : ColumnOrder::natural;
    return ptq::stages(recipe);
  }
  [[nodiscard]] Precision precision() const {
    const std::string group = count("groupsize") > 0 ? cat("g", count("groupsize")) : std::string("channel");
    return formats(cat("int", count("wbits"), ":", group, count("sym") != 0 ? ":sym" : ""), cat("int", count("act_bits"), ":tensor"));
  }
};

/// One layer fed with the released stream.
void replay_layer(const Decoder& d, int64_t layer) {
  INFO("layer " << layer);
  const Transformer model = d.model(layer, 1);
  const Layout& layout = model.layout();
  const Tensor x = d.input(layer);
  REQUIRE(at::equal(model.embed(d.tokens()), x));
  ComputedReference reference(model, d.tokens(), 4096);
  Walk how;
  how.precision = d.precision();
  BlockReport report;
  const BlockOutcome done = quantize_block(d.stages(), model, 0, x, reference, how, report);
  const auto golden = [&](const std::string& name) { return d.get(cat("outputs/layer", layer, "/", name)); };
  const auto debug = [&](const std::string& name) { return d.get(cat("debug/layer", layer, "/", name)); };
  const BlockParameters loaded = model.load(0);

  for (size_t i = 0; i < layout.norms.size(); ++i) {
    CHECK(at::allclose(done.artefact.norms[i].weight, golden(layout.norms[i] + ".weight"), 1e-5, 0));
    CHECK(at::allclose(done.artefact.norms[i].bias, golden(layout.norms[i] + ".bias"), 1e-5, 1e-8));
  }
  const Formats& formats = done.artefact.formats;
  const auto stats =
      observe(model, 0, done.fused, x, {.hessian = true, .cross = true}, {.form = Observed::rounded, .formats = &formats}, 4096);
  bool all = true;
  for (size_t i = 0; i < layout.sites.size(); ++i) {
    const Site& site = layout.sites[i];
    const std::string& name = site.name;
    INFO(name);
    const auto group = static_cast<size_t>(site.group);
    const bool folded = d.file->attribute<int64_t>(cat("outputs/layer", layer, "/", name), "folded") != 0;
    const Tensor kept = done.artefact.input_scale[group], s = golden(name + "/smooth_scales");  // (in)
    CHECK(kept.defined() == !folded);
    if (!folded) CHECK(at::allclose(kept, s, 1e-5, 0));
    CHECK(at::allclose(done.fused.linears[i].weight, loaded.linears[i].weight * s, 1e-5, 0));
    CHECK(far(done.fused.linears[i].weight, debug(name + "/W_smoothed")) < 1e-5);
    const double n = static_cast<double>(stats[group].sequences);
    CHECK(far(stats[group].hessian / n, debug(name + "/H")) < 1e-5);
    CHECK(far(stats[group].cross / n, debug(name + "/M")) < 5e-4);

    const QuantizedLinear& mine = done.artefact.linears[i];
    CHECK(at::allclose(mine.grid.scale, golden(name + "/scale"), 1e-5, 0));
    check_equal(mine.grid.zero, golden(name + "/zero"));
    const Tensor differs = mine.codes.to(at::kInt).ne(golden(name + "/codes").to(at::kInt)), wrong = differs.any(1);  // (out, in), (out)
    CHECK(static_cast<double>(wrong.sum().item<int64_t>()) <= std::max(2.0, 0.02 * static_cast<double>(site.out)));
    const Tensor q = golden(name + "/Q");
    CHECK(largest((mine.weight() - q).masked_fill(differs, 0)) <= 1e-5 * largest(q));
    all = all && !wrong.any().item<bool>();
  }
  if (!all) WARN("codes of layer " << layer << " differ in " << c10::toString(d.dtype));
  QuantizedOperators ops(model.config(), done.artefact);
  const Tensor expected = golden("Y");  // (sequences, tokens, hidden)
  for (int64_t i = 0; i < x.size(0); ++i)
    CHECK(largest(model.forward(0, x.narrow(0, i, 1), ops) - expected.narrow(0, i, 1)) <= (all ? 1e-5 : 5e-2) * largest(expected));
}

}  // namespace

TEST_CASE("AWRQ replays the released routine on a decoder, layer by layer and as a whole", "[oracle]") {
  const auto files = oracles({"awrq_opt_block"});
  if (files.empty()) SKIP_TEST("no awrq_opt_block*.h5 in data/oracles or PTQ_ORACLES");
  const auto dtype = GENERATE(at::kFloat, at::kDouble);
  for (const auto& path : files) {
    const Decoder d{std::make_shared<const io::Hdf5Reader>(path), dtype};
    INFO(path.filename().string() << " in " << c10::toString(dtype));
    const int64_t layers = d.count("layers");
    for (int64_t layer = 0; layer < layers; ++layer) replay_layer(d, layer);

    const Transformer model = d.model(0, layers);
    const Kept kept = walk(model, d.stages(), d.precision(), d.tokens());
    REQUIRE(static_cast<int64_t>(kept.streams.size()) == layers);
    const Tensor y = kept.streams.back(), exact = d.get("outputs/Y_fp"), released = d.get(cat("outputs/layer", layers - 1, "/Y"));
    const auto error = [&](const Tensor& t) { return ((t - exact).square().sum() / exact.square().sum()).item<double>(); };
    CHECK(error(released) == Approx(d.number("rel_err_final")).epsilon(1e-3));
    CHECK(error(y) == Approx(error(released)).epsilon(0.1));
    // The stream of the float model is that of the file.
    ComputedReference reference(model, d.tokens(), 4096);
    CHECK(largest(reference.input(layers) - exact) <= 1e-5 * largest(exact));
  }
}
