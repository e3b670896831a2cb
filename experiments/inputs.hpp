// What programs read before they compute: a model with its tokenizer, calibration samples, evaluation windows. Every choice is recorded.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ptq/core/digest.hpp>
#include <ptq/evaluate/perplexity.hpp>
#include <ptq/io/checkpoint.hpp>
#include <ptq/io/corpus/named_texts.hpp>
#include <ptq/io/corpus/sampling.hpp>
#include <ptq/io/corpus/text_spec.hpp>
#include <ptq/io/corpus/windows.hpp>
#include <ptq/io/tokenizer/open.hpp>
#include <ptq/kernels/isa.hpp>
#include <ptq/results.hpp>

namespace ptq::driver {

/// An opened model.
struct Model {
  std::shared_ptr<const io::Checkpoint> files;
  std::string digest;
  io::Tokenizer tokenizer;
  std::unique_ptr<Transformer> transformer;
};

[[nodiscard]] inline at::ScalarType parse_dtype(const std::string& text) {
  if (text == "f32") return at::kFloat;
  if (text == "f64") return at::kDouble;
  refuse("--dtype: '", text, "' is none of f32, f64");
}

[[nodiscard]] inline std::unique_ptr<Transformer> transformer_of(std::shared_ptr<const io::Checkpoint> files, at::ScalarType dtype) {
  const ModelConfig config = files->config();
  const auto has = [files](const std::string& name) { return files->has(name); };
  const auto load = [files, dtype](const std::string& name, at::IntArrayRef shape) { return files->load(name, shape, dtype); };
  return std::make_unique<Transformer>(config, TensorLookup{has, load}, dtype);
}

[[nodiscard]] inline Model open_model(const std::string& path, at::ScalarType dtype = at::kFloat) {
  auto files = std::make_shared<const io::Checkpoint>(io::Checkpoint::open(path));
  std::string digest = files->digest();
  auto tokenizer = io::open_tokenizer(path);
  if (tokenizer.vocab_size() > files->config().vocab)
    fail(path, ": the tokenizer knows ", tokenizer.vocab_size(), " tokens, the model ", files->config().vocab,
         "; they do not belong together");
  auto transformer = transformer_of(files, dtype);
  return {std::move(files), std::move(digest), std::move(tokenizer), std::move(transformer)};
}

/// Where named texts lie: PTQ_TEXTS, PTQ_DATA, the data folder beside the program's build folder, ./data.
[[nodiscard]] inline std::vector<std::filesystem::path> places_of_texts() {
  std::error_code none;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", none);
  const auto beside = program.parent_path().parent_path().parent_path() / "data";
  return io::text_folders(!none && std::filesystem::is_directory(beside) ? beside : std::filesystem::path("data"));
}

/// (rows, length) int64.
[[nodiscard]] inline Tensor to_tensor(const io::TokenRows& rows, int64_t first, int64_t count) {
  std::vector<int64_t> ids;
  for (int64_t i = first; i < first + count; ++i)
    for (const int32_t id : rows.row(i)) ids.push_back(id);
  return at::tensor(ids, at::kLong).view({count, -1});
}

/// Windows of one text, ready to evaluate.
struct EvaluationText {
  std::string name, protocol, digest, ids, bos;  ///< digests of the text and of the token ids of its windows
  int64_t length = 0, count = 0;
  std::vector<Tensor> windows;  ///< full windows (n, length), then perhaps a shorter tail (1, rest)
};

[[nodiscard]] inline EvaluationText cut(const io::Text& text, const io::Tokenizer& tokenizer, io::Protocol protocol, int64_t length,
                                        int64_t count, io::Special special) {
  const io::TokenWindows w = io::cut_windows(text, tokenizer, protocol, length, count, special);
  const std::string ids = Sha256().field("ids", std::as_bytes(std::span(w.rows.ids))).hex();
  EvaluationText e{text.name, std::string(io::name_of(protocol)), text.digest, ids, w.bos, w.length, w.rows.count(), {}};
  const int64_t full = w.rows.even() ? e.count : e.count - 1;
  if (full > 0) e.windows.push_back(to_tensor(w.rows, 0, full));
  if (full < e.count) e.windows.push_back(to_tensor(w.rows, full, 1));
  return e;
}

/// --bos default|none.
[[nodiscard]] inline io::Special parse_bos(const std::string& text) {
  if (text == "default") return io::Special::default_;
  if (text == "none") return io::Special::none;
  refuse("--bos: '", text, "' is neither default (what the tokenizer puts before a text) nor none");
}

/// What a label adds where the first token is left out, so that rows of both kinds can stand in one table.
[[nodiscard]] inline std::string bos_suffix(const std::string& bos) { return bos == "none" ? ", no BOS" : ""; }

/// Refuses windows that the model has no positions for; says so where it has them but has not learned them.
template <class Say>
void check_window(const std::string& option, int64_t length, const ModelConfig& config, const Say& say) {
  if (length <= config.max_positions) return;
  if (config.is_opt())
    refuse(option, ": ", length, " tokens are more than the model's ", config.max_positions,
           " positions; give at most so many after the x of NxL");
  say(cat(option, ": ", length, " tokens are more than the ", config.max_positions,
          " positions the model was made for; its losses will be high"));
}

/// Window of a text when the command line does not say: 2048, or what the model can see.
[[nodiscard]] inline int64_t usual_window(const ModelConfig& config) { return std::min<int64_t>(2048, config.max_positions); }

[[nodiscard]] inline results::Evaluation to_result(const EvaluationText& text, const Perplexity& p, const Perplexity* reference) {
  const Estimate e = p.estimate();
  results::Evaluation r;
  r.text = text.name, r.protocol = text.protocol, r.windows = text.count, r.window = text.length, r.tokens = p.tokens;
  r.perplexity = e.value, r.nll = p.nll;
  if (p.nll.size() > 1) r.standard_error = e.standard_error;
  if (reference) {
    const Estimate d = difference(p, *reference);
    r.difference = d.value;
    if (p.nll.size() > 1) r.difference_standard_error = d.standard_error;
  }
  return r;
}

[[nodiscard]] inline results::Texts versions() {
  return {{"ptq", PTQ_VERSION}, {"libtorch", torch_version}, {"hdf5", io::hdf5::library_version()}, {"compiler", results::compiler()}};
}

/// What decides the last bits of a computation besides its inputs: part of every key.
[[nodiscard]] inline std::string arithmetic() {
  return cat(at::get_num_threads(), " threads, ", kernels::text(kernels::isa()), ", libtorch ", torch_version);
}

[[nodiscard]] inline results::Texts machine() {
  return {{"cpu", results::cpu_model()},
          {"threads", std::to_string(at::get_num_threads())},
          {"isa", kernels::text(kernels::isa())},
          {"device", "cpu"}};
}

}  // namespace ptq::driver
