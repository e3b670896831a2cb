// What every tokenizer offers, whatever file it came from.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/tokenizer/utf8.hpp>

namespace ptq::io {

/// Whether the tokens that the tokenizer sets around a text by default (BOS, sometimes EOS) are added.
/// Special tokens written in the text itself become their ids in either case.
enum class Special { none, default_ };

/// What is known of a tokenizer besides its algorithm.
struct TokenizerFacts {
  std::string kind;             ///< "byte-level BPE", "BPE", "SentencePiece"
  std::string source;           ///< the file
  std::string digest;           ///< SHA-256 of everything that ids depend on
  std::int64_t vocab_size = 0;  ///< one more than the largest id
  std::optional<std::int32_t> bos{}, eos{}, unk{};
  std::vector<std::int32_t> before{}, after{};  ///< special tokens set around a text
  std::string remark{};                         ///< choices made on opening, for the record
};

/// Text to ids and back. Copies share the model; `encode` and `decode` may be called from several threads.
class Tokenizer {
 public:
  struct Model {
    Model() = default;
    Model(const Model&) = delete;
    Model& operator=(const Model&) = delete;
    virtual ~Model() = default;
    /// Appends the ids of valid UTF-8, without tokens around it.
    virtual void encode(std::string_view text, std::vector<std::int32_t>& ids) const = 0;
    [[nodiscard]] virtual std::string decode(std::span<const std::int32_t> ids, bool keep_special) const = 0;
    /// The id of a token by its exact spelling in the vocabulary.
    [[nodiscard]] virtual std::optional<std::int32_t> id(std::string_view token) const = 0;
  };

  Tokenizer(std::shared_ptr<const Model> model, TokenizerFacts facts) : model_(std::move(model)), facts_(std::move(facts)) {}

  /// Ids of a text: what it contains, within the default special tokens if wished. Fails on invalid UTF-8.
  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view text, Special special = Special::default_) const {
    require_utf8(text, "text to tokenize");
    std::vector<std::int32_t> ids;
    if (special == Special::default_) ids = facts_.before;
    model_->encode(text, ids);
    if (special == Special::default_) ids.insert(ids.end(), facts_.after.begin(), facts_.after.end());
    return ids;
  }

  /// Text of ids, always valid UTF-8 (U+FFFD for bytes that form no character). Special::none leaves special tokens out.
  /// Fails on ids that the tokenizer does not have.
  [[nodiscard]] std::string decode(std::span<const std::int32_t> ids, Special special = Special::default_) const {
    return model_->decode(ids, special == Special::default_);
  }

  [[nodiscard]] std::optional<std::int32_t> id(std::string_view token) const { return model_->id(token); }

  [[nodiscard]] const TokenizerFacts& facts() const { return facts_; }
  [[nodiscard]] const std::string& kind() const { return facts_.kind; }
  [[nodiscard]] const std::string& digest() const { return facts_.digest; }
  [[nodiscard]] std::int64_t vocab_size() const { return facts_.vocab_size; }
  [[nodiscard]] std::optional<std::int32_t> bos() const { return facts_.bos; }
  [[nodiscard]] std::optional<std::int32_t> eos() const { return facts_.eos; }
  [[nodiscard]] std::optional<std::int32_t> unk() const { return facts_.unk; }

  /// The same tokenizer, other facts about it.
  [[nodiscard]] Tokenizer with(TokenizerFacts facts) const { return {model_, std::move(facts)}; }

  /// One line for logs and results: kind, size, file, what is set around a text.
  [[nodiscard]] std::string description() const {
    const auto list = [](const std::vector<std::int32_t>& ids) {
      std::string text;
      for (const std::int32_t id : ids) text += (text.empty() ? "" : " ") + std::to_string(id);
      return text.empty() ? std::string("nothing") : text;
    };
    return cat(facts_.kind, " with ", facts_.vocab_size, " tokens from ", facts_.source, "; before a text ", list(facts_.before),
               ", after it ", list(facts_.after), facts_.remark.empty() ? "" : "; ", facts_.remark);
  }

 private:
  std::shared_ptr<const Model> model_;
  TokenizerFacts facts_;
};

}  // namespace ptq::io
