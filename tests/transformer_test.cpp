// Models against values that transformers computed, and the contract of a block's forward: places, folds, operators, refusals.
#include <ptq/model/transformer.hpp>

#include <set>

#include "catch.hpp"
#include "models.hpp"

using namespace ptq;

namespace {

/// Compares with the layout of *_reference.h5: one sequence of ids through the model, then windows cut from the first ids of a text.
void check_against_reference(const std::filesystem::path& path, const std::filesystem::path& reference_path, const std::string& text) {
  const at::NoGradGuard no_grad;
  const io::Hdf5Reader reference(reference_path);
  const Transformer model = test::open_model(path);
  const Head head = model.load_head();
  const Tensor ids = test::ids(reference, "forward/ids").unsqueeze(0);  // (1, tokens)
  Tensor x = model.embed(ids);
  CHECK(test::relative_error(x[0], test::values(reference, "forward/embedding")) < 1e-6);
  for (int64_t i = 0; i < model.blocks(); ++i) {
    FloatOperators ops(model.config(), model.load(i));
    x = model.forward(i, x, ops);
    const std::string name = cat("forward/after_block_", i);
    INFO(name);
    if (reference.exists(name)) CHECK(test::relative_error(x[0], test::values(reference, name)) < 1e-3);
  }
  CHECK(test::relative_error(model.head_input(head, x)[0], test::values(reference, "forward/final_norm_output")) < 1e-3);
  const Tensor logits = model.logits(head, x)[0].to(at::kDouble);  // (tokens, vocab)
  CHECK(test::relative_error(logits.narrow(1, 0, 64), test::values(reference, "forward/logits_head64")) < 1e-3);
  CHECK((at::logsumexp(logits, 1) - test::values(reference, "forward/logsumexp")).abs().max().item<double>() < 1e-3);
  CHECK((logits.argmax(1) == test::ids(reference, "forward/argmax")).sum().item<int64_t>() >= ids.size(1) - 1);  // one near tie

  Tensor nll = test::values(reference, "forward/nll_windows");               // (windows, length − 1)
  const Tensor head_ids = test::ids(reference, "tokens/" + text + "/head");  // the text's first ids
  const int64_t length = nll.size(1) + 1, windows = std::min(nll.size(0), head_ids.size(0) / length);
  nll = nll.narrow(0, 0, windows);
  const Tensor cut = head_ids.narrow(0, 0, windows * length).view({windows, length});
  x = model.embed(cut);
  for (int64_t i = 0; i < model.blocks(); ++i) {
    FloatOperators ops(model.config(), model.load(i));
    x = model.forward(i, x, ops);
  }
  const Tensor found = model.nll(head, x, cut);
  CHECK(test::relative_error(found, nll) < 1e-4);
  CHECK(std::exp(found.mean().item<double>()) == Approx(std::exp(nll.mean().item<double>())).epsilon(1e-4));
}

/// The float operators, noting what the forward asks for.
struct Recorder : FloatOperators {
  using FloatOperators::FloatOperators;
  std::vector<std::string> calls;
  Tensor norm(int i, const Tensor& x) override { return calls.push_back(cat("norm ", i)), FloatOperators::norm(i, x); }
  Tensor input(int i, const Tensor& x) override { return calls.push_back(cat("input ", i)), FloatOperators::input(i, x); }
  Tensor linear(int i, const Tensor& x) override { return calls.push_back(cat("linear ", i)), FloatOperators::linear(i, x); }
};

Tensor block_output(const Transformer& model, int64_t block, const Tensor& x, const BlockParameters& parameters) {
  FloatOperators ops(model.config(), parameters);
  return model.forward(block, x, ops);
}

Tensor some_input(const Transformer& model, int64_t tokens = 20) {
  at::manual_seed(7);
  return at::randn({2, tokens, model.config().hidden}, model.options());
}

/// A factor of a fold site's channels: equal where its source cannot tell them apart.
Tensor factor(const Transformer& model, const FoldSite& fold) {
  const int64_t width = model.layout().groups.at(static_cast<size_t>(fold.group)).width;
  if (fold.repeat == 1) return at::rand({width}, model.options()) + 0.5;
  return (at::rand({width / fold.repeat / fold.head, 1, fold.head}, model.options()) + 0.5).repeat({1, fold.repeat, 1}).view({width});
}

TensorLookup zoo_lookup(const std::string& name) {
  return test::lookup(std::make_shared<const io::Checkpoint>(io::Checkpoint::open((test::data() / "models/zoo" / name).string())),
                      at::kDouble);
}
ModelConfig zoo_config(const std::string& name) { return io::Checkpoint::open((test::data() / "models/zoo" / name).string()).config(); }

}  // namespace

