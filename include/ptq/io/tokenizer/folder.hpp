// The tokenizer of a Hugging Face folder: its files together, as transformers reads them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/digest.hpp>
#include <ptq/core/error.hpp>
#include <ptq/io/json.hpp>
#include <ptq/io/mapped_file.hpp>
#include <ptq/io/tokenizer/sentencepiece.hpp>
#include <ptq/io/tokenizer/tokenizer.hpp>
#include <ptq/io/tokenizer/tokenizer_config.hpp>
#include <ptq/io/tokenizer/tokenizer_json.hpp>

namespace ptq::io {

/// Which file of a folder to read where it holds several: tokenizer.json (what transformers reads; the default) or tokenizer.model
/// (what the papers' scripts read; it differs on texts that begin with a blank).
enum class TokenizerFile { preferred, tokenizer_json, tokenizer_model };

namespace detail {

/// Special tokens by the names in the configuration, and its switches for BOS and EOS where it has them.
[[nodiscard]] inline Tokenizer configure(const Tokenizer& tokenizer, const TokenizerConfig& config, std::string remark) {
  TokenizerFacts facts = tokenizer.facts();
  const auto look_up = [&](const std::string& name, std::optional<std::int32_t>& id) {
    if (const auto found = name.empty() ? std::nullopt : tokenizer.id(name)) id = found;
  };
  look_up(config.bos, facts.bos), look_up(config.eos, facts.eos), look_up(config.unk, facts.unk);
  if (config.add_bos || config.add_eos) {  // one switch given: the other is off
    facts.before.clear(), facts.after.clear();
    if (config.add_bos.value_or(false) && facts.bos) facts.before.push_back(*facts.bos);
    if (config.add_eos.value_or(false) && facts.eos) facts.after.push_back(*facts.eos);
  }
  if (!facts.bos && facts.before.size() == 1) facts.bos = facts.before.front();
  Sha256 digest;
  digest.field("model", facts.digest);
  for (const std::int32_t id : facts.before) digest.field("before", id);
  for (const std::int32_t id : facts.after) digest.field("after", id);
  facts.digest = digest.hex();
  facts.remark = std::move(remark);
  return tokenizer.with(std::move(facts));
}

/// The entry of an added token by its content, or nullptr.
[[nodiscard]] inline json* added_entry(json& added, const std::string& content) {
  for (json& entry : added)
    if (entry.is_object() && entry.contains("content") && entry["content"] == content) return &entry;
  return nullptr;
}

}  // namespace detail

/// A parsed tokenizer.json under a configuration: tokens that only the configuration names are added, its switches obeyed.
[[nodiscard]] inline Tokenizer tokenizer_from_json(json document, const TokenizerConfig& config, const std::string& origin,
                                                   std::string remark = "") try {
  if (!document.is_object() || !document.contains("model") || !document["model"].is_object())
    fail(origin, ": no tokenizer (it has no \"model\")");
  json& added = document["added_tokens"];
  if (!added.is_array()) added = json::array();
  for (const json& token : config.added) {
    json* known = detail::added_entry(added, token.at("content").get<std::string>());
    if (known == nullptr) known = &added.emplace_back();
    *known = token;
  }
  if (const auto vocabulary = document["model"].find("vocab"); vocabulary != document["model"].end() && vocabulary->is_object())
    for (const std::string& token : config.special)
      if (detail::added_entry(added, token) == nullptr && vocabulary->contains(token))
        added.push_back({{"content", token}, {"id", (*vocabulary)[token]}, {"special", true}, {"normalized", false}});
  json& step = document["pre_tokenizer"];
  const std::string type = step.is_object() ? tokenizer_json::value_or<std::string>(step, "type", "") : std::string();
  // transformers 5 builds the Metaspace of its LLaMA class itself: no blank after a special token inside a text, unless `legacy`.
  if (type == "Metaspace" && config.tokenizer_class.starts_with("LlamaTokenizer") && !config.legacy.value_or(false) &&
      tokenizer_json::value_or<std::string>(step, "prepend_scheme", "") == "always") {
    step["prepend_scheme"] = "first";
    remark += cat(remark.empty() ? "" : "; ", "no blank is put in after a special token (as transformers 5, not legacy)");
  }
  if (type == "ByteLevel" && config.add_prefix_space) step["add_prefix_space"] = *config.add_prefix_space;
  return detail::configure(tokenizer_json::build(document, origin), config, std::move(remark));
} catch (const json::exception& error) {
  fail(origin, ": not the layout of a tokenizer.json: ", error.what());
}

/// A GPT-2 tokenizer in its older form, vocab.json and merges.txt (OPT), as the document that tokenizer.json would be.
[[nodiscard]] inline json document_from_vocab_and_merges(const std::string& vocab, const std::string& merges) {
  json list = json::array();
  const MappedFile file(merges);
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.size());
  require_utf8(text, merges);
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = text.substr(begin, end - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty() && !line.starts_with("#version")) list.push_back(line);
    begin = end + 1;
  }
  const json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  json document = json::object();
  document["pre_tokenizer"] = document["decoder"] = bytes;
  document["model"] = {{"type", "BPE"}, {"vocab", read_json(vocab)}, {"merges", std::move(list)}};
  return document;
}

