// tokenizer.json of Hugging Face tokenizers, model BPE: LLaMA 1 and 2 (blanks as "▁", byte fallback), Llama-3, Qwen, OPT, SmolLM (byte
// level).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/digest.hpp>
#include <ptq/core/error.hpp>
#include <ptq/io/json.hpp>
#include <ptq/io/tokenizer/pipeline.hpp>
#include <ptq/io/tokenizer/tokenizer.hpp>
#include <ptq/io/tokenizer/tokenizer_json_steps.hpp>

namespace ptq::io::tokenizer_json {

/// Merges, written as "left right" or as ["left", "right"].
[[nodiscard]] inline std::vector<Bpe::Merge> merges(const json& model, const std::string& origin) {
  std::vector<Bpe::Merge> result;
  for (const json& merge : list(model, "merges", origin)) {
    if (merge.is_array() && merge.size() == 2) {
      result.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    const auto line = merge.is_string() ? merge.get<std::string>() : std::string();
    if (line.starts_with("#version")) continue;
    const std::size_t blank = line.find(' ');
    if (blank == std::string::npos || line.find(' ', blank + 1) != std::string::npos)
      fail(origin, ": merge ", result.size(), " is ", merge.dump(), ", neither \"left right\" nor [\"left\", \"right\"]");
    result.emplace_back(line.substr(0, blank), line.substr(blank + 1));
  }
  return result;
}

[[nodiscard]] inline Bpe bpe(const json& model, const std::string& origin) {
  const auto type = value_or<std::string>(model, "type", model.contains("merges") ? "BPE" : "without a type");
  if (type != "BPE") fail(origin, ": the model is ", type, "; only BPE is supported");
  if (const auto dropout = value_or(model, "dropout", 0.0); dropout != 0) fail(origin, ": dropout ", dropout, " makes ids random");
  const json& table = model.at("vocab");
  if (!table.is_object()) fail(origin, ": \"vocab\" is not an object");
  Vocabulary vocabulary;
  for (const auto& [token, id] : table.items()) {
    if (!id.is_number_integer()) fail(origin, ": token \"", token, "\" has the id ", id.dump());
    vocabulary.add(token, id.get<std::int64_t>(), origin);
  }
  BpeOptions options;
  if (const auto unknown = value_or<std::string>(model, "unk_token", ""); !unknown.empty()) {
    options.unknown = vocabulary.id(unknown);
    if (!options.unknown) fail(origin, ": unk_token \"", unknown, "\" is not in the vocabulary");
  }
  options.fuse_unknown = value_or(model, "fuse_unk", false);
  options.byte_fallback = value_or(model, "byte_fallback", false);
  options.ignore_merges = value_or(model, "ignore_merges", false);
  options.continuing_subword_prefix = value_or<std::string>(model, "continuing_subword_prefix", "");
  options.end_of_word_suffix = value_or<std::string>(model, "end_of_word_suffix", "");
  return {std::move(vocabulary), merges(model, origin), std::move(options), origin};
}

[[nodiscard]] inline std::int32_t token_id(const json& id, const std::string& origin) {
  const auto value = id.is_number_integer() ? id.get<std::int64_t>() : -1;
  if (value < 0 || value > INT32_MAX) fail(origin, ": ", id.dump(), " is no token id");
  return static_cast<std::int32_t>(value);
}

/// Added tokens; one that the vocabulary has keeps the vocabulary's id.
[[nodiscard]] inline std::vector<AddedToken> added_tokens(const json& entries, const Vocabulary& vocabulary, const std::string& origin) {
  std::vector<AddedToken> result;
  for (const json& entry : entries) {
    AddedToken token;
    token.content = entry.at("content").get<std::string>();
    token.id = vocabulary.id(token.content).value_or(token_id(entry.at("id"), origin));
    token.special = value_or(entry, "special", false);
    token.single_word = value_or(entry, "single_word", false);
    token.lstrip = value_or(entry, "lstrip", false);
    token.rstrip = value_or(entry, "rstrip", false);
    token.normalized = value_or(entry, "normalized", !token.special);
    result.push_back(std::move(token));
  }
  return result;
}

/// Special tokens that a post-processor sets around a single text.
inline void post_processor(const json& step, const std::string& origin, TokenizerFacts& facts) {
  using Ids = std::vector<std::int32_t>;
  if (step.is_null()) return;
  const auto type = step.at("type").get<std::string>();
  const auto wrap = [&](const Ids& before, const Ids& after) {
    facts.before.insert(facts.before.begin(), before.begin(), before.end());
    facts.after.insert(facts.after.end(), after.begin(), after.end());
  };
  if (type == "Sequence") {
    for (const json& inner : list(step, "processors", origin)) post_processor(inner, origin, facts);
  } else if (type == "TemplateProcessing") {
    Ids before, after;
    bool text = false;
    for (const json& part : list(step, "single", origin)) {
      if (part.contains("Sequence")) {
        if (text) fail(origin, ": the template of one text names it twice");
        text = true;
        continue;
      }
      const auto name = part.at("SpecialToken").at("id").get<std::string>();
      for (const json& id : step.at("special_tokens").at(name).at("ids")) (text ? after : before).push_back(token_id(id, origin));
    }
    if (!text) fail(origin, ": the template of one text leaves the text out");
    wrap(before, after);
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    wrap({token_id(step.at("cls").at(1), origin)}, {token_id(step.at("sep").at(1), origin)});
  } else if (type != "ByteLevel") {
    fail(origin, ": post-processor ", type,
         " is not supported (supported: Sequence, TemplateProcessing, ByteLevel, RobertaProcessing, BertProcessing)");
  }
}

/// Builds the tokenizer of a parsed file. The caller may have changed `document` by what tokenizer_config.json says.
[[nodiscard]] inline Tokenizer build(const json& document, const std::string& origin) try {
  if (!document.is_object() || !document.contains("model")) fail(origin, ": no tokenizer (it has no \"model\")");
  const auto part = [&](const char* key) { return value_or<json>(document, key, nullptr); };
  TokenizerFacts facts;
  Bpe model = bpe(document["model"], origin);
  const std::vector<AddedToken> added = added_tokens(value_or<json>(document, "added_tokens", json::array()), model.vocabulary(), origin);
  post_processor(part("post_processor"), origin, facts);
  facts.kind = part("pre_tokenizer").dump().find("ByteLevel") != std::string::npos ||
                       part("normalizer").dump().find("ByteLevel") != std::string::npos
                   ? "byte-level BPE"
                   : "BPE";
  facts.source = origin;
  facts.vocab_size = model.vocabulary().size();
  for (const AddedToken& token : added) facts.vocab_size = std::max(facts.vocab_size, std::int64_t{token.id} + 1);
  for (const auto* ids : {&facts.before, &facts.after})
    for (const std::int32_t id : *ids)
      if (id < 0 || id >= facts.vocab_size) fail(origin, ": the post-processor adds the id ", id, ", which no token has");
  facts.digest = sha256(document.dump());
  auto pipeline = std::make_shared<Pipeline>(std::move(model), added, normalizer(part("normalizer"), origin),
                                             pre_tokenizer(part("pre_tokenizer"), origin), decoder(part("decoder"), origin));
  return {std::move(pipeline), std::move(facts)};
} catch (const json::exception& error) {
  fail(origin, ": not the layout of a tokenizer.json: ", error.what());
}

}  // namespace ptq::io::tokenizer_json
