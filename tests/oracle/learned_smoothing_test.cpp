// Statistics, starts, folds and gradients of LRQuant's and OmniQuant's transformation against the released codes.
#include <ptq/calibration/reference.hpp>
#include <ptq/loss/nlc.hpp>
#include <ptq/loss/sum.hpp>
#include <ptq/quantize.hpp>
#include <ptq/rounding/learned_clip.hpp>

#include "let_file.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

struct Let {
  std::shared_ptr<const io::Hdf5Reader> file;
  Precise precise;
  std::string method;
  Family family;
  Transformer model;
  BlockParameters block;
  LearnedLog policy;

  Let(const std::shared_ptr<const io::Hdf5Reader>& f, const Precise& p, std::string m, Family of)
      : file(f),
        precise(p),
        method(std::move(m)),
        family(of),
        model(toy_model(f, of, p.dtype, "", 1)),
        block(model.load(0)),
        policy(let_policy(*f, method, of)) {}

  [[nodiscard]] Tensor golden(const std::string& name) const { return io::get(*file, cat(precise.name, "/", name)); }
  [[nodiscard]] bool has(const std::string& name) const { return file->exists(cat(precise.name, "/", name)); }
  [[nodiscard]] Tensor in(const char* name) const { return io::get(*file, cat("in/", name)).to(precise.dtype); }
  [[nodiscard]] bool wide() const { return precise.dtype == at::kDouble; }
};

void check_start(const Let& c) {
  const NamedTensors state = c.policy.start(c.model.layout(), c.block, let_statistics(*c.file, c.model.layout()));
  CHECK(state.size() == (c.policy.shifts == Shifts::all || c.family == Family::opt ? 7 : 4));
  for (const auto& [key, t] : state) {
    INFO(key);
    const Tensor golden = c.has("init/after_floor") ? c.golden("init/after_floor/" + let_name(key)) : c.golden("init/" + let_name(key));
    CHECK(largest(t - golden) <= (c.wide() ? 1e-14 : 1e-6) * std::max(largest(golden), 1e-30));
  }
}

/// The fused block of one set of parameters, its output, and the gradient of Σ R · output.
void check_fold(const Let& c, const std::string& set) {
  INFO(set);
  const double close = c.wide() ? 1e-13 : 2e-6;
  NamedTensors like = c.policy.start(c.model.layout(), c.block, let_statistics(*c.file, c.model.layout()));
  if (c.policy.shifts != Shifts::all)  // the file has shifts though nothing learns them
    for (const char* name : {"attention_in", "attention_out", "mlp_in"}) like[cat("d.", name)] = Tensor();
  const std::string from = c.has(set + "/after_floor") ? cat(c.precise.name, "/", set, "/after_floor") : cat(c.precise.name, "/", set);
  NamedTensors state = let_state(*c.file, from, c.precise.dtype, like);
  if (set == "random") {
    NamedTensors raw = let_state(*c.file, "in/random", c.precise.dtype, like);
    c.policy.project(raw);
    for (const auto& [key, t] : state) CHECK(largest(raw.at(key) - t) <= (c.wide() ? 0 : 1e-7));
  }
  if (c.method == "omniquant" && c.family == Family::opt) return;  // what its training folds is wrong: v's columns are divided
  const c10::AutoGradMode on(true);
  for (auto& [key, t] : state) t.requires_grad_(true);
  const BlockParameters fused = c.policy.fuse(c.model.layout(), c.block, state);
  const Layout& layout = c.model.layout();
  const auto check = [&](const std::string& place, const Tensor& mine) {
    INFO(place);
    if (!c.has(place)) return;
    const Tensor golden = c.golden(place);
    CHECK(largest(mine.detach() - golden) <= close * std::max(largest(golden), 1e-6));
  };
  for (size_t i = 0; i < layout.sites.size(); ++i) {
    const std::string at = set + "/fold/" + short_name(layout.sites[i].name);
    check(at + "/weight", fused.linears[i].weight);
    if (fused.linears[i].bias.defined()) check(at + "/bias", fused.linears[i].bias);
  }
  for (size_t i = 0; i < layout.norms.size(); ++i) {
    check(set + "/fold/" + layout.norms[i] + "/weight", fused.norms[i].weight);
    check(set + "/fold/" + layout.norms[i] + "/bias", fused.norms[i].bias);
  }
  FloatOperators ops(c.model.config(), fused);
  const Tensor y = c.model.forward(0, c.in("X"), ops);
  if (c.has(set + "/fold_output")) CHECK(far(y.detach(), c.golden(set + "/fold_output")) <= (c.wide() ? 1e-12 : 2e-6));
  if (!c.has(set + "/fold_grad")) return;
  (y * c.in("R")).sum().backward();
  for (const auto& [key, t] : state) {
    INFO(key);
    const Tensor golden = c.golden(set + "/fold_grad/" + let_name(key));
    // A shift leaves the float output where it is, so its gradient is rounding noise beside that of the scales.
    CHECK(largest(t.grad() - golden) <= 1e-9 * std::max(largest(golden), 1.0));
  }
}

