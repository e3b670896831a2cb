// Calibration samples: crops of texts as the papers' codes draw them, reproducible by seed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/digest.hpp>
#include <ptq/core/error.hpp>
#include <ptq/io/corpus/python_random.hpp>
#include <ptq/io/corpus/text.hpp>
#include <ptq/io/corpus/tokens.hpp>
#include <ptq/io/tokenizer/tokenizer.hpp>

namespace ptq::io {

/// gptq (AWRQ, CLAQ, OmniQuant, LRQuant too): random crops. Of a text tokenized as a whole, start = randint(0, ids - L - 1); of documents
/// (C4), random documents until one has more than L ids, then a random crop of it.
/// flexround (LRQ too): documents tokenized one by one, their ids strung together in batches of 1000 documents, cut into L; in order.
/// lqer: documents joined by blank lines in 8 contiguous shards (batches of 1000), tokenized, cut into L; in order.
enum class Sampling { gptq, flexround, lqer };

/// What the released code of a paper uses: GPTQ (Frantar et al. 2023), AWRQ, CLAQ (Wang et al. 2024), OmniQuant (Shao et al. 2024),
/// LRQuant (Zhao et al. 2024), FlexRound and LRQ (Lee et al. 2023, 2025), LQER (Zhang et al. 2024).
struct SamplingPlan {
  Sampling scheme = Sampling::gptq;
  std::int64_t count = 128, length = 2048;
  std::uint64_t seed = 0;
};

/// By the name of a method; refuses an unknown one.
[[nodiscard]] inline SamplingPlan sampling_plan(std::string_view method) {
  if (method == "gptq" || method == "awrq" || method == "claq") return {};
  if (method == "omniquant" || method == "lrquant") return {.seed = 2};
  if (method == "flexround" || method == "lrq") return {.scheme = Sampling::flexround, .count = 512, .length = 1024};
  if (method == "lqer" || method == "l2qer") return {.scheme = Sampling::lqer, .count = 32, .length = 2048};
  refuse("sampling '", method, "' is not known (known: gptq, awrq, claq, omniquant, lrquant, flexround, lrq, lqer, l2qer)");
}

[[nodiscard]] inline std::string_view name_of(Sampling scheme) {
  constexpr std::string_view names[] = {"gptq", "flexround", "lqer"};
  return names[static_cast<std::size_t>(scheme)];
}

struct TokenSample {
  TokenRows rows;  ///< [N][L]
  Sampling scheme = Sampling::gptq;
  std::uint64_t seed = 0;                 ///< of random crops
  std::vector<std::int64_t> documents{};  ///< row of the text each crop was taken from (random crops of documents)
  std::vector<std::int64_t> offsets{};    ///< first token of each crop in its stream or document (random crops)
  std::string bos;                        ///< "once" at the front of the stream or of each document, or "none"
  std::string text, text_digest, tokenizer_digest;

