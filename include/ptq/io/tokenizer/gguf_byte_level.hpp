// Byte-level BPE from a GGUF vocabulary of the kind `gpt2`. The file names its pre-tokenizer; here the name becomes patterns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/json.hpp>
#include <ptq/io/tokenizer/gguf_vocabulary.hpp>
#include <ptq/io/tokenizer/tokenizer_json.hpp>

namespace ptq::io {

/// What stands behind the name of a pre-tokenizer.
struct BytePreTokenizer {
  std::vector<const char*> patterns{};  ///< applied one after another, each cutting further
  bool nfc = false;                     ///< normalize first
  bool ignore_merges = false;           ///< a word that is a token is that token
  bool bos = false;                     ///< BOS before a text where the file does not say
};

/// `smollm` and `default` are GPT-2's pattern, as transformers reads GGUF files (ids of reference values were made so); llama.cpp cuts
/// single digits first under the former and punctuation under the latter. Llama-3 and Qwen2 as in these models' tokenizer.json.
[[nodiscard]] inline BytePreTokenizer byte_pre_tokenizer(std::string_view name, std::string_view origin) {
  static constexpr const char* gpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
  static constexpr const char* llama3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  static constexpr const char* qwen2 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  if (name == "gpt-2" || name == "gpt2" || name == "smollm" || name == "default") return {{gpt2}};
  if (name == "llama-bpe" || name == "llama3" || name == "llama-v3") return {{llama3}, false, true, true};
  if (name == "qwen2") return {{qwen2}, true, false, false};
  fail(origin, ": pre-tokenizer \"", name, "\" is not supported (supported: default, gpt-2, smollm, llama-bpe, qwen2)");
}

/// The post-processor that sets tokens around a text as `facts` say.
[[nodiscard]] inline json around_texts(const GgufVocabulary& v, const TokenizerFacts& facts) {
  json around = json::array(), names = json::object();
  const auto token = [&](std::int32_t id) {
    const std::string& name = v.tokens[static_cast<std::size_t>(id)];
    around.push_back({{"SpecialToken", {{"id", name}, {"type_id", 0}}}});
    names[name] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
  };
  for (const std::int32_t id : facts.before) token(id);
  around.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  for (const std::int32_t id : facts.after) token(id);
  json pair = around;
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  return {{"type", "TemplateProcessing"}, {"single", std::move(around)}, {"pair", std::move(pair)}, {"special_tokens", std::move(names)}};
}

/// The vocabulary as the tokenizer.json that says the same. Fails when a merge is malformed, and on an unknown pre-tokenizer.
[[nodiscard]] inline json byte_level_document(const GgufVocabulary& v) {
  const BytePreTokenizer pre = byte_pre_tokenizer(v.pre, v.origin);
  json vocabulary = json::object(), added = json::array(), merges = json::array();
  for (std::size_t i = 0; i < v.tokens.size(); ++i) {
    if (!vocabulary.emplace(v.tokens[i], i).second) fail(v.origin, ": token \"", v.tokens[i], "\" occurs twice");
    const bool special = v.types[i] == TokenType::control || v.types[i] == TokenType::unknown;
    if (special || v.types[i] == TokenType::user_defined)
      added.push_back({{"id", i},
                       {"content", v.tokens[i]},
                       {"special", special},
                       {"normalized", false},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false}});
  }
  if (v.merges.empty() && v.tokens.size() > 256 + added.size()) fail(v.origin, ": tokenizer.ggml.merges is missing");
  for (const std::string& merge : v.merges) {
    const std::size_t blank = merge.find(' ');
    if (blank == std::string::npos || blank == 0 || blank + 1 == merge.size() || merge.find(' ', blank + 1) != std::string::npos)
      fail(v.origin, ": merge ", merges.size(), " is \"", merge, "\", not two tokens with a blank between");
    merges.push_back({merge.substr(0, blank), merge.substr(blank + 1)});
  }
  json steps = json::array();
  for (const char* pattern : pre.patterns)
    steps.push_back({{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  steps.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}});

  json document = json::object();
  document["version"] = "1.0";
  document["truncation"] = document["padding"] = nullptr;
  document["added_tokens"] = std::move(added);
  document["normalizer"] = pre.nfc ? json{{"type", "NFC"}} : json(nullptr);
  document["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
  document["post_processor"] = around_texts(v, facts_of(v, pre.bos));
  document["decoder"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  document["model"] = {{"type", "BPE"},
                       {"dropout", nullptr},
                       {"unk_token", nullptr},
                       {"continuing_subword_prefix", nullptr},
                       {"fuse_unk", false},
                       {"end_of_word_suffix", nullptr},
                       {"byte_fallback", false},
                       {"ignore_merges", pre.ignore_merges},
                       {"vocab", std::move(vocabulary)},
                       {"merges", std::move(merges)}};
  return document;
}

[[nodiscard]] inline Tokenizer byte_level_from_gguf(const GgufVocabulary& v) {
  const Tokenizer tokenizer = tokenizer_json::build(byte_level_document(v), v.origin);
  TokenizerFacts facts = tokenizer.facts();
  facts.bos = v.bos;
  facts.eos = v.eos;
  facts.unk = v.unk;
  facts.remark = "pre-tokenizer " + v.pre;
  return tokenizer.with(std::move(facts));
}

}  // namespace ptq::io
