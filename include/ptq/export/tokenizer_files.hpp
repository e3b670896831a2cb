// Tokenizer and companion files of an exported model: copied from a Hugging Face folder, or written from a GGUF vocabulary.
#pragma once

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/io/checkpoint.hpp>
#include <ptq/io/json.hpp>
#include <ptq/io/mapped_file.hpp>
#include <ptq/io/tokenizer/gguf_byte_level.hpp>
#include <ptq/io/tokenizer/sentencepiece.hpp>

namespace ptq {

namespace detail {

/// Files of a Hugging Face folder that belong to the model besides weights and config.json.
[[nodiscard]] inline bool belongs(std::string_view name) {
  static const std::set<std::string_view> whole{"tokenizer.json", "tokenizer.model",     "tokenizer_config.json", "special_tokens_map.json",
                                                "vocab.json",     "merges.txt",          "added_tokens.json",     "generation_config.json",
                                                "vocab.txt",      "chat_template.jinja", "chat_template.json",    "tekken.json"};
  return whole.contains(name) || name.starts_with("LICENSE") || name.starts_with("NOTICE") || name.starts_with("USE_POLICY");
}

/// Whether byte pair merges by rank give what SentencePiece gives by score: scores that tell tokens apart, no kinds that merges cannot say.
[[nodiscard]] inline bool mergeable(const io::GgufVocabulary& v) {
  std::set<double> scores;
  for (std::size_t i = 0; i < v.tokens.size(); ++i) {
    if (v.types[i] == io::TokenType::user_defined || v.types[i] == io::TokenType::unused) return false;
    if (v.types[i] == io::TokenType::normal && io::character_length(v.tokens[i], 0) < v.tokens[i].size() &&
        !scores.insert(v.scores[i]).second)
      return false;
  }
  return true;
}

/// Every pair of tokens that makes a token, the token of the greatest score first, the longer left part first.
[[nodiscard]] inline io::json merges_by_score(const io::GgufVocabulary& v) {
  std::map<std::string_view, std::size_t> normal;
  for (std::size_t i = 0; i < v.tokens.size(); ++i)
    if (v.types[i] == io::TokenType::normal) normal.emplace(v.tokens[i], i);
  std::vector<std::size_t> order;
  for (const auto& [token, i] : normal) order.push_back(i);
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return v.scores[a] != v.scores[b] ? v.scores[a] > v.scores[b] : a < b; });
  io::json merges = io::json::array();
  for (const std::size_t i : order) {
    const std::string_view token = v.tokens[i];
    std::vector<std::size_t> cuts;
    for (std::size_t at = io::character_length(token, 0); at < token.size(); at += io::character_length(token, at)) cuts.push_back(at);
    for (auto cut = cuts.rbegin(); cut != cuts.rend(); ++cut)
      if (normal.contains(token.substr(0, *cut)) && normal.contains(token.substr(*cut)))
        merges.push_back({token.substr(0, *cut), token.substr(*cut)});
  }
  return merges;
}

