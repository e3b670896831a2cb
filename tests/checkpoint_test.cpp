// Weights through the one door: real models against reference values, names, layouts, and folders that must be refused.
#include <ptq/io/checkpoint.hpp>
#include <ptq/io/hdf5.hpp>
#include <ptq/io/safetensors_writer.hpp>

#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "bytes.hpp"
#include "catch.hpp"
#include "data.hpp"
#include "temporary_folder.hpp"

using Catch::Matchers::ContainsSubstring;
using ptq::Tensor;
using ptq::io::Checkpoint;
using ptq::io::DType;
using ptq::test::Bytes;
using ptq::test::error_of;
using ptq::test::Gguf;
using ptq::test::write_file;

namespace {

const std::string llama_config =
    R"({"model_type":"llama","vocab_size":10,"hidden_size":8,"intermediate_size":12,"num_hidden_layers":2,"num_attention_heads":2,)"
    R"("num_key_value_heads":1,"tie_word_embeddings":true,"max_position_embeddings":16})";
const std::string opt_config =
    R"({"model_type":"opt","vocab_size":10,"hidden_size":8,"ffn_dim":12,"num_hidden_layers":1,"num_attention_heads":2,"max_position_embeddings":16})";

/// Tensors to be written, changed at will before.
using Weights = std::map<std::string, std::vector<float>>;
struct Model {
  std::map<std::string, ptq::io::Shape> shapes{};
  Weights weights{};

  void add(const std::string& name, const ptq::io::Shape& shape) {
    std::vector<float> values(static_cast<std::size_t>(*ptq::io::element_count(shape)));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) + 1000.0f * static_cast<float>(shapes.size());
    shapes[name] = shape;
    weights[name] = std::move(values);
  }
  void remove(const std::string& name) {
    shapes.erase(name);
    weights.erase(name);
  }
  void rename(const std::string& from, const std::string& to) {
    add(to, shapes.at(from));
    weights[to] = weights.at(from);
    remove(from);
  }
  void write(const std::filesystem::path& path) const {
    std::vector<ptq::io::TensorPlan> plan;
    for (const auto& [name, shape] : shapes) plan.push_back({name, DType::f32, shape});
    ptq::io::SafetensorsWriter writer(path.string(), plan);
    for (const auto& [name, values] : weights) writer.write(name, std::as_bytes(std::span(values)));
    writer.commit();
  }
};

Model model_of(const std::string& config) {
  Model model;
  for (const auto& [name, shape] : ptq::io::model_tensors(ptq::io::read_hf_config(ptq::io::parse_json(config, "config"), "config")))
    model.add(name, shape);
  return model;
}

/// A folder with that configuration and those weights.
void make(const TemporaryFolder& folder, const std::string& config, const Model& model) {
  write_file(folder / "config.json", config);
  model.write(folder / "model.safetensors");
}

std::string open_error(const std::filesystem::path& path) {
  return error_of([&] { (void)Checkpoint::open(path.string()); });
}

/// The error of opening a small LLaMA after a change.
std::string changed(const std::function<void(Model&)>& change, const std::string& config = llama_config) {
  TemporaryFolder folder("checkpoint");
  Model model = model_of(config);
  change(model);
  make(folder, config, model);
  return open_error(folder.path);
}

/// A GGUF of one block: hidden 8, 2 query heads and 1 key/value head of size 4.
Gguf small_gguf() {
  Gguf file;
  file.text("general.architecture", "llama").integer("llama.block_count", 1).integer("llama.embedding_length", 8);
  file.integer("llama.feed_forward_length", 12).integer("llama.attention.head_count", 2).integer("llama.attention.head_count_kv", 1);
  file.integer("llama.context_length", 16).real("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  const auto tensor = [&](const std::string& name, std::vector<std::uint64_t> dims) {
    Bytes data;
    const std::uint64_t rows = dims.size() > 1 ? dims[1] : 1;
    for (std::uint64_t r = 0; r < rows; ++r)
      for (std::uint64_t c = 0; c < dims[0]; ++c) data.add(static_cast<float>(100 * r + c));
    file.tensor(name, std::move(dims), 0, data.data);
  };
  tensor("token_embd.weight", {8, 10});
  for (const char* norm : {"output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"}) tensor(std::string(norm) + ".weight", {8});
  tensor("blk.0.attn_q.weight", {8, 8});
  tensor("blk.0.attn_k.weight", {8, 4});
  tensor("blk.0.attn_v.weight", {8, 4});
  tensor("blk.0.attn_output.weight", {8, 8});
  tensor("blk.0.ffn_gate.weight", {8, 12});
  tensor("blk.0.ffn_up.weight", {8, 12});
  tensor("blk.0.ffn_down.weight", {12, 8});
  return file;
}