TEST_CASE("llama_books equals its reference") {
  check_against_reference(test::data() / "models/llama_books", test::data() / "models/llama_books_reference.h5", "books_test");
}

TEST_CASE("opt_books equals its reference") {
  check_against_reference(test::data() / "models/opt_books", test::data() / "models/opt_books_reference.h5", "books_test");
}

TEST_CASE("SmolLM2 equals its reference, perplexity 30.6403 on 8 windows of 512") {
  const auto file = test::smollm2();
  if (!file) SKIP_TEST("SmolLM2 is not installed");
  check_against_reference(*file, test::data() / "models/smollm2_reference.h5", "wikitext2_test");
  const io::Hdf5Reader reference(test::data() / "models/smollm2_reference.h5");
  CHECK(std::exp(test::values(reference, "forward/nll_windows").mean().item<double>()) == Approx(30.6403).margin(1e-3));
}

TEST_CASE("a GGUF file of eleven tensor types gives its reference's hidden states, logits and log-likelihoods") {
  const at::NoGradGuard no_grad;
  const io::Hdf5Reader reference(test::data() / "models/gguf/llama_mixed_types.reference.h5");
  const Transformer model = test::open_model(test::data() / "models/gguf/llama_mixed_types.gguf");
  const Head head = model.load_head();
  const Tensor ids = test::ids(reference, "ids");
  Tensor x = model.embed(ids);
  for (int64_t i = 0; i <= model.blocks(); ++i) {
    const Tensor expected = test::values(reference, cat("hidden_", i));
    CHECK(test::greatest_error(i == model.blocks() ? model.head_input(head, x[0]) : x[0], expected) < 1e-4);
    if (i < model.blocks()) x = block_output(model, i, x, model.load(i));
  }
  CHECK(test::greatest_error(model.logits(head, x[0]).narrow(1, 0, 64), test::values(reference, "logits_head64")) < 1e-4);
  CHECK(test::greatest_error(model.nll(head, x, ids), test::values(reference, "nll")) < 1e-4);
}

TEST_CASE("a factor moved into what a fold site names leaves the block's output, in every model of the zoo") {
  const at::NoGradGuard no_grad;
  for (const auto& folder : test::zoo()) {
    const Transformer model = test::open_model(folder, at::kDouble);
    const Layout& layout = model.layout();
    const Tensor x = some_input(model), before = block_output(model, 0, x, model.load(0));
    CHECK(layout.folds.size() >= 2);
    for (const FoldSite& fold : layout.folds) {
      INFO(folder.string() << ", group " << fold.group);
      BlockParameters p = model.load(0);
      const Tensor s = factor(model, fold);
      for (const int site : layout.groups.at(static_cast<size_t>(fold.group)).sites) {
        Tensor& weight = p.linears.at(static_cast<size_t>(site)).weight;
        weight = weight * s;
      }
      CHECK(test::relative_error(block_output(model, 0, x, p), before) > 1e-3);
      if (fold.source == FoldSite::Source::norm) {
        NormParameters& norm = p.norms.at(static_cast<size_t>(fold.index));
        norm.weight = norm.weight / s;
        if (norm.bias.defined()) norm.bias = norm.bias / s;
      } else {
        LinearParameters& linear = p.linears.at(static_cast<size_t>(fold.index));
        const Tensor rows = s.view({-1, fold.repeat, fold.repeat == 1 ? 1 : fold.head}).select(1, 0).reshape({-1});
        linear.weight = linear.weight / rows.unsqueeze(1);
        if (linear.bias.defined()) linear.bias = linear.bias / rows;
      }
      CHECK(test::relative_error(block_output(model, 0, x, p), before) < 1e-12);
    }
  }
}

TEST_CASE("an input scale divides its group's input") {
  const at::NoGradGuard no_grad;
  for (const auto& folder : test::zoo()) {
    const Transformer model = test::open_model(folder, at::kDouble);
    const Tensor x = some_input(model), before = block_output(model, 0, x, model.load(0));
    for (size_t group = 0; group < model.layout().groups.size(); ++group) {
      BlockParameters p = model.load(0);
      p.input_scale[group] = at::rand({model.layout().groups[group].width}, model.options()) + 0.5;
      CHECK(test::relative_error(block_output(model, 0, x, p), before) > 1e-3);
      for (const int site : model.layout().groups[group].sites) p.linears[static_cast<size_t>(site)].weight.mul_(p.input_scale[group]);
      CHECK(test::relative_error(block_output(model, 0, x, p), before) < 1e-12);
    }
  }
}

