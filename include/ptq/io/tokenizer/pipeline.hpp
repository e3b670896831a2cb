// The order of things in Hugging Face tokenizers: added tokens are cut out, the rest is normalized, cut into words and merged.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/tokenizer/added_tokens.hpp>
#include <ptq/io/tokenizer/bpe.hpp>
#include <ptq/io/tokenizer/decode.hpp>
#include <ptq/io/tokenizer/normalize.hpp>
#include <ptq/io/tokenizer/pre_tokenize.hpp>
#include <ptq/io/tokenizer/tokenizer.hpp>

namespace ptq::io {

class Pipeline : public Tokenizer::Model {
 public:
  /// `normalizer` and `decoder` may be empty.
  Pipeline(Bpe bpe, const std::vector<AddedToken>& added, Normalizer normalizer, PreTokenizer pre_tokenizer, Decoder decoder)
      : bpe_(std::move(bpe)), normalizer_(std::move(normalizer)), pre_tokenizer_(std::move(pre_tokenizer)), decoder_(std::move(decoder)) {
    for (const AddedToken& token : added) {
      const bool later = token.normalized && normalizer_;
      (token.normalized ? in_normalized_ : in_raw_).add(token, later ? normalizer_(token.content) : token.content);
      added_[token.id] = token;
    }
  }

  void encode(std::string_view text, std::vector<std::int32_t>& ids) const override {
    Bpe::Encoder encoder(bpe_);
    const PieceSink model = [&](Piece word) { encoder(word.text, ids); };
    const auto token = [&](std::int32_t id) { ids.push_back(id); };
    in_raw_.split(
        text,
        [&](std::size_t begin, std::size_t end) {
          std::string_view part = text.substr(begin, end - begin);
          std::string normalized;
          if (normalizer_) part = normalized = normalizer_(part);
          in_normalized_.split(
              part,
              [&](std::size_t from, std::size_t to) {
                pre_tokenizer_({part.substr(from, to - from), begin == 0 && from == 0}, model);
              },
              token);
        },
        token);
  }

  [[nodiscard]] std::string decode(std::span<const std::int32_t> ids, bool keep_special) const override {
    std::vector<std::string> tokens;
    for (const std::int32_t id : ids) {
      const auto added = added_.find(id);
      if (added != added_.end()) {
        if (keep_special || !added->second.special) tokens.push_back(added->second.content);
      } else if (const std::string* piece = bpe_.vocabulary().token(id)) {
        tokens.push_back(*piece);
      } else {
        fail("id ", id, " is not in the tokenizer's vocabulary");
      }
    }
    if (decoder_) decoder_(tokens);
    std::string text;
    for (std::size_t i = 0; i < tokens.size(); ++i) text += (i > 0 && !decoder_ ? " " : "") + tokens[i];
    return text;
  }

  [[nodiscard]] std::optional<std::int32_t> id(std::string_view token) const override {
    for (const auto& [id, added] : added_)
      if (added.content == token) return id;
    return bpe_.vocabulary().id(token);
  }

 private:
  Bpe bpe_;
  AddedTokens in_raw_, in_normalized_;
  std::unordered_map<std::int32_t, AddedToken> added_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  Decoder decoder_;
};

}  // namespace ptq::io
