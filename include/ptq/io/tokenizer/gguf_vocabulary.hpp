// The vocabulary that a GGUF file carries, as plain data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/gguf_metadata.hpp>
#include <ptq/io/tokenizer/tokenizer.hpp>
#include <ptq/io/tokenizer/utf8.hpp>

namespace ptq::io {

/// Kinds of token, numbered as in GGUF and in SentencePiece.
enum class TokenType : std::int32_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

struct GgufVocabulary {
  std::string origin;               ///< the file
  std::string model;                ///< "gpt2" (byte-level BPE), "llama" (SentencePiece)
  std::string pre;                  ///< name of the pre-tokenizer, for gpt2
  std::vector<std::string> tokens;  ///< [V]
  std::vector<double> scores;       ///< [V], for llama
  std::vector<TokenType> types;     ///< [V]
  std::vector<std::string> merges;  ///< "left right", for gpt2
  std::optional<std::int32_t> bos{}, eos{}, unk{};
  std::optional<bool> add_bos{}, add_eos{}, add_space_prefix{};
};

/// Reads and checks the keys tokenizer.ggml.*: lists of one length, types known, ids inside.
[[nodiscard]] inline GgufVocabulary read_gguf_vocabulary(const GgufMetadata& metadata) {
  const std::string prefix = "tokenizer.ggml.";
  GgufVocabulary v;
  v.origin = metadata.file();
  v.model = metadata.text(prefix + "model");
  v.pre = metadata.has(prefix + "pre") ? metadata.text(prefix + "pre") : "default";
  v.tokens = metadata.texts(prefix + "tokens");
  const std::size_t size = v.tokens.size();
  if (size == 0 || size > INT32_MAX) fail(v.origin, ": a vocabulary of ", size, " tokens");
  for (std::size_t i = 0; i < size; ++i)
    if (first_invalid_utf8(v.tokens[i]) != std::string::npos) fail(v.origin, ": token ", i, " is not UTF-8");
  const auto optional_flag = [&](const char* key) {
    return metadata.has(prefix + key) ? std::optional(metadata.flag(prefix + key, false)) : std::nullopt;
  };
  const auto optional_id = [&](const char* key) -> std::optional<std::int32_t> {
    if (!metadata.has(prefix + key)) return std::nullopt;
    const std::int64_t id = metadata.integer(prefix + key);
    if (id < 0 || id >= static_cast<std::int64_t>(size)) fail(v.origin, ": ", prefix, key, " is ", id, ", beyond the ", size, " tokens");
    return static_cast<std::int32_t>(id);
  };
  const auto same_length = [&](const char* key, std::size_t length) {
    if (length != size) fail(v.origin, ": ", prefix, key, " has ", length, " entries for ", size, " tokens");
  };
  if (metadata.has(prefix + "scores")) {
    v.scores = metadata.get<std::vector<double>>(prefix + "scores");
    same_length("scores", v.scores.size());
  }
  v.types.assign(size, TokenType::normal);
  if (metadata.has(prefix + "token_type")) {
    const auto& types = metadata.get<std::vector<std::int64_t>>(prefix + "token_type");
    same_length("token_type", types.size());
    for (std::size_t i = 0; i < size; ++i) {
      if (types[i] < 1 || types[i] > 6) fail(v.origin, ": token ", i, " has the type ", types[i], "; known are 1 to 6");
      v.types[i] = static_cast<TokenType>(types[i]);
    }
  }
  if (metadata.has(prefix + "merges")) v.merges = metadata.texts(prefix + "merges");
  v.bos = optional_id("bos_token_id");
  v.eos = optional_id("eos_token_id");
  v.unk = optional_id("unknown_token_id");
  v.add_bos = optional_flag("add_bos_token");
  v.add_eos = optional_flag("add_eos_token");
  v.add_space_prefix = optional_flag("add_space_prefix");
  return v;
}

/// What is known without building anything; `bos_by_default` where the file does not say whether BOS is added.
[[nodiscard]] inline TokenizerFacts facts_of(const GgufVocabulary& v, bool bos_by_default) {
  TokenizerFacts facts;
  facts.source = v.origin;
  facts.vocab_size = static_cast<std::int64_t>(v.tokens.size());
  facts.bos = v.bos;
  facts.eos = v.eos;
  facts.unk = v.unk;
  const auto around = [&](std::optional<bool> wanted, bool otherwise, std::optional<std::int32_t> id, const char* name, auto& ids) {
    if (!wanted.value_or(otherwise)) return;
    if (id) ids.push_back(*id);
    if (!id && wanted) fail(v.origin, ": ", name, " is to be added to texts, but the file names no such token");
  };
  around(v.add_bos, bos_by_default, v.bos, "BOS", facts.before);
  around(v.add_eos, false, v.eos, "EOS", facts.after);
  return facts;
}

}  // namespace ptq::io
