// Windows of a text for perplexity, by named protocols.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/corpus/sampling.hpp>
#include <ptq/io/corpus/text.hpp>
#include <ptq/io/corpus/tokens.hpp>
#include <ptq/io/tokenizer/tokenizer.hpp>

namespace ptq::io {

/// gptq: the text tokenized once, consecutive windows of L, the tail dropped; `c4` draws 256 windows from documents with seed 0.
/// tail: the same, and the last window may be shorter (FlexRound and LRQ); windows count alike.
/// lqer_shards: rows in 8 contiguous shards, each tokenized as one string and cut; the tail of each is dropped.
enum class Protocol { gptq, tail, lqer_shards };

[[nodiscard]] inline std::string_view name_of(Protocol protocol) {
  constexpr std::string_view names[] = {"gptq", "tail", "lqer-shards"};
  return names[static_cast<std::size_t>(protocol)];
}

[[nodiscard]] inline Protocol protocol_of(std::string_view name) {
  for (const Protocol protocol : {Protocol::gptq, Protocol::tail, Protocol::lqer_shards})
    if (name == name_of(protocol)) return protocol;
  refuse("protocol '", name, "' is not known (known: gptq, tail, lqer-shards)");
}

struct TokenWindows {
  TokenRows rows;
  Protocol protocol = Protocol::gptq;
  std::int64_t length = 0;         ///< L
  std::int64_t stream_tokens = 0;  ///< ids of the whole text where it is tokenized as one; else ids in windows
  std::string bos;                 ///< "once" at the front of the stream (of each shard or document), or "none"
  std::string text, text_digest, tokenizer_digest;
};

/// The first `count` windows (all for 0) of `length` ≥ 2 tokens. Fails when the text is too short for one window, or for `count` of them.
[[nodiscard]] inline TokenWindows cut_windows(const Text& text, const Tokenizer& tokenizer, Protocol protocol, std::int64_t length,
                                              std::int64_t count = 0, Special special = Special::default_) {
  if (length < 2) refuse("windows of ", length, " tokens leave nothing to predict");
  if (count < 0) refuse(count, " windows");
  TokenWindows windows;
  windows.protocol = protocol;
  windows.length = length;
  windows.bos = "none";
  windows.text = text.name;
  windows.text_digest = text.digest;
  windows.tokenizer_digest = tokenizer.digest();
  const std::int64_t wanted = count > 0 ? count : text.name == "c4-new" ? 256 : std::numeric_limits<std::int64_t>::max();
  const auto note_bos = [&](std::span<const std::int32_t> ids) {
    if (windows.rows.count() == 0) windows.bos = bos_policy(ids, tokenizer, text.name);
  };
  if (protocol == Protocol::lqer_shards) {
    for_each_shard_piece(text, tokenizer, special, length, 8, 1000, [&](std::span<const std::int32_t> piece) {
      note_bos(piece);
      windows.rows.add(piece);
      return windows.rows.count() < wanted;
    });
    windows.stream_tokens = static_cast<std::int64_t>(windows.rows.ids.size());
  } else if (text.documents) {
    if (protocol != Protocol::gptq) refuse("protocol ", name_of(protocol), " needs one text; '", text.name, "' is a set of documents");
    TokenSample sample = sample_tokens(text, tokenizer, Sampling::gptq, count > 0 ? count : 256, length, 0, special);
    windows.rows = std::move(sample.rows);
    windows.bos = sample.bos;
    windows.stream_tokens = static_cast<std::int64_t>(windows.rows.ids.size());
  } else {
    const std::vector<std::int32_t> ids = token_stream(text, tokenizer, special);
    note_bos(ids);
    windows.stream_tokens = static_cast<std::int64_t>(ids.size());
    const std::int64_t smallest = protocol == Protocol::tail ? 2 : length;
    for (std::int64_t at = 0; windows.stream_tokens - at >= smallest && windows.rows.count() < wanted; at += length)
      windows.rows.add(
          std::span(ids).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(std::min(length, windows.stream_tokens - at))));
  }
  if (windows.rows.count() == 0)
    fail("text '", text.name, "' is too short: ", windows.stream_tokens, " tokens, not one window of ", length);
  if (count > 0 && windows.rows.count() < count)
    fail("text '", text.name, "' has ", windows.rows.count(), " windows of ", length, " tokens by the protocol ", name_of(protocol),
         ", not ", count);
  return windows;
}

}  // namespace ptq::io