/// A vocabulary of the kind `llama` as tokenizer.json: blanks as "▁", one put in front of every part, bytes for what has no token.
[[nodiscard]] inline io::json metaspace_document(const io::GgufVocabulary& v) {
  io::json vocabulary = io::json::object(), added = io::json::array(), unknown = nullptr;
  for (std::size_t i = 0; i < v.tokens.size(); ++i) {
    if (!vocabulary.emplace(v.tokens[i], i).second) fail(v.origin, ": token \"", v.tokens[i], "\" occurs twice");
    if (v.types[i] == io::TokenType::unknown) unknown = v.tokens[i];
    if (v.types[i] != io::TokenType::control && v.types[i] != io::TokenType::unknown) continue;
    added.push_back({{"id", i},
                     {"content", v.tokens[i]},
                     {"special", true},
                     {"normalized", false},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false}});
  }
  const auto replace = [](const char* from, const char* to) {
    return io::json{{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
  };
  const bool prefix = v.add_space_prefix.value_or(true),
             bytes = std::find(v.types.begin(), v.types.end(), io::TokenType::byte) != v.types.end();
  io::json normalizers = io::json::array();
  if (prefix) normalizers.push_back({{"type", "Prepend"}, {"prepend", "\xE2\x96\x81"}});
  normalizers.push_back(replace(" ", "\xE2\x96\x81"));
  io::json decoders = {replace("\xE2\x96\x81", " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}};
  if (prefix) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", std::move(added)},
          {"normalizer", {{"type", "Sequence"}, {"normalizers", std::move(normalizers)}}},
          {"pre_tokenizer", nullptr},
          {"post_processor", io::around_texts(v, io::facts_of(v, true))},
          {"decoder", {{"type", "Sequence"}, {"decoders", std::move(decoders)}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", std::move(unknown)},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", true},
            {"byte_fallback", bytes},
            {"ignore_merges", false},
            {"vocab", std::move(vocabulary)},
            {"merges", merges_by_score(v)}}}};
}

[[nodiscard]] inline std::map<std::string, std::string> files_of_vocabulary(const io::GgufMetadata& metadata) {
  const io::GgufVocabulary v = io::read_gguf_vocabulary(metadata);
  std::map<std::string, std::string> files;
  const bool pieces = v.model == "llama";
  if (!pieces && v.model != "gpt2")
    refuse(v.origin, ": a vocabulary of the kind \"", v.model, "\" cannot be exported (supported: gpt2, llama)");
  if (pieces) files["tokenizer.model"] = io::sentencepiece_proto(v);
  const bool document = !pieces || mergeable(v);
  if (document) files["tokenizer.json"] = (pieces ? metaspace_document(v) : io::byte_level_document(v)).dump() + "\n";

  const auto facts = io::facts_of(v, pieces || io::byte_pre_tokenizer(v.pre, v.origin).bos);
  io::json config = {{"tokenizer_class", document ? "PreTrainedTokenizerFast" : "LlamaTokenizer"},
                     {"clean_up_tokenization_spaces", false},
                     {"model_max_length", metadata.integer(metadata.text("general.architecture") + ".context_length")}};
  const auto name = [&](const char* key, std::optional<std::int32_t> id) {
    if (id) config[key] = v.tokens[static_cast<std::size_t>(*id)];
  };
  name("bos_token", v.bos), name("eos_token", v.eos), name("unk_token", v.unk);
  if (metadata.has("tokenizer.ggml.padding_token_id")) {
    const auto id = metadata.integer("tokenizer.ggml.padding_token_id");
    if (id >= 0 && id < static_cast<std::int64_t>(v.tokens.size())) name("pad_token", static_cast<std::int32_t>(id));
  }
  if (pieces) config["legacy"] = true, config["add_prefix_space"] = v.add_space_prefix.value_or(true);
  config["add_bos_token"] = !facts.before.empty(), config["add_eos_token"] = !facts.after.empty();
  if (metadata.has("tokenizer.chat_template")) config["chat_template"] = metadata.text("tokenizer.chat_template");
  files["tokenizer_config.json"] = config.dump(2) + "\n";
  return files;
}

}  // namespace detail

/// What goes into the folder besides weights and config.json: name → contents. Empty where the source has none.
[[nodiscard]] inline std::map<std::string, std::string> companion_files(const io::Checkpoint& source) {
  namespace fs = std::filesystem;
  if (source.gguf() != nullptr) return detail::files_of_vocabulary(source.gguf()->metadata());
  std::map<std::string, std::string> files;
  const fs::path folder = fs::path(source.files().back()).parent_path();
  for (const auto& entry : fs::directory_iterator(folder.empty() ? fs::path(".") : folder)) {
    const std::string name = entry.path().filename().string();
    if (!detail::belongs(name) || !entry.is_regular_file()) continue;
    const io::MappedFile file(entry.path().string());
    files[name].assign(reinterpret_cast<const char*>(file.bytes().data()), file.size());
  }
  return files;
}

}  // namespace ptq