std::string gguf_error(const std::function<void(Gguf&)>& change) {
  TemporaryFolder folder("checkpoint");
  Gguf file = small_gguf();
  change(file);
  return open_error(write_file(folder / "m.gguf", file.bytes()));
}

/// Compares every dequantized tensor with shape, sums and first and last values of a reference file.
void compare(const Checkpoint& model, const ptq::io::Hdf5Reader& reference) {
  int compared = 0;
  for (const std::string& name : reference.groups("weights")) {
    if (name == "lm_head.weight" && model.config().tied) continue;
    INFO(name);
    const std::string group = "weights/" + name;
    const auto stored = reference.attribute<std::vector<std::int32_t>>(group, "shape");
    const std::vector<std::int64_t> shape(stored.begin(), stored.end());
    const Tensor t = model.load(name, shape).flatten();
    const auto exact = [&](const char* set, const Tensor& part) {
      const auto expected = reference.read<float>(group + "/" + set);
      CHECK(part.equal(at::tensor(expected)));
    };
    exact("head", t.narrow(0, 0, std::min<std::int64_t>(t.numel(), reference.info(group + "/head").shape[0])));
    if (reference.exists(group + "/tail"))
      exact("tail", t.narrow(0, t.numel() - reference.info(group + "/tail").shape[0], reference.info(group + "/tail").shape[0]));
    const double scale = reference.attribute<double>(group, "abs_sum");
    CHECK(t.sum(at::kDouble).item<double>() == Approx(reference.attribute<double>(group, "sum")).margin(1e-12 * scale));
    CHECK(t.abs().sum(at::kDouble).item<double>() == Approx(scale).epsilon(1e-12));
    ++compared;
  }
  CHECK(compared == static_cast<int>(model.tensors().size()));
}

}  // namespace

TEST_CASE("a GGUF file of eleven tensor types equals its reference, tensor by tensor") {
  const auto folder = ptq::test::data() / "models/gguf";
  const auto model = Checkpoint::open((folder / "llama_mixed_types.gguf").string());
  CHECK(model.config().heads == 8);
  CHECK(model.config().kv_heads == 2);
  CHECK(!model.config().tied);
  CHECK(model.config().eos == std::vector<std::int64_t>{2});
  compare(model, ptq::io::Hdf5Reader(folder / "llama_mixed_types.reference.h5"));
}