/// The block with everything rounded, as while learning and as committed: outputs, loss, the gradient of every parameter.
void check_rounded(const Let& c, const std::string& set, const std::string& formats_name) {
  const std::string at = set + "/" + formats_name;
  if (!c.has(at)) return;
  INFO(at);
  const bool opt = c.family == Family::opt;
  const bool wrong_fold = c.method == "omniquant" && opt;  // while learning; what is committed is right
  const Layout& layout = c.model.layout();
  Precision precision;
  precision.weights.bits = formats_name == "w4a4" ? 4 : 3, precision.weights.range = Range::omni;
  if (formats_name == "w4a4") {
    Scheme four;
    four.bits = 4, four.granularity = Granularity::token, four.range = Range::omni;
    precision.activations = four;
    for (const char* name : {"q_proj", "k_proj", "v_proj"})
      if (opt) precision.outputs.emplace_back(name, four);
    for (const auto which : {Operand::query, Operand::key, Operand::value})
      if (!opt) precision.attention[static_cast<size_t>(which)] = four;
  }
  Recipe<LearnedClip, LearnedLog, Sum<Mse, Nlc>> recipe;
  recipe.smoothing = c.policy;
  if (c.method == "omniquant") recipe.loss.term<Nlc>().weight = 0;
  const Stages parts = stages(recipe);
  const std::vector<Scheme> schemes(layout.sites.size(), precision.weights);
  const Formats formats = formats_of(precision, layout, 0);
  BlockState state;
  const NamedTensors like = c.policy.start(layout, c.block, let_statistics(*c.file, layout));
  state.smoothing = let_state(*c.file, set == "init" ? cat(c.precise.name, "/init") : "in/random", c.precise.dtype, like);
  c.policy.project(state.smoothing);
  const BlockParameters fused = c.policy.fuse(layout, c.block, state.smoothing);
  for (size_t i = 0; i < layout.sites.size(); ++i) {
    NamedTensors logits = recipe.rounding.start(fused.linears[i].weight, precision.weights);
    for (auto& [name, t] : logits)
      if (set != "init") t = c.in(cat("random_lwc/", short_name(layout.sites[i].name), "/lwc_", name).c_str()).view(t.sizes()).clone();
    state.rounding.push_back(logits);
  }
  const Tensor x = c.in("X");
  FloatOperators plain(c.model.config(), c.block);
  const Tensor target = c.model.forward(0, x, plain);
  {
    const c10::NoGradGuard off;
    BlockReport report;
    report.linears.resize(layout.sites.size());
    ComputedReference none(c.model, {}, 64);
    Walk small;
    small.batch_tokens = 64;
    const QuantizedBlock done = solve_block(
        parts, c.model, 0, fused, state, schemes, formats, x, none, small, [](const char*) {}, report);
    QuantizedOperators ops(c.model.config(), done);
    if (c.has(at + "/final_output")) CHECK(far(c.model.forward(0, x, ops), c.golden(at + "/final_output")) <= 1e-9);
    for (size_t i = 0; i < layout.sites.size() && c.has(at + "/codes") && !wrong_fold; ++i) {
      const std::string name = short_name(layout.sites[i].name);
      check_equal(done.linears[i].codes, c.golden(at + "/codes/" + name));
      check_equal(done.linears[i].grid.zero, c.golden(at + "/zero/" + name));
      check_step(done.linears[i].grid.scale, c.golden(at + "/scale/" + name), {"", at::kDouble, 1e-12, 1e-12});
    }
  }
  if (wrong_fold) return;
  const c10::AutoGradMode on(true);
  std::vector<std::pair<std::string, Tensor>> leaves;
  for (auto& [key, t] : state.smoothing) leaves.emplace_back(let_name(key), t.requires_grad_(true));
  for (size_t i = 0; i < layout.sites.size(); ++i)
    for (auto& [key, t] : state.rounding[i]) leaves.emplace_back(short_name(layout.sites[i].name) + "/lwc_" + key, t.requires_grad_(true));
  FormatOperators ops(c.model.config(), fake_quantized(parts, layout, c.block, state, schemes), formats);
  const Tensor y = c.model.forward(0, x, ops), loss = parts.loss->value({target, target}, y);
  CHECK(far(y.detach(), c.golden(at + "/temporary_output")) <= (c.wide() ? 1e-12 : 2e-6));
  CHECK(loss.item<double>() == Approx(c.golden(at + "/loss").item<double>()).epsilon(c.wide() ? 1e-12 : 2e-6));
  if (!c.wide()) return;
  loss.backward();
  for (const auto& [name, leaf] : leaves) {
    INFO(name);
    const Tensor golden = c.golden(at + "/grad/" + name).reshape({-1});
    CHECK(largest(leaf.grad().reshape({-1}) - golden) <= 1e-9 * largest(golden) + 1e-15);
  }
}