  /// SHA-256 of everything above.
  [[nodiscard]] std::string digest() const {
    Sha256 digest;
    digest.field("scheme", name_of(scheme))
        .field("seed", seed)
        .field("bos", bos)
        .field("text", text_digest)
        .field("tokenizer", tokenizer_digest);
    for (const auto start : rows.starts) digest.field("start", start);
    digest.field("ids", std::as_bytes(std::span(rows.ids)));
    return digest.hex();
  }
};

namespace detail {

inline void crop_stream(const Text& text, const Tokenizer& tokenizer, Special special, std::int64_t count, std::int64_t length,
                        PythonRandom& random, TokenSample& sample) {
  const std::vector<std::int32_t> ids = token_stream(text, tokenizer, special);
  sample.bos = bos_policy(ids, tokenizer, text.name);
  const auto size = static_cast<std::int64_t>(ids.size());
  if (size <= length) fail("text '", text.name, "' has ", size, " tokens; crops of ", length, " need at least ", length + 1);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t start = random.randint(0, size - length - 1);
    sample.offsets.push_back(start);
    sample.rows.add(std::span(ids).subspan(static_cast<std::size_t>(start), static_cast<std::size_t>(length)));
  }
}

inline void crop_documents(const Text& text, const Tokenizer& tokenizer, Special special, std::int64_t count, std::int64_t length,
                           PythonRandom& random, TokenSample& sample) {
  std::map<std::int64_t, std::int64_t> lengths;  // of documents met: too short ones are not tokenized twice
  const auto n = static_cast<std::int64_t>(text.rows.size());
  for (std::int64_t i = 0, longest = 0; i < count;) {
    const std::int64_t document = random.randint(0, n - 1);
    if (const auto met = lengths.find(document); met != lengths.end() && met->second <= length) continue;
    const std::vector<std::int32_t> ids = tokenizer.encode(text.rows[static_cast<std::size_t>(document)], special);
    const auto size = static_cast<std::int64_t>(ids.size());
    lengths[document] = size;
    longest = std::max(longest, size);
    if (size <= length) {
      if (longest <= length && static_cast<std::int64_t>(lengths.size()) == n)
        fail("text '", text.name, "': the longest of its ", n, " documents has ", longest, " tokens; crops of ", length, " need at least ",
             length + 1);
      continue;
    }
    sample.bos = bos_policy(ids, tokenizer, text.name);
    const std::int64_t start = random.randint(0, size - length - 1);
    sample.documents.push_back(document);
    sample.offsets.push_back(start);
    sample.rows.add(std::span(ids).subspan(static_cast<std::size_t>(start), static_cast<std::size_t>(length)));
    ++i;
  }
}

inline void string_documents(const Text& text, const Tokenizer& tokenizer, Special special, std::int64_t count, std::int64_t length,
                             TokenSample& sample) {
  const auto step = static_cast<std::size_t>(length);
  const std::vector<std::string> whole = text.documents ? std::vector<std::string>() : std::vector<std::string>{text.joined()};
  const std::vector<std::string>& documents = text.documents ? text.rows : whole;
  for (std::size_t begin = 0; begin < documents.size() && sample.rows.count() < count; begin += 1000) {
    std::vector<std::int32_t> ids;
    for (std::size_t i = begin; i < std::min(begin + 1000, documents.size()); ++i) {
      const std::vector<std::int32_t> document = tokenizer.encode(documents[i], special);
      if (i == 0) sample.bos = bos_policy(document, tokenizer, text.name);
      ids.insert(ids.end(), document.begin(), document.end());
    }
    for (std::size_t at = 0; at + step <= ids.size() && sample.rows.count() < count; at += step)
      sample.rows.add(std::span(ids).subspan(at, step));
  }
}

}  // namespace detail

/// N = count rows of L = length ids. Fails when the text is too short, with the counts; where a scheme takes rows in order, all N must be
/// there.
[[nodiscard]] inline TokenSample sample_tokens(const Text& text, const Tokenizer& tokenizer, Sampling scheme, std::int64_t count,
                                               std::int64_t length, std::uint64_t seed, Special special = Special::default_) {
  if (count < 1 || length < 1) refuse("a sample of ", count, " crops of ", length, " tokens");
  TokenSample sample;
  sample.scheme = scheme;
  sample.bos = "none";
  sample.text = text.name;
  sample.text_digest = text.digest;
  sample.tokenizer_digest = tokenizer.digest();
  if (scheme == Sampling::gptq) {
    sample.seed = seed;
    PythonRandom random(seed);
    (text.documents ? detail::crop_documents : detail::crop_stream)(text, tokenizer, special, count, length, random, sample);
  } else if (scheme == Sampling::flexround) {
    detail::string_documents(text, tokenizer, special, count, length, sample);
  } else {
    Text joined = text;
    if (text.documents) joined.separator = "\n\n";
    for_each_shard_piece(joined, tokenizer, special, length, 8, 1000, [&](std::span<const std::int32_t> piece) {
      if (sample.rows.count() == 0) sample.bos = bos_policy(piece, tokenizer, text.name);
      sample.rows.add(piece);
      return sample.rows.count() < count;
    });
  }
  if (sample.rows.count() < count)
    fail("text '", text.name, "' gives ", sample.rows.count(), " samples of ", length, " tokens by the scheme ", name_of(scheme), ", not ",
         count);
  return sample;
}

}  // namespace ptq::io