TEST_CASE("the real model equals its reference, tensor by tensor") {
  const auto path = ptq::test::smollm2();
  if (!path) SKIP_TEST("SmolLM2 is not there; quickstart fetches it");
  const auto model = Checkpoint::open(path->string());
  CHECK(model.digest() == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53");
  CHECK(model.config().layers == 30);
  CHECK(model.config().rope_theta == 100000.0);
  CHECK(model.config().tied);
  CHECK(model.config().norm_eps == Approx(1e-5).epsilon(1e-6));
  compare(model, ptq::io::Hdf5Reader(ptq::test::data() / "models/smollm2_reference.h5"));
}

TEST_CASE("the embeddings of the models that ship begin their reference forwards") {
  for (const auto& folder : ptq::test::zoo()) {
    INFO(folder.string());
    const auto model = Checkpoint::open(folder.string());
    const ptq::io::Hdf5Reader reference(folder / "reference.h5");
    if (model.config().is_opt()) continue;  // positions come on top
    const auto info = reference.info("hidden_0");
    const Tensor hidden = at::tensor(reference.read<float>("hidden_0")).view(info.shape);
    const Tensor ids = at::tensor(reference.read<std::int32_t>("ids")).to(at::kLong).narrow(0, 0, info.shape[0]);
    CHECK(model.load("model.embed_tokens.weight").index_select(0, ids).equal(hidden));
  }
}

TEST_CASE("every tensor of every model that ships is loaded in the shape its configuration asks for") {
  std::vector<std::filesystem::path> folders = ptq::test::zoo();
  for (const char* name : {"llama_books", "opt_books"}) folders.push_back(ptq::test::data() / "models" / name);
  CHECK(folders.size() >= 12);
  for (const auto& folder : folders) {
    INFO(folder.string());
    const auto model = Checkpoint::open(folder.string());
    for (const auto& [name, shape] : ptq::io::model_tensors(model.config())) {
      const Tensor t = model.load(name, shape);
      CHECK((t.is_contiguous() && t.scalar_type() == at::kFloat && at::isfinite(t).all().item<bool>()));
    }
    CHECK(model.has("lm_head.weight") != model.config().tied);
  }
  const auto books = Checkpoint::open((ptq::test::data() / "models/llama_books").string());
  CHECK(books.load("model.norm.weight", at::kBFloat16).to(at::kFloat).equal(books.load("model.norm.weight")));
  CHECK(books.load("model.norm.weight", at::kDouble).to(at::kFloat).equal(books.load("model.norm.weight")));
  CHECK(books.tensors().front().dtype == "BF16");
}

TEST_CASE("rows of q and k leave GGUF's pairs for halves, and only they") {
  TemporaryFolder folder("checkpoint");
  const auto path = write_file(folder / "m.gguf", small_gguf().bytes());
  const auto model = Checkpoint::open(path.string());
  CHECK(model.config().head_dim == 4);
  CHECK(model.config().tied);
  const auto rows = [&](const char* name) { return model.load(std::string("model.layers.0.self_attn.") + name).select(1, 0) / 100; };
  CHECK(rows("q_proj.weight").equal(at::tensor({0.f, 2.f, 1.f, 3.f, 4.f, 6.f, 5.f, 7.f})));
  CHECK(rows("k_proj.weight").equal(at::tensor({0.f, 2.f, 1.f, 3.f})));
  CHECK(rows("v_proj.weight").equal(at::tensor({0.f, 1.f, 2.f, 3.f})));
  CHECK(rows("o_proj.weight").equal(at::tensor({0.f, 1.f, 2.f, 3.f, 4.f, 5.f, 6.f, 7.f})));
  CHECK(model.gguf() != nullptr);
  CHECK(model.digest() == ptq::sha256_file(path));
}

TEST_CASE("GGUF biases and rotary divisors are used, Qwen keeps its rows") {
  TemporaryFolder folder("checkpoint");
  Gguf file = small_gguf();
  const auto floats = [](std::vector<float> values) {
    return Bytes().raw({reinterpret_cast<const char*>(values.data()), 4 * values.size()}).data;
  };
  file.tensor("rope_freqs.weight", {2}, 0, floats({1.0f, 8.0f}));
  file.tensor("blk.0.attn_q.bias", {8}, 0, floats({0, 1, 2, 3, 4, 5, 6, 7}));
  file.tensor("blk.0.attn_k.bias", {4}, 0, floats({0, 1, 2, 3}));
  file.tensor("blk.0.attn_v.bias", {4}, 0, floats({0, 1, 2, 3}));
  const auto model = Checkpoint::open(write_file(folder / "m.gguf", file.bytes()).string());
  CHECK(model.config().qkv_bias);
  CHECK(!model.config().out_bias);
  CHECK(model.config().rope.kind == ptq::RopeKind::divisors);
  CHECK(model.config().rope.divisors == std::vector<double>{1.0, 8.0});
  CHECK(model.load("model.layers.0.self_attn.q_proj.bias").equal(at::tensor({0.f, 2.f, 1.f, 3.f, 4.f, 6.f, 5.f, 7.f})));

  std::string qwen = file.bytes();
  for (auto at = qwen.find("llama"); at != std::string::npos; at = qwen.find("llama")) qwen.replace(at, 5, "qwen2");
  const auto other = Checkpoint::open(write_file(folder / "q.gguf", qwen).string());
  CHECK(other.config().family == ptq::Family::qwen2);
  CHECK(other.load("model.layers.0.self_attn.q_proj.bias").equal(at::arange(8, at::kFloat)));
}

TEST_CASE("GGUF models that would compute something else are refused by key or tensor") {
  using Change = std::function<void(Gguf&)>;
  const std::string four(16, '\1');
  const std::pair<Change, std::string> cases[] = {
      {[](Gguf& f) { f.text("llama.rope.scaling.type", "yarn"); }, "llama.rope.scaling.type \"yarn\""},
      {[](Gguf& f) { f.text("llama.rope.scaling.type", "linear"); }, "\"llama.rope.scaling.factor\" is missing"},
      {[](Gguf& f) { f.integer("llama.rope.dimension_count", 2); }, "llama.rope.dimension_count is 2"},
      {[](Gguf& f) { f.integer("llama.expert_count", 8); }, "mixtures of experts"},
      {[](Gguf& f) { f.real("llama.logit_scale", 0.5f); }, "llama.logit_scale 0.5"},
      {[](Gguf& f) { f.integer("llama.attention.value_length", 2); }, "values of size 2 beside keys of size 4"},
      {[&](Gguf& f) { f.tensor("rope_freqs.weight", {3}, 0, four.substr(0, 12)); }, "tensor \"rope_freqs.weight\" is F32 [3]"},
      {[&](Gguf& f) { f.tensor("rope_freqs.weight", {2}, 0, std::string(8, '\0')); }, "rotary divisor is not a positive number"},
      {[&](Gguf& f) { f.tensor("blk.0.attn_sinks.weight", {4}, 0, four); }, "\"blk.0.attn_sinks.weight\" has no place"},
      {[&](Gguf& f) { f.tensor("blk.0.attn_q.bias", {4}, 0, four); },
       "\"blk.0.attn_q.bias\" has shape [4], the configuration asks for [8]"},
      {[&](Gguf& f) { f.tensors.pop_back(); }, "\"blk.0.ffn_down.weight\" (model.layers.0.mlp.down_proj.weight) is missing"},
      {[&](Gguf& f) { f.tensors[0].name = "embd"; }, "no matrix \"token_embd.weight\""},
      {[&](Gguf& f) {
         f.tensors[1].data = std::string(32, '\0');
         f.tensors[1].dims = {4, 2};
       },
       "\"output_norm.weight\" has shape [2, 4]"},
  };
  for (const auto& [change, part] : cases) CHECK_THAT(gguf_error(change), ContainsSubstring("m.gguf: ") && ContainsSubstring(part));
  CHECK(gguf_error([](Gguf&) {}) == "no error");
  TemporaryFolder folder("checkpoint");
  Gguf none;
  none.text("general.architecture", "falcon");
  CHECK_THAT(open_error(write_file(folder / "m.gguf", none.bytes())), ContainsSubstring("\"falcon\"") && ContainsSubstring("qwen3"));
  CHECK_THAT(open_error(write_file(folder / "n.gguf", Gguf().bytes())), ContainsSubstring("\"general.architecture\" is missing"));
}

TEST_CASE("a GGUF tensor type without a decoder is an error for whoever loads it") {
  TemporaryFolder folder("checkpoint");
  for (const auto& [type, name] : std::vector<std::pair<std::uint32_t, std::string>>{{26, "I32"}, {99, "type 99"}}) {
    Gguf file = small_gguf();
    file.tensors[2].type = type;
    const auto model = Checkpoint::open(write_file(folder / "m.gguf", file.bytes()).string());
    CHECK(model.load("model.norm.weight").numel() == 8);
    CHECK_THAT(error_of([&, &n = name] { (void)model.load("model.layers.0.input_layernorm.weight"); }),
               ContainsSubstring("m.gguf: tensor \"model.layers.0.input_layernorm.weight\"") && ContainsSubstring(name));
  }
}

TEST_CASE("known prefixes are resolved once, for both families") {
  for (const auto& [config, canonical, prefixes] : std::vector<std::tuple<std::string, std::string, std::vector<std::string>>>{
           {llama_config, "model.", {"model.", "", "model.model."}}, {opt_config, "model.decoder.", {"model.decoder.", "decoder.", ""}}})
    for (const std::string& prefix : prefixes) {
      INFO(prefix);
      TemporaryFolder folder("checkpoint");
      const Model model = model_of(config);
      Model renamed = model;
      for (const auto& [name, shape] : model.shapes)
        if (prefix != canonical) renamed.rename(name, prefix + name.substr(canonical.size()));
      make(folder, config, renamed);
      const auto opened = Checkpoint::open(folder.path.string());
      for (const auto& [name, values] : model.weights) CHECK(opened.load(name).flatten().equal(at::tensor(values)));
    }
  CHECK_THAT(changed([](Model& m) { m.rename("model.embed_tokens.weight", "wte.weight"); }),
             ContainsSubstring("model.safetensors: no token embedding"));
  CHECK_THAT(changed([](Model& m) { m.rename("model.norm.weight", "norm.weight"); }),
             ContainsSubstring("tensor \"model.norm.weight\" is missing"));
}

TEST_CASE("a tied head in the file counts only when it differs") {
  TemporaryFolder folder("checkpoint");
  Model model = model_of(llama_config);
  model.add("lm_head.weight", {10, 8});
  model.weights["lm_head.weight"] = model.weights["model.embed_tokens.weight"];
  make(folder, llama_config, model);
  CHECK(Checkpoint::open(folder.path.string()).config().tied);
  CHECK(!Checkpoint::open(folder.path.string()).has("lm_head.weight"));
  model.weights["lm_head.weight"][79] += 1.0f;
  make(folder, llama_config, model);
  CHECK(!Checkpoint::open(folder.path.string()).config().tied);
  CHECK(Checkpoint::open(folder.path.string()).load("lm_head.weight").flatten().equal(at::tensor(model.weights["lm_head.weight"])));
  std::string untied = llama_config;
  untied.replace(untied.find("true"), 4, "false");
  CHECK_THAT(changed([](Model& m) { m.remove("lm_head.weight"); }, untied),
             ContainsSubstring("\"lm_head.weight\" is missing although tie_word_embeddings is false"));
}

TEST_CASE("missing, misshapen and foreign tensors are refused by name") {
  const std::string q = "model.layers.1.self_attn.q_proj.weight";
  CHECK_THAT(changed([&](Model& m) { m.remove(q); }), ContainsSubstring("model.safetensors: tensor \"" + q + "\" is missing"));
  CHECK_THAT(changed([&](Model& m) {
               m.add(q, {8, 4});
             }),
             ContainsSubstring("\"" + q + "\" has shape [8, 4], the configuration asks for [8, 8]"));
  CHECK_THAT(changed([&](Model& m) {
               m.add("model.layers.2.mlp.up_proj.weight", {12, 8});
             }),
             ContainsSubstring("\"model.layers.2.mlp.up_proj.weight\" has no place in a llama model"));
  CHECK_THAT(changed([&](Model& m) { m.add("model.layers.0.self_attn.q_norm.weight", {4}); }),
             ContainsSubstring("ignoring it would change the results"));
  CHECK_THAT(changed([&](Model& m) { m.add("model.layers.0.self_attn.q_proj.bias", {8}); }),
             ContainsSubstring("q_proj.bias\" has no place"));
  CHECK_THAT(changed([&](Model& m) { m.add("model.layers.0.self_attn.q_proj.qweight", {8}); }), ContainsSubstring("already quantized"));
  CHECK(changed([&](Model& m) { m.add("model.layers.0.self_attn.rotary_emb.inv_freq", {2}); }) == "no error");
  CHECK(changed([&](Model& m) {
          m.add("model.layers.0.self_attn.q_proj.bias", {8});
          m.weights["model.layers.0.self_attn.q_proj.bias"].assign(8, 0.0f);
        }) == "no error");
}

TEST_CASE("a caller's shape is compared, and an unknown name is refused") {
  TemporaryFolder folder("checkpoint");
  make(folder, llama_config, model_of(llama_config));
  const auto model = Checkpoint::open(folder.path.string());
  CHECK(model.load("model.norm.weight", {8}).numel() == 8);
  CHECK_THAT(error_of([&] { (void)model.load("model.norm.weight", {9}); }),
             ContainsSubstring("model.safetensors: tensor \"model.norm.weight\" has shape [8], expected [9]"));
  CHECK_THAT(error_of([&] { (void)model.load("model.nrm.weight"); }),
             ContainsSubstring(folder.path.string()) && ContainsSubstring("\"model.nrm.weight\""));
}

TEST_CASE("NaN and infinity are passed on, other element types are converted") {
  TemporaryFolder folder("checkpoint");
  Model model = model_of(llama_config);
  model.weights["model.norm.weight"][3] = std::numeric_limits<float>::quiet_NaN();
  model.weights["model.norm.weight"][4] = -std::numeric_limits<float>::infinity();
  make(folder, llama_config, model);
  const Tensor norm = Checkpoint::open(folder.path.string()).load("model.norm.weight");
  CHECK(std::isnan(norm[3].item<float>()));
  CHECK(std::isinf(norm[4].item<float>()));

  std::vector<ptq::io::TensorPlan> plan;
  for (const auto& [name, shape] : model.shapes)
    plan.push_back(
        {name, name == "model.norm.weight" ? DType::i8 : (name == "model.embed_tokens.weight" ? DType::f64 : DType::f8_e4m3), shape});
  ptq::io::SafetensorsWriter writer((folder / "model.safetensors").string(), plan);
  const std::vector<double> exact(80, 0.1);
  for (const auto& tensor : plan) {
    const std::string ones(static_cast<std::size_t>(*ptq::io::element_count(tensor.shape)), '\x38');
    writer.write(tensor.name, tensor.dtype == DType::f64 ? std::as_bytes(std::span(exact)) : ptq::test::as_bytes(ones));
  }
  writer.commit();
  const auto mixed = Checkpoint::open(folder.path.string());
  CHECK(mixed.load("model.norm.weight").equal(at::full({8}, 0x38)));
  CHECK(mixed.load("model.layers.0.mlp.up_proj.weight").equal(at::ones({12, 8})));
  CHECK(mixed.load("model.embed_tokens.weight").equal(at::full({10, 8}, 0.1f)));
  CHECK(mixed.load("model.embed_tokens.weight", at::kDouble).equal(at::full({10, 8}, 0.1, at::kDouble)));
}

TEST_CASE("an index that puts a tensor into the wrong shard is an error for that tensor") {
  TemporaryFolder folder("checkpoint");
  const Model model = model_of(llama_config);
  make(folder, llama_config, model);
  ptq::io::json map = ptq::io::json::object();
  for (const auto& [name, shape] : model.shapes) map[name] = "model.safetensors";
  const auto index = [&] { write_file(folder / "model.safetensors.index.json", ptq::io::json{{"weight_map", map}}.dump()); };
  index();
  CHECK(open_error(folder.path) == "no error");
  CHECK(open_error(folder / "model.safetensors.index.json") == "no error");
  Model other;
  other.add("model.layers.0.self_attn.rotary_emb.inv_freq", {2});
  other.write(folder / "b.safetensors");
  map["model.norm.weight"] = "b.safetensors";
  index();
  CHECK_THAT(open_error(folder.path), ContainsSubstring("index.json: tensor \"model.norm.weight\" is not in shard \"b.safetensors\""));
  map["model.norm.weight"] = "../b.safetensors";
  index();
  CHECK_THAT(open_error(folder.path), ContainsSubstring("\"../b.safetensors\" is not a plain file name"));
}

TEST_CASE("paths that hold no model say what would work") {
  TemporaryFolder folder("checkpoint");
  CHECK_THAT(open_error(folder / "absent"), ContainsSubstring("absent: no such file or folder"));
  CHECK_THAT(open_error(folder.path), ContainsSubstring("no model.safetensors"));
  write_file(folder / "pytorch_model-00001-of-00002.bin", "PK");
  CHECK_THAT(open_error(folder.path),
             ContainsSubstring("pytorch_model-00001-of-00002.bin: a PyTorch pickle") && ContainsSubstring("safe_serialization=True"));
  CHECK_THAT(open_error(folder / "pytorch_model-00001-of-00002.bin"), ContainsSubstring("a PyTorch pickle"));
  CHECK_THAT(open_error(write_file(folder / "renamed", "PK\x03\x04 zip")), ContainsSubstring("a PyTorch pickle"));
  CHECK_THAT(open_error(write_file(folder / "notes.txt", "hello")), ContainsSubstring("notes.txt: neither a GGUF file nor .safetensors"));
  write_file(folder / "m.gguf", small_gguf().bytes());
  CHECK_THAT(open_error(folder.path), ContainsSubstring("give the GGUF file itself"));
  const Model model = model_of(llama_config);
  model.write(folder / "only.safetensors");
  CHECK_THAT(open_error(folder.path), ContainsSubstring("config.json: missing"));
  write_file(folder / "config.json", llama_config);
  CHECK(open_error(folder.path) == "no error");
  CHECK(open_error(folder / "only.safetensors") == "no error");
  model.write(folder / "second.safetensors");
  CHECK_THAT(open_error(folder.path), ContainsSubstring("2 .safetensors files"));
  write_file(folder / "config.json", "{");
  CHECK_THAT(open_error(folder / "only.safetensors"), ContainsSubstring("config.json: not valid JSON"));
}

TEST_CASE("the digest changes with weights and configuration, not with the folder") {
  TemporaryFolder a("checkpoint_a"), b("checkpoint_b");
  Model model = model_of(llama_config);
  const auto digest = [&](const TemporaryFolder& folder, const std::string& config) {
    make(folder, config, model);
    return Checkpoint::open(folder.path.string()).digest();
  };
  const std::string first = digest(a, llama_config);
  CHECK(first == digest(b, llama_config));
  CHECK(first != digest(b, llama_config + " "));
  model.weights["model.norm.weight"][0] += 1.0f;
  CHECK(first != digest(b, llama_config));
}
