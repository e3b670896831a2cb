// Decoders of tokenizer.json: from tokens back to text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/io/tokenizer/byte_alphabet.hpp>
#include <ptq/io/tokenizer/normalize.hpp>
#include <ptq/io/tokenizer/utf8.hpp>

namespace ptq::io {

/// Changes the list of tokens; what is left is joined.
using Decoder = std::function<void(std::vector<std::string>&)>;

namespace decode {

[[nodiscard]] inline Decoder sequence(std::vector<Decoder> steps) {
  return [steps = std::move(steps)](std::vector<std::string>& tokens) {
    for (const Decoder& step : steps) step(tokens);
  };
}

[[nodiscard]] inline Decoder fuse() {
  return [](std::vector<std::string>& tokens) {
    std::string all;
    for (const std::string& token : tokens) all += token;
    tokens.assign(1, std::move(all));
  };
}

/// Characters of GPT-2's alphabet back to bytes.
[[nodiscard]] inline Decoder byte_level() {
  return [](std::vector<std::string>& tokens) {
    std::string bytes;
    for (const std::string& token : tokens) bytes += characters_to_bytes(token);
    tokens.assign(1, lossy_utf8(bytes));
  };
}

/// Applies a text replacement to every token.
[[nodiscard]] inline Decoder each(Normalizer change) {
  return [change = std::move(change)](std::vector<std::string>& tokens) {
    for (std::string& token : tokens) token = change(token);
  };
}

/// The byte of "<0x4F>", or -1 for any other token.
[[nodiscard]] inline int byte_of_token(std::string_view token) {
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return -1;
  const int high = digit(token[3]), low = digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/// Runs of byte tokens become the characters they spell; each byte of a run that spells none becomes U+FFFD.
[[nodiscard]] inline Decoder byte_fallback() {
  return [](std::vector<std::string>& tokens) {
    std::vector<std::string> result;
    std::string bytes;
    const auto flush = [&] {
      if (bytes.empty()) return;
      if (first_invalid_utf8(bytes) == std::string::npos) {
        result.push_back(bytes);
      } else {
        result.insert(result.end(), bytes.size(), "\xEF\xBF\xBD");
      }
      bytes.clear();
    };
    for (std::string& token : tokens) {
      if (const int byte = byte_of_token(token); byte >= 0) {
        bytes += static_cast<char>(byte);
        continue;
      }
      flush();
      result.push_back(std::move(token));
    }
    flush();
    tokens = std::move(result);
  };
}

/// Takes up to `start` copies of `content` from the left of each token and up to `stop` from its right.
[[nodiscard]] inline Decoder strip(std::string content, std::size_t start, std::size_t stop) {
  return [content = std::move(content), start, stop](std::vector<std::string>& tokens) {
    if (content.empty()) return;
    for (std::string& token : tokens) {
      std::string_view rest = token;
      for (std::size_t i = 0; i < start && rest.starts_with(content); ++i) rest.remove_prefix(content.size());
      for (std::size_t i = 0; i < stop && rest.ends_with(content); ++i) rest.remove_suffix(content.size());
      token = std::string(rest);
    }
  };
}

/// SentencePiece's blank back to a blank; the one put in front of the first token goes.
[[nodiscard]] inline Decoder metaspace(std::string replacement, bool prepended) {
  const Normalizer blank = normalize::replace(replacement, " "), gone = normalize::replace(replacement, "");
  return [blank, gone, prepended](std::vector<std::string>& tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = i == 0 && prepended ? gone(tokens[i]) : blank(tokens[i]);
  };
}

}  // namespace decode

}  // namespace ptq::io
