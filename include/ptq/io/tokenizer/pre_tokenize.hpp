// Pre-tokenizers of tokenizer.json: a text is cut into words, within which byte pairs merge. Pieces flow through the steps one by one,
// so that a long text needs no list of words.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/tokenizer/byte_alphabet.hpp>
#include <ptq/io/tokenizer/regex.hpp>
#include <ptq/io/tokenizer/unicode.hpp>
#include <ptq/io/tokenizer/utf8.hpp>

namespace ptq::io {

/// Part of a text on its way to the model. `first` is true where it begins the text as the user gave it.
struct Piece {
  std::string_view text;
  bool first;
};

using PieceSink = std::function<void(Piece)>;
using PreTokenizer = std::function<void(Piece, const PieceSink&)>;

/// What becomes of the matches of a Split.
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

namespace pre_tokenize {

/// A stretch of a text, and whether the pattern matched it.
struct Stretch {
  std::size_t begin, end;
  bool match;
};

/// Cuts a text into matches and what lies between; the stretches cover it.
using Cutter = std::function<std::vector<Stretch>(std::string_view)>;

namespace detail {

/// Adds a match, and the gap before it.
inline void add_match(std::vector<Stretch>& stretches, std::size_t& end, std::size_t from, std::size_t to) {
  if (from > end) stretches.push_back({end, from, false});
  stretches.push_back({from, to, true});
  end = to;
}

}  // namespace detail

[[nodiscard]] inline Cutter cut(Regex pattern) {
  return [pattern = std::move(pattern)](std::string_view text) {
    std::vector<Stretch> stretches;
    std::size_t end = 0;
    pattern.for_each_match(text, [&](std::size_t from, std::size_t to) { detail::add_match(stretches, end, from, to); });
    if (end < text.size()) stretches.push_back({end, text.size(), false});
    return stretches;
  };
}

[[nodiscard]] inline Cutter cut(std::string literal) {
  return [literal = std::move(literal)](std::string_view text) {
    std::vector<Stretch> stretches;
    std::size_t end = 0;
    for (std::size_t at = literal.empty() ? std::string_view::npos : text.find(literal); at != std::string_view::npos;
         at = text.find(literal, end))
      detail::add_match(stretches, end, at, at + literal.size());
    if (end < text.size()) stretches.push_back({end, text.size(), false});
    return stretches;
  };
}

/// Every character for which `is` holds is a match of its own.
[[nodiscard]] inline Cutter cut(std::function<bool(char32_t)> is) {
  return [is = std::move(is)](std::string_view text) {
    std::vector<Stretch> stretches;
    std::size_t end = 0;
    for (std::size_t at = 0; at < text.size();) {
      const CodePoint point = code_point(text, at);
      if (is(point.value)) detail::add_match(stretches, end, at, at + point.length);
      at += point.length;
    }
    if (end < text.size()) stretches.push_back({end, text.size(), false});
    return stretches;
  };
}

/// Applies the behaviour; `invert` exchanges matches and gaps.
[[nodiscard]] inline PreTokenizer split(Cutter cutter, SplitBehavior behavior, bool invert) {
  return [cutter = std::move(cutter), behavior, invert](Piece piece, const PieceSink& sink) {
    std::vector<Stretch> parts = cutter(piece.text);
    if (invert)
      for (Stretch& part : parts) part.match = !part.match;
    if (behavior == SplitBehavior::merged_with_next) {  // a match joins what follows it
      for (std::size_t i = parts.size(); i-- > 1;)
        if (parts[i - 1].match && !parts[i].match) parts[i - 1].end = parts[i].end, parts[i].end = parts[i].begin;
    } else if (behavior == SplitBehavior::merged_with_previous) {
      for (std::size_t i = 1; i < parts.size(); ++i)
        if (parts[i].match && !parts[i - 1].match) parts[i].begin = parts[i - 1].begin, parts[i - 1].end = parts[i - 1].begin;
    } else if (behavior == SplitBehavior::contiguous) {
      for (std::size_t i = 1; i < parts.size(); ++i)
        if (parts[i].match == parts[i - 1].match) parts[i].begin = parts[i - 1].begin, parts[i - 1].end = parts[i - 1].begin;
    }
    for (const Stretch& part : parts) {
      if (part.begin == part.end || (part.match && behavior == SplitBehavior::removed)) continue;
      sink({piece.text.substr(part.begin, part.end - part.begin), piece.first && part.begin == 0});
    }
  };
}

[[nodiscard]] inline PreTokenizer sequence(std::vector<PreTokenizer> steps) {
  if (steps.empty()) return [](Piece piece, const PieceSink& sink) { sink(piece); };
  PreTokenizer chain = std::move(steps.back());
  for (steps.pop_back(); !steps.empty(); steps.pop_back())
    chain = [step = std::move(steps.back()), rest = std::move(chain)](Piece piece, const PieceSink& sink) {
      step(piece, [&](Piece part) { rest(part, sink); });
    };
  return chain;
}

/// Cuts by GPT-2's pattern where `use_regex`, then writes bytes as characters.
[[nodiscard]] inline PreTokenizer byte_level(bool add_prefix_space, bool use_regex) {
  static const Regex gpt2(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)");
  const PreTokenizer words = use_regex ? split(cut(gpt2), SplitBehavior::isolated, false) : sequence({});
  return [add_prefix_space, words](Piece piece, const PieceSink& sink) {
    std::string spaced;
    if (add_prefix_space && !piece.text.starts_with(' ')) piece.text = spaced = " " + std::string(piece.text);
    words(piece, [&](Piece word) {
      const std::string characters = bytes_to_characters(word.text);
      sink({characters, word.first});
    });
  };
}

enum class PrependScheme { never, first, always };

/// SentencePiece's blank: blanks become `replacement`, one is put in front, words begin at it where `split_words`.
[[nodiscard]] inline PreTokenizer metaspace(std::string replacement, PrependScheme scheme, bool split_words) {
  const PreTokenizer words = split_words ? split(cut(replacement), SplitBehavior::merged_with_next, false) : sequence({});
  return [replacement, scheme, words](Piece piece, const PieceSink& sink) {
    std::string text;
    text.reserve(piece.text.size() + 16);
    for (const char c : piece.text) c == ' ' ? text += replacement : text += c;
    const bool prepend = scheme == PrependScheme::always || (scheme == PrependScheme::first && piece.first);
    if (prepend && !text.starts_with(replacement)) text.insert(0, replacement);
    words({text, piece.first}, sink);
  };
}

/// Numbers (general categories Nd, Nl, No) apart from other text, and from each other where `individual`.
[[nodiscard]] inline PreTokenizer digits(bool individual) {
  return split(cut(std::function<bool(char32_t)>(is_number)), individual ? SplitBehavior::isolated : SplitBehavior::contiguous, false);
}

}  // namespace pre_tokenize

}  // namespace ptq::io