TEST_CASE("after-norm OPT names no fold at its norms, grouped values name their repetition") {
  const Layout after = layout(zoo_config("opt_postnorm_projected")), before = layout(zoo_config("opt_prenorm"));
  const auto norms = [](const Layout& l) {
    return std::count_if(l.folds.begin(), l.folds.end(), [](const FoldSite& f) { return f.source == FoldSite::Source::norm; });
  };
  CHECK((norms(after) == 0 && norms(before) == 2));
  const Layout grouped = layout(zoo_config("llama_biases"));
  CHECK(grouped.folds.at(1).repeat == 4);
  CHECK(grouped.folds.at(1).head == 16);
}

TEST_CASE("a forward asks for each input group once, in order, before that group's linears") {
  for (const auto& folder : test::zoo()) {
    INFO(folder.string());
    const at::NoGradGuard no_grad;
    const Transformer model = test::open_model(folder);
    Recorder ops(model.config(), model.load(1));
    (void)model.forward(1, some_input(model), ops);
    int group = -1;
    std::set<std::string> linears;
    for (const std::string& call : ops.calls) {
      const int index = std::stoi(call.substr(call.rfind(' ') + 1));
      if (call.starts_with("input")) CHECK(index == ++group);
      if (call.starts_with("linear")) {
        CHECK(model.layout().sites.at(static_cast<size_t>(index)).group == group);
        CHECK(linears.insert(call).second);
      }
    }
    CHECK(group == 3);
    CHECK(linears.size() == model.layout().sites.size());
  }
}

TEST_CASE("earlier tokens do not see later ones, and sequences of a batch do not see each other") {
  const at::NoGradGuard no_grad;
  for (const auto& folder : test::zoo()) {
    const Transformer model = test::open_model(folder, at::kDouble);
    const BlockParameters p = model.load(0);
    const Tensor x = some_input(model), y = block_output(model, 0, x, p);
    Tensor other = x.clone();
    other.narrow(1, 12, 8).add_(1);
    CHECK(test::relative_error(block_output(model, 0, other, p).narrow(1, 0, 12), y.narrow(1, 0, 12)) < 1e-13);
    CHECK(test::relative_error(block_output(model, 0, x.narrow(0, 1, 1), p)[0], y[1]) < 1e-13);
  }
}

TEST_CASE("the forward has gradients with respect to weights, norms and input, and changes none of them") {
  for (const std::string name : {"qwen3_qk_norm", "opt_prenorm", "llama_biases"}) {
    INFO(name);
    const Transformer model = test::open_model(test::data() / "models/zoo" / name, at::kDouble);
    const Tensor x = some_input(model, 6), cotangent = at::randn(x.sizes(), model.options()), kept = x.clone();
    const auto loss = [&](const BlockParameters& p, const Tensor& in) { return (block_output(model, 0, in, p) * cotangent).sum(); };
    BlockParameters p = model.load(0);
    for (auto& linear : p.linears) linear.weight.requires_grad_();
    p.norms[0].weight.requires_grad_();
    const Tensor leaf = x.clone().requires_grad_();
    loss(p, leaf).backward();
    const at::NoGradGuard no_grad;
    const double step = 1e-6;
    const auto slope = [&](auto change) {  // change(parameters, input, by)
      BlockParameters up = model.load(0), down = model.load(0);
      Tensor above = x.clone(), below = x.clone();
      change(up, above, step), change(down, below, -step);
      return (loss(up, above).item<double>() - loss(down, below).item<double>()) / (2 * step);
    };
    for (size_t s = 0; s < p.linears.size(); ++s)
      CHECK(p.linears[s].weight.grad()[1][2].item<double>() ==
            Approx(slope([&](BlockParameters& b, Tensor&, double by) { b.linears[s].weight[1][2] += by; })).epsilon(1e-5).margin(1e-7));
    CHECK(p.norms[0].weight.grad()[3].item<double>() ==
          Approx(slope([&](BlockParameters& b, Tensor&, double by) { b.norms[0].weight[3] += by; })).epsilon(1e-5).margin(1e-7));
    CHECK(leaf.grad()[1][2][3].item<double>() ==
          Approx(slope([&](BlockParameters&, Tensor& in, double by) { in[1][2][3] += by; })).epsilon(1e-5).margin(1e-7));
    CHECK(at::equal(x, kept));
  }
}