void replay(const std::string& prefix, const std::string& method, Family family) {
  const auto files = oracles({prefix});
  if (files.empty()) SKIP_TEST("no " + prefix + "*.h5 in data/oracles or PTQ_ORACLES");
  for (const auto& path : files) {
    const auto file = std::make_shared<const io::Hdf5Reader>(path);
    for (const Precise& p : golden_precisions) {
      INFO(path.filename().string() << " " << p.name);
      const Let c(file, p, method, family);
      FloatOperators plain(c.model.config(), c.block);
      if (c.has("fp_output")) CHECK(far(c.model.forward(0, c.in("X"), plain), c.golden("fp_output")) <= (c.wide() ? 1e-13 : 2e-6));
      check_start(c);
      for (const char* set : {"init", "random", "random_tied"})
        if (c.has(set) && c.has(cat(set, "/qkv_smooth_scale")) | c.has(cat(set, "/after_floor"))) check_fold(c, set);
      for (const char* set : {"init", "random"})
        for (const char* formats : {"w4a4", "w3a16"}) check_rounded(c, set, formats);
    }
  }
}

}  // namespace

TEST_CASE("LRQuant's transformation of a LLaMA block starts, folds and differentiates as released", "[oracle]") {
  replay("lrquant_let_llama", "lrquant", Family::llama);
}
TEST_CASE("LRQuant's transformation of an OPT block starts, folds and differentiates as released", "[oracle]") {
  replay("lrquant_let_opt", "lrquant", Family::opt);
}
TEST_CASE("OmniQuant's transformation of a LLaMA block starts, folds and differentiates as released", "[oracle]") {
  replay("omniquant_let_llama", "omniquant", Family::llama);
}
TEST_CASE("OmniQuant's transformation of an OPT block starts as released", "[oracle]") {
  replay("omniquant_let_opt", "omniquant", Family::opt);
}

TEST_CASE("maxima and running middles of the reference stream are those of the released script", "[oracle]") {
  const auto files = oracles({"lrquant_stats"});
  if (files.empty()) SKIP_TEST("no lrquant_stats*.h5 in data/oracles or PTQ_ORACLES");
  for (const auto& path : files) {
    const auto file = std::make_shared<const io::Hdf5Reader>(path);
    for (const Family family : {Family::llama, Family::opt}) {
      const std::string root = family == Family::opt ? "opt/" : "llama/";
      INFO(path.filename().string() << " " << root);
      {                                                                                  // the running rules alone
        const Tensor x = io::get(*file, root + "raw_inputs_layers.1.self_attn.q_proj");  // (samples, tokens, width)
        Statistics s;
        for (int64_t first = 0; first < x.size(0); first += 3)  // batches do not matter
          s.add({.absmax = true, .middle = true}, x.narrow(0, first, std::min<int64_t>(3, x.size(0) - first)));
        CHECK(at::equal(s.absmax, io::get(*file, root + "f32_model/act_scales/layers.1.self_attn.q_proj")));
        CHECK(far(s.middle, io::get(*file, root + "f32_model/act_shifts/layers.1.self_attn.q_proj")) <= 3e-7);
      }
      for (const Precise& p : golden_precisions) {
        const Transformer model = toy_model(file, family, p.dtype, root);
        ComputedReference reference(model, io::get(*file, root + "in/input_ids").to(at::kLong), 64);
        for (int64_t b = 0; b < model.blocks(); ++b) {
          const auto stats = reference.statistics(b);
          for (const Site& site : model.layout().sites) {
            INFO(p.name << " block " << b << " " << site.name);
            const Statistics& s = stats[static_cast<size_t>(site.group)];
            const auto golden = [&](const char* what) {
              return io::get(*file, cat(root, p.name, "_model/", what, "/layers.", b, ".", site.name));
            };
            CHECK(far(s.absmax, golden("act_scales")) <= 2e-6);
            CHECK(far(s.middle, golden("act_shifts")) <= 2e-6);
          }
        }
      }
    }
  }
}