/// A tokenizer.model under a configuration. BOS is set before a text unless it says otherwise, as the LLaMA tokenizers do.
[[nodiscard]] inline Tokenizer tokenizer_from_sentencepiece(const std::string& path, const TokenizerConfig& config,
                                                            std::string remark = "") try {
  const MappedFile file(path);
  const std::string proto(reinterpret_cast<const char*>(file.bytes().data()), file.size());
  std::vector<AddedToken> added;
  for (const json& entry : config.added) {
    AddedToken token{.content = entry.at("content").get<std::string>(), .id = tokenizer_json::token_id(entry.at("id"), config.path)};
    token.lstrip = tokenizer_json::value_or(entry, "lstrip", false);
    token.rstrip = tokenizer_json::value_or(entry, "rstrip", false);
    token.special = tokenizer_json::value_or(entry, "special", false);
    added.push_back(std::move(token));
  }
  const DummyPrefix prefix = config.legacy.value_or(true) ? DummyPrefix::every_part : DummyPrefix::first_part;
  TokenizerFacts facts;
  facts.digest = Sha256().field("proto", proto).field("added", config.added.dump()).field("prefix", prefix).hex();
  const Tokenizer plain = sentencepiece_from_proto(proto, added, prefix, path, std::move(facts));
  facts = plain.facts();
  if (facts.bos) facts.before.push_back(*facts.bos);
  return detail::configure(plain.with(std::move(facts)), config, std::move(remark));
} catch (const json::exception& error) {
  fail(config.path, ": not the layout of a tokenizer_config.json: ", error.what());
}

[[nodiscard]] inline Tokenizer open_folder_tokenizer(const std::filesystem::path& folder, TokenizerFile wanted = TokenizerFile::preferred) {
  const auto has = [&](const char* name) { return std::filesystem::is_regular_file(folder / name); };
  const auto path = [&](const char* name) { return (folder / name).string(); };
  const TokenizerConfig config = read_tokenizer_config(folder);
  const bool is_json = has("tokenizer.json"), is_model = has("tokenizer.model");
  if (wanted != TokenizerFile::tokenizer_model && is_json)
    return tokenizer_from_json(read_json(path("tokenizer.json")), config, path("tokenizer.json"),
                               is_model ? "tokenizer.model beside it is not used" : "");
  if (wanted != TokenizerFile::tokenizer_json && is_model)
    return tokenizer_from_sentencepiece(path("tokenizer.model"), config, is_json ? "tokenizer.json beside it is not used" : "");
  if (wanted == TokenizerFile::preferred && has("vocab.json") && has("merges.txt"))
    return tokenizer_from_json(document_from_vocab_and_merges(path("vocab.json"), path("merges.txt")), config, path("vocab.json"));
  const char* what = wanted == TokenizerFile::tokenizer_json    ? "tokenizer.json"
                     : wanted == TokenizerFile::tokenizer_model ? "tokenizer.model"
                                                                : "tokenizer.json, tokenizer.model, or vocab.json with merges.txt";
  fail(folder.string(), ": there is no ", what, " in this folder");
}

}  // namespace ptq::io