TEST_CASE("bfloat16 weights and activations stay near float32") {
  const at::NoGradGuard no_grad;
  for (const auto& folder : test::zoo()) {
    INFO(folder.string());
    const Transformer model = test::open_model(folder), half = test::open_model(folder, at::kBFloat16);
    const Tensor x = some_input(model).to(at::kBFloat16);
    const Tensor y = block_output(half, 0, x, half.load(0));
    CHECK(y.scalar_type() == at::kBFloat16);
    CHECK(test::relative_error(y, block_output(model, 0, x.to(at::kFloat), model.load(0))) < 3e-2);
  }
}

TEST_CASE("oneDNN's product equals a product in float64") {
  at::manual_seed(5);
  const at::NoGradGuard no_grad;
  for (const auto& [rows, in, out] : std::vector<std::array<int64_t, 3>>{{1, 5, 3}, {33, 65, 17}, {128, 256, 96}}) {
    const Tensor x = at::randn({2, in, rows}).transpose(1, 2), w = at::randn({out, in}), b = at::randn({out});
    const Tensor expected = at::matmul(x.to(at::kDouble), w.to(at::kDouble).t());
    CHECK(test::relative_error(affine(x, w), expected) < 1e-6);
    CHECK(test::relative_error(affine(x, w, b), expected + b) < 1e-6);
    CHECK(test::relative_error(affine(x, w.t().contiguous().t(), b), expected + b) < 1e-6);
  }
  CHECK(affine(at::empty({0, 4}), at::randn({3, 4})).sizes() == at::IntArrayRef({0, 3}));
  CHECK_THROWS(affine(at::randn({2, 5}), at::randn({3, 4})));
}

TEST_CASE("a model that cannot be computed is refused by the name of what is wrong, before any forward") {
  using Catch::Matchers::ContainsSubstring;
  const ModelConfig config = zoo_config("llama1");
  TensorLookup lacking = zoo_lookup("llama1");
  lacking.has = [has = lacking.has](const std::string& n) { return n != "model.layers.1.mlp.up_proj.weight" && has(n); };
  CHECK_THROWS_WITH(Transformer(config, lacking), ContainsSubstring("model.layers.1.mlp.up_proj.weight"));
  CHECK_THROWS_WITH(Transformer(config, zoo_lookup("llama1"), at::kInt), ContainsSubstring("floating"));
  ModelConfig odd = config;
  odd.kv_heads = 3;
  CHECK_THROWS_WITH(Transformer(odd, zoo_lookup("llama1")), ContainsSubstring("num_key_value_heads"));

  TensorLookup transposed = zoo_lookup("llama1");
  transposed.load = [load = transposed.load](const std::string& n, at::IntArrayRef shape) { return load(n, shape).t(); };
  CHECK_THROWS_WITH(Transformer(config, transposed).load_head(), ContainsSubstring("lm_head.weight") && ContainsSubstring("(64, 4096)"));
  TensorLookup broken = zoo_lookup("llama1");
  broken.load = [load = broken.load](const std::string& n, at::IntArrayRef shape) {
    Tensor t = load(n, shape).clone();
    if (n == "model.layers.0.self_attn.v_proj.weight") t[3][5] = std::numeric_limits<double>::quiet_NaN();
    return t;
  };
  CHECK_THROWS_WITH(Transformer(config, broken).load(0),
                    ContainsSubstring("model.layers.0.self_attn.v_proj.weight") && ContainsSubstring("NaN"));
}

TEST_CASE("ids that the model has no embedding for are refused") {
  using Catch::Matchers::ContainsSubstring;
  const Transformer llama = test::open_model(test::data() / "models/zoo/llama1"),
                    opt = test::open_model(test::data() / "models/zoo/opt_prenorm");
  CHECK_THROWS_WITH(llama.embed(at::full({1, 3}, 4096, at::kLong)), ContainsSubstring("4096"));
  CHECK_THROWS_WITH(llama.embed(at::full({1, 3}, -1, at::kLong)), ContainsSubstring("-1"));
  CHECK_THROWS_WITH(llama.embed(at::zeros({3}, at::kLong)), ContainsSubstring("(batch, tokens)"));
  CHECK_THROWS_WITH(llama.embed(at::zeros({1, 3})), ContainsSubstring("integers"));
  CHECK_THROWS_WITH(llama.embed(at::zeros({1, 0}, at::kLong)), ContainsSubstring("empty"));
  CHECK_THROWS_WITH(opt.embed(at::zeros({1, 257}, at::kLong)), ContainsSubstring("256 positions"));
  CHECK(opt.embed(at::zeros({1, 256}, at::kInt)).sizes() == at::IntArrayRef({1, 256, 64}));
}
