// Exported folders against the quantized models they come from. tests/python/check_export.py shows the same folders to transformers.
#include <ptq/export/verify.hpp>

#include <csignal>
#include <fstream>
#include <map>
#include <random>

#include "catch.hpp"
#include "pipeline.hpp"
#include "temporary_folder.hpp"

using namespace ptq;
using namespace ptq::test;
using Catch::Matchers::ContainsSubstring;

namespace {

/// test::windows, each text tokenized once for a tokenizer.
Tensor text_windows(const fs::path& model, const std::string& name, int64_t n, int64_t length) {
  static std::map<std::pair<std::string, std::string>, Tensor> known;  // (4096)
  const std::string tokenizer = fs::is_directory(model) ? contents(model / "tokenizer.json") : model.string();
  Tensor& ids = known[{tokenizer, name}];
  if (!ids.defined()) ids = windows(model, name, 1, 16384);
  return ids[0].narrow(0, 0, n * length).view({n, length});
}

/// A model, quantized: what an export is made of.
struct Quantized {
  Loaded model;
  MemorySink sink;

  /// On one thread: matrices are tiny, and threads that wait for each other on a busy machine cost ten times the work.
  template <class Recipe>
  Quantized(const fs::path& path, const Recipe& recipe, const Precision& precision) : model(path) {
    if (model.model->config().hidden <= 256) at::set_num_threads(1);
    const int64_t length = std::min<int64_t>(64, model.model->config().max_positions);
    const Tensor calibration = text_windows(path, "books_valid.txt", 4, length);
    ComputedReference reference(*model.model, calibration, 4096);
    Walk walk;
    walk.precision = precision;
    REQUIRE(quantize(stages(recipe), *model.model, calibration, reference, sink, walk) == model.model->blocks());
  }
  [[nodiscard]] CommittedBlocks blocks() const {
    return [this](int64_t i) { return sink.blocks.at(static_cast<size_t>(i)); };
  }
  [[nodiscard]] const io::Checkpoint& source() const { return *model.file; }
  /// Log-likelihoods of the committed blocks as they run, formats of activations off.
  [[nodiscard]] Perplexity evaluate(const Tensor& ids) const {
    std::vector<QuantizedBlock> off = sink.blocks;
    for (QuantizedBlock& b : off) {
      for (Format& f : b.formats.inputs) f = {};
      for (Format& f : b.formats.outputs) f = {};
      b.formats.attention = {};
    }
    return perplexity(*model.model, model.model->load_head(), {ids},
                      [&](int64_t b) { return std::make_unique<QuantizedOperators>(model.model->config(), off[static_cast<size_t>(b)]); });
  }
};

constexpr Recipe<Nearest, SmoothQuant> divided{.smoothing = {.sites = SmoothSites::all, .fold = false}};  ///< v → o, up → down at run time

fs::path tiny(const std::string& name) { return data() / "models" / name; }

std::vector<fs::path> models() {
  std::vector<fs::path> list{tiny("llama_books"), tiny("opt_books"), tiny("gguf/llama_mixed_types.gguf")};
  for (const auto& folder : zoo()) list.push_back(folder);
  return list;
}

double worst(const Perplexity& a, const Perplexity& b) {
  REQUIRE(a.nll.size() == b.nll.size());
  double most = 0;
  for (size_t i = 0; i < a.nll.size(); ++i) most = std::max(most, std::abs(a.nll[i] - b.nll[i]));
  return most;
}

Perplexity float_model(const fs::path& folder, const Tensor& ids) {
  const Loaded m(folder);
  return perplexity(*m.model, m.model->load_head(), {ids}, float_operators(*m.model));
}

io::json parsed(const fs::path& file) { return io::read_json(file.string()); }

/// This program again, in a process of its own that runs one hidden case; its exit status, or minus the signal that ended it.
/// `microseconds` > 0: killed after that time.
int run_hidden(const std::string& name, const fs::path& folder, unsigned microseconds = 0) {
  std::cout.flush();
  const pid_t child = ::fork();
  if (child == 0) {
    ::setenv("PTQ_EXPORT_TO", folder.c_str(), 1);
    ::execl("/proc/self/exe", "export_test", name.c_str(), static_cast<char*>(nullptr));
    ::_exit(99);
  }
  if (microseconds > 0) ::usleep(microseconds), ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

fs::path told() {
  const char* folder = std::getenv("PTQ_EXPORT_TO");
  return folder == nullptr ? fs::path() : fs::path(folder);
}

}  // namespace

TEST_CASE("a plainly rounded model and its export give the same log-likelihoods, bit for bit") {
  const TemporaryFolder folder("export");
  for (const auto& path : models()) {
    INFO(path.string());
    const Quantized q(path, methods::rtn, precision("int4:g32"));
    const fs::path out = folder / path.filename().string();
    export_hugging_face(q.source(), q.blocks(), out, {.recipe = "rtn"});
    const Tensor ids = text_windows(path, "books_test.txt", 3, 96);
    CHECK(float_model(out, ids).nll == q.evaluate(ids).nll);
    CHECK(float_model(out, ids).nll != float_model(path, ids).nll);  // it was quantized at all
    const ExportCheck check = verify_export(q.source(), q.blocks(), out, {ids});
    CHECK(check.identical);
    CHECK(check.logits_error == 0);
    CHECK(check.passed());
    CHECK(check.tokens == 3 * 96);
  }
}

TEST_CASE("smoothing is folded: into norms, into linears, and divisions at run time into the columns behind them") {
  const TemporaryFolder folder("export");
  for (const auto& path : models()) {
    INFO(path.string());
    const Tensor ids = text_windows(path, "books_test.txt", 3, 96);
    const auto compare = [&](const auto& recipe) {
      const Quantized q(path, recipe, precision("int8:channel:sym", "int8:token:sym"));
      const fs::path out = folder / path.filename().string();
      export_hugging_face(q.source(), q.blocks(), out, {.recipe = "smoothquant"});
      CHECK(worst(float_model(out, ids), q.evaluate(ids)) < 2e-6);
      const ExportCheck check = verify_export(q.source(), q.blocks(), out, {ids});
      CHECK(check.logits_error < 2e-6);
      CHECK(check.passed());
      CHECK_THAT(contents(out / "README.md"), ContainsSubstring("inputs of linears int8:token:sym"));
      return q.sink.blocks[0].input_scale[1].defined();
    };
    CHECK_FALSE(compare(methods::smoothquant));
    CHECK(compare(divided));  // there is a division at run time
  }
}

TEST_CASE("shifts of norms, corrections and new biases find their places or are refused with the reason") {
  const TemporaryFolder folder("export");
  at::manual_seed(1);
  const auto decorate = [](Quantized& q, bool all) {
    for (QuantizedBlock& b : q.sink.blocks) {
      b.norms[0].bias = at::randn({b.norms[0].weight.size(0)}) * 0.1;  // a shift, as learned smoothing leaves it
      if (!all) continue;
      b.norms[1].bias = at::randn({b.norms[1].weight.size(0)}) * 0.1;
      for (QuantizedLinear& l : b.linears)
        l.correction = {at::randn({l.codes.size(1), 3}) * 0.05, at::randn({3, l.codes.size(0)}) * 0.05, 0};
      b.linears[6].bias = at::randn({b.linears[6].codes.size(0)}) * 0.1;
      b.input_scale[0] = at::rand({b.norms[0].weight.size(0)}) + 0.5;
    }
  };
  for (const char* name : {"llama_books", "zoo/llama_biases"}) {
    INFO(name);
    Quantized q(tiny(name), methods::rtn, precision("int4:channel"));
    decorate(q, true);
    const Tensor ids = text_windows(tiny(name), "books_test.txt", 3, 96);
    export_hugging_face(q.source(), q.blocks(), folder / "out");
    CHECK(worst(float_model(folder / "out", ids), q.evaluate(ids)) < 1e-5);
    const auto config = parsed(folder / "out" / "config.json");
    CHECK(config["attention_bias"] == true);
    CHECK(config["mlp_bias"] == true);
    CHECK(verify_export(q.source(), q.blocks(), folder / "out", {ids}).passed());
  }
  {
    INFO("Qwen2 has biases of q, k, v, so a shift before them fits; one before the feed-forward does not");
    Quantized q(tiny("zoo/qwen2_bias_tied"), methods::rtn, precision("int4:channel"));
    decorate(q, false);
    const Tensor ids = text_windows(tiny("zoo/qwen2_bias_tied"), "books_test.txt", 3, 96);
    export_hugging_face(q.source(), q.blocks(), folder / "out");
    CHECK(worst(float_model(folder / "out", ids), q.evaluate(ids)) < 1e-5);
    decorate(q, true);
    CHECK_THROWS_WITH(export_hugging_face(q.source(), q.blocks(), folder / "not"),
                      ContainsSubstring("biases of the feed-forward") && ContainsSubstring("Qwen2ForCausalLM"));
  }
  Quantized q(tiny("zoo/mistral_window_sharded"), methods::rtn, precision("int4:channel"));
  decorate(q, false);
  CHECK_THROWS_WITH(export_hugging_face(q.source(), q.blocks(), folder / "not"),
                    ContainsSubstring("biases of the attention") && ContainsSubstring("MistralForCausalLM has no place"));
  CHECK(folder.names() == std::set<std::string>{"out"});
}

TEST_CASE("a learned shift leaves as biases of the linears that read it, or is refused with the reason") {
  const TemporaryFolder folder("export");
  Recipe<Nearest, LearnedLog> recipe;
  recipe.smoothing.rate = 2e-2, recipe.learning.steps = 4;
  const Precision formats = precision("int4:channel:range=omni", "int8:token");
  for (const char* name : {"llama_books", "opt_books", "zoo/llama1", "zoo/opt_postnorm_projected"}) {
    INFO(name);
    const Quantized q(tiny(name), recipe, formats);
    const Tensor ids = text_windows(tiny(name), "books_test.txt", 3, 96);
    if (q.model.model->config().family == Family::llama) {
      CHECK(q.sink.blocks[0].norms[0].bias.abs().max().item<double>() > 0);
      CHECK(q.sink.blocks[0].linears[3].bias.defined());
    }
    export_hugging_face(q.source(), q.blocks(), folder / "out");
    CHECK(worst(float_model(folder / "out", ids), q.evaluate(ids)) < 1e-5);
    CHECK(verify_export(q.source(), q.blocks(), folder / "out", {ids}).passed());
  }
  const auto refused = [&](const char* name, const char* reason) {
    INFO(name);
    const Quantized q(tiny(name), recipe, formats);
    CHECK_THROWS_WITH(export_hugging_face(q.source(), q.blocks(), folder / "not"), ContainsSubstring(reason));
    CHECK_FALSE(fs::exists(folder / "not"));
  };
  refused("zoo/qwen2_bias_tied", "no place for them");
  refused("zoo/mistral_window_sharded", "MistralForCausalLM has no place for them");
  refused("zoo/qwen3_qk_norm", "biases of the feed-forward");
}

TEST_CASE("a head of its own replaces a tied one, and an untied one") {
  const TemporaryFolder folder("export");
  for (const char* name : {"llama_books", "opt_books", "zoo/llama1", "zoo/opt_postnorm_projected"}) {
    INFO(name);
    const Quantized q(tiny(name), methods::rtn, precision("int4:channel"));
    const Tensor ids = text_windows(tiny(name), "books_test.txt", 3, 96);
    Head head = q.model.model->load_head();
    ExportOptions options;
    options.head.emplace();
    options.head->dense = head.weight = at::round(head.weight * 64) / 64;
    export_hugging_face(q.source(), q.blocks(), folder / "out", options);
    const Perplexity expected = perplexity(*q.model.model, head, {ids}, [&](int64_t b) {
      return std::make_unique<QuantizedOperators>(q.source().config(), q.sink.blocks[static_cast<size_t>(b)]);
    });
    CHECK(float_model(folder / "out", ids).nll == expected.nll);
    CHECK(parsed(folder / "out" / "config.json")["tie_word_embeddings"] == false);
    CHECK(verify_export(q.source(), q.blocks(), folder / "out", {ids}, options).identical);
    CHECK_FALSE(verify_export(q.source(), q.blocks(), folder / "out", {ids}).identical);  // the check notices another head
  }
}

TEST_CASE("the check of an export notices a folder of other weights") {
  const TemporaryFolder folder("export");
  const Quantized fine(tiny("llama_books"), methods::rtn, precision("int4:channel")),
      coarse(tiny("llama_books"), methods::rtn, precision("int3:channel"));
  export_hugging_face(coarse.source(), coarse.blocks(), folder / "out");
  const ExportCheck check =
      verify_export(fine.source(), fine.blocks(), folder / "out", {text_windows(tiny("llama_books"), "books_test.txt", 2, 96)});
  CHECK_FALSE(check.passed());
  CHECK_FALSE(check.identical);
  CHECK(check.logits_error > 1e-3);
}

TEST_CASE("weights are stored as asked: float32, bfloat16, float16, and an overflow is an error") {
  const TemporaryFolder folder("export");
  Quantized q(tiny("llama_books"), methods::rtn, precision("int4:channel"));
  const Tensor ids = text_windows(tiny("llama_books"), "books_test.txt", 4, 256);
  for (const auto& [dtype, name, torch] :
       {std::tuple{io::DType::bf16, "BF16", "bfloat16"}, {io::DType::f16, "F16", "float16"}, {io::DType::f32, "F32", "float32"}}) {
    export_hugging_face(q.source(), q.blocks(), folder / "out", {.dtype = dtype});
    const auto stored = io::Checkpoint::open((folder / "out").string()).tensors();
    CHECK(stored.size() == 4 * 9 + 2);
    for (const auto& tensor : stored) CHECK(tensor.dtype == name);
    CHECK(parsed(folder / "out" / "config.json")["dtype"] == torch);
    CHECK(parsed(folder / "out" / "config.json")["torch_dtype"] == torch);
    CHECK(verify_export(q.source(), q.blocks(), folder / "out", {ids}, {.dtype = dtype}).passed());
  }
  CHECK_THROWS_WITH(export_hugging_face(q.source(), q.blocks(), folder / "not", {.dtype = io::DType::f64}),
                    ContainsSubstring("F32, BF16 or F16"));
  q.sink.blocks[1].norms[0].weight = q.sink.blocks[1].norms[0].weight * 1e6;
  CHECK_THROWS_WITH(export_hugging_face(q.source(), q.blocks(), folder / "not", {.dtype = io::DType::f16}),
                    ContainsSubstring("model.layers.1.input_layernorm.weight") && ContainsSubstring("BF16"));
  q.sink.blocks[1].norms[0].weight = q.sink.blocks[1].norms[0].weight * NAN;
  CHECK_THROWS_WITH(export_hugging_face(q.source(), q.blocks(), folder / "not"),
                    ContainsSubstring("model.layers.1.input_layernorm.weight"));
  CHECK(folder.names() == std::set<std::string>{"out"});
}

TEST_CASE("large models become several files under an index, in the order of the model") {
  const TemporaryFolder folder("export");
  const Quantized q(tiny("llama_books"), methods::rtn, precision("int4:channel"));
  const Tensor ids = text_windows(tiny("llama_books"), "books_test.txt", 2, 96);
  std::vector<int64_t> asked, told;
  const CommittedBlocks blocks = [&](int64_t i) { return asked.push_back(i), q.sink.blocks.at(static_cast<size_t>(i)); };
  export_hugging_face(q.source(), blocks, folder / "out", {.shard_bytes = 1'000'000, .on_block = [&](int64_t b) { told.push_back(b); }});
  CHECK(asked == std::vector<int64_t>{0, 1, 2, 3, 0, 1, 2, 3});  // looked through, then written; one at a time
  CHECK(told == std::vector<int64_t>{0, 1, 2, 3});
  const auto index = parsed(folder / "out" / "model.safetensors.index.json");
  CHECK(index["metadata"]["total_size"] == (4096 * 128 + 4 * (128 * 128 * 2 + 128 * 64 * 2 + 3 * 128 * 384 + 2 * 128) + 128) * 4);
  CHECK(index["weight_map"]["model.embed_tokens.weight"] == "model-00001-of-00005.safetensors");  // above the limit: a file of its own
  CHECK(index["weight_map"]["model.norm.weight"] == "model-00005-of-00005.safetensors");
  CHECK(fs::file_size(folder / "out" / "model-00002-of-00005.safetensors") < 1'010'000);
  CHECK(float_model(folder / "out", ids).nll == q.evaluate(ids).nll);
  CHECK_THROWS_WITH(export_hugging_face(q.source(), blocks, folder / "not", {.shard_bytes = 0}), ContainsSubstring("0 bytes"));
}

TEST_CASE("configuration, tokenizer and provenance come along") {
  const TemporaryFolder folder("export");
  const Quantized q(tiny("llama_books"), methods::rtn, precision("int4:channel"));
  ExportOptions options;
  options.recipe = "rtn";
  options.provenance = {{"weights", "int4:channel"}, {"seed", "0"}};
  export_hugging_face(q.source(), q.blocks(), folder / "out", options);
  for (const char* name : {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "generation_config.json"})
    CHECK(contents(folder / "out" / name) == contents(tiny("llama_books") / name));
  const auto config = parsed(folder / "out" / "config.json");
  CHECK(config["transformers_version"] == "5.24.0");  // fields that we do not know stay
  CHECK(config["rope_theta"] == 10000.0);             // what transformers 4 reads
  CHECK(config["rope_parameters"]["rope_theta"] == 10000.0);
  const auto marker = parsed(folder / "out" / "ptq_export.json");
  CHECK(marker["made_by"] == "ptq");
  CHECK(marker["recipe"] == "rtn");
  CHECK(marker["provenance"]["weights"] == "int4:channel");
  std::set<std::string> listed, there;
  for (const auto& file : marker["files"]) listed.insert(file.get<std::string>());
  for (const auto& entry : fs::directory_iterator(folder / "out")) there.insert(entry.path().filename().string());
  CHECK(listed == there);
  CHECK_THAT(contents(folder / "out" / "README.md"), ContainsSubstring("| weights | int4:channel |") && ContainsSubstring("rtn"));
}

TEST_CASE("rotary scaling is written in the spellings of old and new transformers") {
  const auto config = [](const char* name) {
    const auto file = io::Checkpoint::open(tiny(name).string());
    return io::parse_json(config_text(exported_config(file.config(), {}, false, false), io::DType::f32), "config");
  };
  const auto linear = config("zoo/llama_linear_rope_old_style"), llama3 = config("zoo/llama3_scaled_rope");
  CHECK(linear["rope_scaling"] == io::json{{"rope_type", "linear"}, {"type", "linear"}, {"factor", 4.0}});
  CHECK(linear["rope_parameters"] == io::json{{"rope_type", "linear"}, {"factor", 4.0}, {"rope_theta", 10000.0}});
  CHECK(llama3["rope_theta"] == 500000.0);
  CHECK(llama3["rope_scaling"]["rope_type"] == "llama3");
  CHECK(llama3["rope_parameters"]["original_max_position_embeddings"] == 32);
  CHECK(llama3["rope_parameters"]["high_freq_factor"] == 4.0);
}

TEST_CASE("the table of rotary divisors of a GGUF file is told by its name, or refused") {
  ModelConfig c = io::Checkpoint::open(tiny("zoo/llama1").string()).config();
  c.head_dim = 64, c.rope_theta = 500000, c.rope = {RopeKind::llama3, 32, 1, 4};
  c.rope.original = 8192;
  ModelConfig table = c;
  table.rope = {RopeKind::divisors};
  ModelConfig none = c;
  none.rope = {};
  const auto scaled = rope_frequencies(c, 16), plain = rope_frequencies(none, 16);
  for (size_t i = 0; i < plain.size(); ++i) table.rope.divisors.push_back(static_cast<float>(plain[i] / scaled[i]));
  const RopeScaling found = exported_config(table, {}, false, true).rope;
  CHECK(found.kind == RopeKind::llama3);
  CHECK(found.factor == 32);
  CHECK(found.original == 8192);
  table.rope.divisors[20] *= 1.01;
  CHECK_THROWS_WITH(exported_config(table, {}, false, true), ContainsSubstring("rope_freqs.weight"));
}

TEST_CASE("a GGUF vocabulary becomes tokenizer files that give the same ids") {
  const TemporaryFolder folder("export");
  std::vector<fs::path> files{tiny("gguf/llama_mixed_types.gguf")};
  if (smollm2()) files.push_back(*smollm2());
  for (const auto& path : files) {
    INFO(path.string());
    const auto source = io::Checkpoint::open(path.string());
    for (const auto& [name, text] : companion_files(source)) io::write_atomically(folder / name, text);
    const auto ours = io::open_tokenizer(path);
    std::vector<io::Tokenizer> theirs{io::open_tokenizer(folder.path)};
    if (fs::exists(folder / "tokenizer.model")) theirs.push_back(io::open_tokenizer(folder.path, io::TokenizerFile::tokenizer_model));
    for (const io::Tokenizer& reread : theirs) {
      INFO(reread.description());
      std::vector<std::string> texts{
          "",           " ", "  two blanks", "a", " a\n\n b\t", "<s>x</s>", "<|im_start|>user\n12345<|im_end|>", "naïve 漢字 🦙 ½",
          "<0x0A><unk>"};
      for (const char* name : {"books_test.txt", "wikitext2_test.txt"}) texts.push_back(contents(*text(name)));
      for (const auto& t : texts) {
        const bool same = reread.encode(t) == ours.encode(t) && reread.encode(t, io::Special::none) == ours.encode(t, io::Special::none);
        INFO(t.substr(0, 60));
        CHECK(same);
      }
      CHECK(reread.bos() == ours.bos());
      CHECK(reread.eos() == ours.eos());
    }
    for (const auto& name : folder.names()) fs::remove(folder / name);
  }
}

TEST_CASE("only folders of our own making are replaced") {
  const TemporaryFolder folder("export");
  const Quantized q(tiny("zoo/llama1"), methods::rtn, precision("int4:channel"));
  const auto refused = [&](const fs::path& out, const char* why) {
    try {
      export_hugging_face(q.source(), q.blocks(), out);
      FAIL("not refused: " << out);
    } catch (const Error& error) {
      CHECK_THAT(error.what(), ContainsSubstring(why));
      CHECK(error.blame() == Blame::arguments);
    }
  };
  fs::create_directory(folder / "others");
  std::ofstream(folder / "others/thesis.tex") << "years of work";
  refused(folder / "others", "thesis.tex");
  CHECK(contents(folder / "others/thesis.tex") == "years of work");

  export_hugging_face(q.source(), q.blocks(), folder / "out");
  export_hugging_face(q.source(), q.blocks(), folder / "out", {.shard_bytes = 100'000});  // replaces the first, its files go
  CHECK_FALSE(fs::exists(folder / "out/model.safetensors"));
  CHECK(fs::exists(folder / "out/model.safetensors.index.json"));
  std::ofstream(folder / "out/notes.txt") << "mine";
  refused(folder / "out", "notes.txt");
  CHECK(contents(folder / "out/notes.txt") == "mine");
  fs::remove(folder / "out/notes.txt");
  std::ofstream(folder / "out/ptq_export.json") << "{}";
  refused(folder / "out", "no export of ours");

  std::ofstream(folder / "file") << "x";
  refused(folder / "file", "is a file");
  refused("", "name of a folder");
  CHECK_THROWS_WITH(export_hugging_face(q.source(), q.blocks(), folder / "file/child"), ContainsSubstring("cannot be made"));
  CHECK_THROWS_WITH(export_hugging_face(q.source(), q.blocks(), "/proc/ptq_export"), ContainsSubstring("/proc"));
  refused(tiny("zoo/llama1"), "is read");

  fs::create_directory(folder / "empty");
  fs::create_directory_symlink(folder / "empty", folder / "link");
  export_hugging_face(q.source(), q.blocks(), folder / "link/");
  CHECK(fs::is_symlink(folder / "link"));
  CHECK(fs::exists(folder / "empty/config.json"));
  export_hugging_face(q.source(), q.blocks(), folder / "new/and/deeper");
  CHECK(fs::exists(folder / "new/and/deeper/model.safetensors"));
  CHECK(folder.names() == std::set<std::string>{"others", "out", "file", "empty", "link", "new"});  // no drafts
}

TEST_CASE("blocks that do not fit are refused before anything is written") {
  const TemporaryFolder folder("export");
  Quantized q(tiny("zoo/llama1"), methods::rtn, precision("int4:channel"));
  q.sink.blocks[1].linears[2].codes = q.sink.blocks[1].linears[2].codes.narrow(0, 0, 8);
  CHECK_THROWS_WITH(export_hugging_face(q.source(), q.blocks(), folder / "out"), ContainsSubstring("blocks.1.self_attn.v_proj"));
  q.sink.blocks[1].linears.pop_back();
  CHECK_THROWS_WITH(export_hugging_face(q.source(), q.blocks(), folder / "out"), ContainsSubstring("6 linears"));
  CHECK(folder.names().empty());
}

// --- Hidden cases: run in processes of their own, which may be limited or killed.

TEST_CASE("export and die at the third block", "[.]") {
  const Quantized q(tiny("llama_books"), methods::rtn, precision("int4:channel"));
  int calls = 0;
  export_hugging_face(
      q.source(),
      [&](int64_t i) { return ++calls == 7 ? (std::raise(SIGKILL), q.sink.blocks[0]) : q.sink.blocks.at(static_cast<size_t>(i)); },
      told() / "out");
}

TEST_CASE("export again and again", "[.]") {
  const Quantized q(tiny("llama_books"), methods::rtn, precision("int4:channel"));
  for (int i = 0;; ++i)
    export_hugging_face(q.source(), q.blocks(), told() / "out", {.shard_bytes = i % 2 == 0 ? 5'000'000'000U : 1'000'000U});
}

TEST_CASE("export onto a small disk", "[.]") {
  const Quantized q(tiny("llama_books"), methods::rtn, precision("int4:channel"));
  if (mount_small_disk(told(), "3m")) {
    CHECK_THROWS_WITH(export_hugging_face(q.source(), q.blocks(), told() / "out"), ContainsSubstring("bytes are needed"));
    CHECK(fs::is_empty(told()));
  }
  if (limit_file_size(1'000'000)) {
    CHECK_THROWS_WITH(export_hugging_face(q.source(), q.blocks(), told().parent_path() / "out"), ContainsSubstring("bytes are needed"));
    CHECK_FALSE(fs::exists(told().parent_path() / "out"));
  }
}

TEST_CASE("a kill during an export leaves no folder, and the next export clears away what it left") {
  const TemporaryFolder folder("export");
  REQUIRE(run_hidden("export and die at the third block", folder.path) == -SIGKILL);
  CHECK_FALSE(fs::exists(folder / "out"));
  CHECK(folder.names().size() == 1);  // the draft
  const Quantized q(tiny("llama_books"), methods::rtn, precision("int4:channel"));
  export_hugging_face(q.source(), q.blocks(), folder / "out");
  CHECK(folder.names() == std::set<std::string>{"out"});

  const Tensor ids = text_windows(tiny("llama_books"), "books_test.txt", 2, 96);
  const auto expected = q.evaluate(ids).nll;
  std::mt19937 random(7);
  for (int i = 0; i < 6; ++i) {
    CHECK(run_hidden("export again and again", folder.path, 1'500'000 + static_cast<unsigned>(random() % 1'000'000)) == -SIGKILL);
    CHECK(float_model(folder / "out", ids).nll == expected);
    const auto marker = parsed(folder / "out/ptq_export.json");
    for (const auto& file : marker["files"]) CHECK(fs::exists(folder / "out" / file.get<std::string>()));
  }
}

TEST_CASE("a full disk is an error, and nothing is left on it") {
  const TemporaryFolder folder("export");
  fs::create_directory(folder / "disk");
  CHECK(run_hidden("export onto a small disk", folder / "disk") == 0);
  CHECK(folder.names() == std::set<std::string>{"disk"});
}

/// Folders for tests/python/check_export.py, each beside what we make of it: ids of a text, perplexity of the quantized model in memory.
TEST_CASE("folders for transformers", "[.]") {
  const fs::path to = told();
  REQUIRE(fs::is_directory(to));
  const auto give = [&](const std::string& name, const fs::path& path, const auto& recipe, const Precision& format, const char* text_name,
                        int64_t n, int64_t length) {
    const Quantized q(path, recipe, format);
    export_hugging_face(q.source(), q.blocks(), to / name, {.shard_bytes = 100'000'000, .recipe = name});
    const auto tokenizer = io::open_tokenizer(path);
    const auto ids = tokenizer.encode(contents(*text(text_name)), io::Special::none);
    io::write_atomically(to / (name + ".ids"), std::as_bytes(std::span(ids)));
    io::json expected = {{"text", text(text_name)->string()},
                         {"windows", n},
                         {"length", length},
                         {"perplexity", q.evaluate(text_windows(path, text_name, n, length)).estimate().value}};
    if (fs::is_directory(path)) expected["source"] = path.string();
    for (const char* s : {"Hello world", "The year 1984, 3.14!", "naïve 漢字 🦙 ½\n\n\tx", "it's   three blanks"})
      expected["strings"].push_back({{"text", s}, {"ids", tokenizer.encode(s)}});
    io::write_atomically(to / (name + ".json"), expected.dump());
  };
  const Precision rounded = precision("int4:g32"), smooth = precision("int8:channel:sym", "int8:token:sym");
  for (const char* name : {"llama_books", "opt_books"}) {
    give(cat(name, "-rtn"), tiny(name), methods::rtn, precision("int4:channel"), "books_test.txt", 64, 256);
    give(cat(name, "-smoothquant"), tiny(name), methods::smoothquant, smooth, "books_test.txt", 64, 256);
    give(cat(name, "-divided"), tiny(name), divided, smooth, "books_test.txt", 64, 256);
  }
  give("gguf-divided", tiny("gguf/llama_mixed_types.gguf"), divided, smooth, "books_test.txt", 8, 96);
  for (const auto& folder : zoo()) give(cat("zoo-", folder.filename().string()), folder, divided, smooth, "books_test.txt", 8, 96);
  if (smollm2()) give("smollm2-rtn", *smollm2(), methods::rtn, precision("int4:g64"), "wikitext2_test.txt", 8, 512);
}
