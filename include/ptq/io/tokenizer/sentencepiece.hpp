// SentencePiece models (Kudo and Richardson 2018): tokenizer.model files, and GGUF vocabularies of the kind `llama`.
// The one door to libsentencepiece.
#pragma once

#include <sentencepiece_processor.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/digest.hpp>
#include <ptq/core/error.hpp>
#include <ptq/io/tokenizer/added_tokens.hpp>
#include <ptq/io/tokenizer/gguf_vocabulary.hpp>
#include <ptq/io/tokenizer/sentencepiece_check.hpp>
#include <ptq/io/tokenizer/tokenizer.hpp>

namespace ptq::io {

namespace detail {

/// Writer of protocol buffer fields: varints, little-endian floats, length-prefixed bytes.
struct ProtoWriter {
  std::string bytes{};
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7U) bytes += static_cast<char>((value & 0x7FU) | 0x80U);
    bytes += static_cast<char>(value);
  }
  void integer(unsigned field, std::uint64_t value) { varint(field << 3U), varint(value); }
  void real(unsigned field, float value) {
    varint((field << 3U) | 5U);
    const auto raw = std::bit_cast<std::uint32_t>(value);
    for (unsigned shift = 0; shift < 32; shift += 8) bytes += static_cast<char>((raw >> shift) & 0xFFU);
  }
  void text(unsigned field, std::string_view value) { varint((field << 3U) | 2U), varint(value.size()), bytes += value; }
};

/// Appended to a serialized ModelProto, this replaces one flag of its normalizer: repeated messages merge, the last value counts.
[[nodiscard]] inline std::string dummy_prefix_override(bool add) {
  ProtoWriter normalizer, model;
  normalizer.integer(3, add ? 1 : 0);  // NormalizerSpec.add_dummy_prefix
  model.text(3, normalizer.bytes);     // ModelProto.normalizer_spec
  return std::move(model.bytes);
}

}  // namespace detail

/// Which parts of a text get SentencePiece's dummy blank in front: each part between special tokens, only the first, none.
enum class DummyPrefix { every_part, first_part, none };

class SentencePieceModel : public Tokenizer::Model {
 public:
  /// `proto` is a serialized ModelProto; `added` are cut out of a text first. Fails with SentencePiece's words on a bad model.
  SentencePieceModel(const std::string& proto, const std::vector<AddedToken>& added, DummyPrefix prefix, std::string_view origin)
      : prefix_(prefix), added_(added) {
    load(plain_, proto, origin);
    if (prefix != DummyPrefix::every_part) load(unprefixed_, proto + detail::dummy_prefix_override(false), origin);
    for (int id = 0; id < plain_.GetPieceSize(); ++id)
      if (plain_.IsControl(id) || plain_.IsUnknown(id)) special_.push_back({.content = plain_.IdToPiece(id), .id = id, .special = true});
    for (const AddedToken& token : special_) tokens_.add(token, token.content);
    for (const AddedToken& token : added) tokens_.add(token, token.content);
  }

  [[nodiscard]] const sentencepiece::SentencePieceProcessor& processor() const { return plain_; }

  void encode(std::string_view text, std::vector<std::int32_t>& ids) const override {
    tokens_.split(
        text,
        [&](std::size_t begin, std::size_t end) {
          const bool blank = prefix_ == DummyPrefix::every_part || (prefix_ == DummyPrefix::first_part && begin == 0);
          std::vector<int> part;
          const auto status = (blank ? plain_ : unprefixed_).Encode(text.substr(begin, end - begin), &part);
          if (!status.ok()) fail("SentencePiece could not encode a text: ", status.ToString());
          ids.insert(ids.end(), part.begin(), part.end());
        },
        [&](std::int32_t id) { ids.push_back(id); });
  }

  [[nodiscard]] std::string decode(std::span<const std::int32_t> ids, bool keep_special) const override {
    std::string text;
    std::vector<int> part;
    bool first = true;
    const auto flush = [&] {
      if (part.empty()) return;
      std::string piece;
      const bool strip = first || prefix_ == DummyPrefix::every_part;
      const auto status = (strip || prefix_ == DummyPrefix::every_part ? plain_ : unprefixed_).Decode(part, &piece);
      if (!status.ok()) fail("SentencePiece could not decode: ", status.ToString());
      text += piece;
      part.clear();
    };
    for (const std::int32_t id : ids) {
      const AddedToken* token = nullptr;
      for (const auto* list : {&special_, &added_})
        for (const AddedToken& entry : *list)
          if (entry.id == id) token = &entry;
      if (token == nullptr && (id < 0 || id >= plain_.GetPieceSize())) fail("id ", id, " is not in the tokenizer's vocabulary");
      if (token == nullptr) {
        part.push_back(id);
        continue;
      }
      flush();
      first = false;
      if (keep_special || !token->special) text += token->content;
    }
    flush();
    return text;
  }

