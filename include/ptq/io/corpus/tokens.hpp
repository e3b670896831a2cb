// Rows of token ids cut from a text, and what has to be recorded about them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/corpus/text.hpp>
#include <ptq/io/tokenizer/tokenizer.hpp>

namespace ptq::io {

/// Rows one behind the other; all of one length but for a shorter last one in some protocols.
struct TokenRows {
  std::vector<std::int32_t> ids{};
  std::vector<std::int64_t> starts{0};  ///< [n + 1] of each row in `ids`, and the end

  [[nodiscard]] std::int64_t count() const { return static_cast<std::int64_t>(starts.size()) - 1; }
  [[nodiscard]] std::span<const std::int32_t> row(std::int64_t i) const {
    const auto begin = static_cast<std::size_t>(starts.at(static_cast<std::size_t>(i)));
    return std::span(ids).subspan(begin, static_cast<std::size_t>(starts.at(static_cast<std::size_t>(i) + 1)) - begin);
  }
  /// Whether every row has the same length.
  [[nodiscard]] bool even() const { return count() < 2 || row(count() - 1).size() == row(0).size(); }
  void add(std::span<const std::int32_t> row) {
    ids.insert(ids.end(), row.begin(), row.end());
    starts.push_back(static_cast<std::int64_t>(ids.size()));
  }
};

/// How often a beginning-of-sequence token opens a stream of ids: "none", "once"; twice is an error that names the text.
[[nodiscard]] inline std::string bos_policy(std::span<const std::int32_t> ids, const Tokenizer& tokenizer, std::string_view text) {
  const auto bos = tokenizer.bos();
  if (!bos || ids.empty() || ids[0] != *bos) return "none";
  if (ids.size() > 1 && ids[1] == *bos)
    fail("text '", text, "' would begin with two BOS tokens (id ", *bos, "): it spells one itself, and the tokenizer adds one");
  return "once";
}

/// A text as one stream of ids, special tokens set around the whole.
[[nodiscard]] inline std::vector<std::int32_t> token_stream(const Text& text, const Tokenizer& tokenizer, Special special) {
  return tokenizer.encode(text.joined(), special);
}

/// Rows in blocks as the worker processes of a data set map would join them (LQER): `shards` contiguous shards of rows, the larger first,
/// each joined in batches of at most `batch` rows, tokenized as one string, cut into pieces of `length`; the rest of a batch is dropped.
/// Calls take(piece) until it returns false.
template <class Take>
void for_each_shard_piece(const Text& text, const Tokenizer& tokenizer, Special special, std::int64_t length, std::size_t shards,
                          std::size_t batch, Take&& take) {
  const std::size_t n = text.rows.size();
  for (std::size_t s = 0, begin = 0; s < shards; ++s) {
    const std::size_t end = begin + n / shards + (s < n % shards ? 1 : 0);
    for (; begin < end; begin = std::min(begin + batch, end)) {
      const std::vector<std::int32_t> ids = tokenizer.encode(text.joined(begin, std::min(begin + batch, end)), special);
      const auto step = static_cast<std::size_t>(length);
      for (std::size_t at = 0; at + step <= ids.size(); at += step)
        if (!take(std::span(ids).subspan(at, step))) return;
    }
  }
}

}  // namespace ptq::io