  [[nodiscard]] std::optional<std::int32_t> id(std::string_view token) const override {
    for (const AddedToken& entry : added_)
      if (entry.content == token) return entry.id;
    const int id = plain_.PieceToId(token);
    return id >= 0 && id < plain_.GetPieceSize() && plain_.IdToPiece(id) == token ? std::optional<std::int32_t>(id) : std::nullopt;
  }

 private:
  static void load(sentencepiece::SentencePieceProcessor& processor, const std::string& proto, std::string_view origin) {
    std::string trouble;
    try {
      if (const auto status = processor.LoadFromSerializedProto(proto); !status.ok()) trouble = status.ToString();
    } catch (const std::exception& error) {  // of the trie inside
      trouble = error.what();
    }
    if (!trouble.empty()) fail(origin, ": not a SentencePiece model: ", trouble);
  }

  DummyPrefix prefix_;
  sentencepiece::SentencePieceProcessor plain_, unprefixed_;
  AddedTokens tokens_;
  std::vector<AddedToken> special_, added_;
};

/// From a tokenizer.model. BOS is set before a text unless the caller changes the facts, as the LLaMA tokenizers do.
[[nodiscard]] inline Tokenizer sentencepiece_from_proto(const std::string& proto, const std::vector<AddedToken>& added, DummyPrefix prefix,
                                                        const std::string& origin, TokenizerFacts facts) {
  check_sentencepiece_proto(proto, origin);
  auto model = std::make_shared<SentencePieceModel>(proto, added, prefix, origin);
  const auto& processor = model->processor();
  const auto optional = [](int id) { return id < 0 ? std::nullopt : std::optional<std::int32_t>(id); };
  facts.kind = "SentencePiece";
  facts.source = origin;
  facts.vocab_size = processor.GetPieceSize();
  for (const AddedToken& token : added) facts.vocab_size = std::max(facts.vocab_size, std::int64_t{token.id} + 1);
  if (!facts.bos) facts.bos = optional(processor.bos_id());
  if (!facts.eos) facts.eos = optional(processor.eos_id());
  facts.unk = optional(processor.unk_id());
  return {std::move(model), std::move(facts)};
}

/// From a GGUF vocabulary of the kind `llama`: a BPE model with an identity normalizer, written field by field (sentencepiece_model.proto).
[[nodiscard]] inline std::string sentencepiece_proto(const GgufVocabulary& v) {
  if (v.scores.empty()) fail(v.origin, ": tokenizer.ggml.scores is missing");
  detail::ProtoWriter model, trainer, normalizer;
  bool bytes = false;
  std::optional<std::int32_t> unknown = v.unk;
  for (std::size_t i = 0; i < v.tokens.size(); ++i) {
    if (v.tokens[i].empty()) fail(v.origin, ": token ", i, " is empty");
    bytes = bytes || v.types[i] == TokenType::byte;
    if (v.types[i] == TokenType::unknown && !unknown) unknown = static_cast<std::int32_t>(i);
    detail::ProtoWriter piece;
    piece.text(1, v.tokens[i]);
    piece.real(2, static_cast<float>(v.scores[i]));
    piece.integer(3, static_cast<std::uint64_t>(v.types[i]));
    model.text(1, piece.bytes);
  }
  if (!unknown) fail(v.origin, ": the vocabulary has no unknown token");
  const auto id = [](std::optional<std::int32_t> value) { return static_cast<std::uint64_t>(std::int64_t{value.value_or(-1)}); };
  trainer.integer(3, 2);                // model_type BPE
  trainer.integer(4, v.tokens.size());  // vocab_size
  trainer.integer(35, bytes ? 1 : 0);   // byte_fallback
  trainer.integer(40, id(unknown));
  trainer.integer(41, id(v.bos));
  trainer.integer(42, id(v.eos));
  trainer.integer(43, id(std::nullopt));                           // no padding
  trainer.text(45, v.tokens[static_cast<std::size_t>(*unknown)]);  // names of the special pieces
  if (v.bos) trainer.text(46, v.tokens[static_cast<std::size_t>(*v.bos)]);
  if (v.eos) trainer.text(47, v.tokens[static_cast<std::size_t>(*v.eos)]);
  normalizer.text(1, "identity");
  normalizer.integer(3, v.add_space_prefix.value_or(true) ? 1 : 0);  // add_dummy_prefix
  normalizer.integer(4, 0);                                          // remove_extra_whitespaces
  normalizer.integer(5, 1);                                          // escape_whitespaces
  model.text(2, trainer.bytes);
  model.text(3, normalizer.bytes);
  return std::move(model.bytes);
}

[[nodiscard]] inline Tokenizer sentencepiece_from_gguf(const GgufVocabulary& v) {
  const bool prefix = v.add_space_prefix.value_or(true);
  TokenizerFacts facts = facts_of(v, true);
  const std::string proto = sentencepiece_proto(v);
  facts.digest = Sha256().field("proto", proto).field("before", facts.before.size()).field("after", facts.after.size()).hex();
  return sentencepiece_from_proto(proto, {}, prefix ? DummyPrefix::every_part : DummyPrefix::none, v.origin, std::move(facts));
}

}  // namespace ptq::io
