// Byte pair encoding (Sennrich, Haddow, Birch 2016): of all neighbouring pairs, the one learned first is merged first.
// Ids agree with the `BPE` model of Hugging Face tokenizers, unknown characters and byte fallback included.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <queue>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/tokenizer/utf8.hpp>
#include <ptq/io/tokenizer/vocabulary.hpp>

namespace ptq::io {

/// What surrounds the merges. Prefix and suffix mark inner and last characters of a word in some vocabularies.
struct BpeOptions {
  std::optional<std::int32_t> unknown{};  ///< id of a character that is not in the vocabulary; without one it is left out
  bool fuse_unknown = false;              ///< neighbouring unknown characters become one token
  bool byte_fallback = false;             ///< an unknown character becomes its bytes, <0x00> to <0xFF>
  bool ignore_merges = false;             ///< a word that is a token as a whole is that token
  std::string continuing_subword_prefix{};
  std::string end_of_word_suffix{};
};

class Bpe {
 public:
  using Merge = std::pair<std::string, std::string>;

  /// Fails when a merge joins or makes a token that the vocabulary lacks; `origin` names the file.
  Bpe(Vocabulary vocabulary, const std::vector<Merge>& merges, BpeOptions options, std::string_view origin)
      : vocabulary_(std::move(vocabulary)), options_(std::move(options)) {
    if (merges.size() > INT32_MAX) fail(origin, ": ", merges.size(), " merges");
    const std::size_t prefix = options_.continuing_subword_prefix.size();
    const auto id = [&](const std::string& token, std::size_t rank) {
      const auto found = vocabulary_.id(token);
      if (!found) fail(origin, ": merge ", rank, " needs the token \"", token, "\", which is not in the vocabulary");
      return *found;
    };
    for (std::size_t rank = 0; rank < merges.size(); ++rank) {
      const auto& [left, right] = merges[rank];
      if (right.size() < prefix) fail(origin, ": merge ", rank, " (\"", left, "\" \"", right, "\") lacks the subword prefix");
      const std::int32_t joined = id(left + right.substr(prefix), rank);
      merges_[pair_key(id(left, rank), id(right, rank))] = {static_cast<std::int32_t>(rank), joined};
    }
    for (std::size_t b = 0; b < bytes_.size(); ++b) {
      constexpr std::string_view digit = "0123456789ABCDEF";
      bytes_[b] = vocabulary_.id(std::string("<0x") + digit[b >> 4U] + digit[b & 15U] + '>').value_or(-1);
    }
    find_boundary(merges);
  }

  [[nodiscard]] const Vocabulary& vocabulary() const { return vocabulary_; }

  /// Encodes words one after another; owns the scratch memory and the ids of words met before, so one object serves one thread.
  class Encoder {
   public:
    explicit Encoder(const Bpe& model) : model_(model) {}

    /// Appends the ids of one pre-tokenized word, however long.
    void operator()(std::string_view word, std::vector<std::int32_t>& ids) {
      if (!model_.boundary_) return whole(word, ids);
      std::size_t begin = 0;  // no merge reaches across "x▁": parts are independent, and short enough to be remembered
      for (std::size_t at = word.find(metaspace); at != std::string_view::npos; at = word.find(metaspace, at + metaspace.size())) {
        if (at == 0 || word.substr(0, at).ends_with(metaspace)) continue;
        whole(word.substr(begin, at - begin), ids);
        begin = at;
      }
      whole(word.substr(begin), ids);
    }

   private:
    struct Symbol {
      std::int32_t id, previous, next;
      bool alive;
    };
    struct Candidate {
      std::int32_t rank, position, id;
      bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : position > other.position; }
    };

    void whole(std::string_view word, std::vector<std::int32_t>& ids) {
      if (word.empty()) return;
      const bool remember = word.size() <= 256;
      if (remember) {
        if (const auto known = words_.find(word); known != words_.end()) {
          ids.insert(ids.end(), known->second.begin(), known->second.end());
          return;
        }
      }
      const std::size_t first = ids.size();
      const auto token = model_.options_.ignore_merges ? model_.vocabulary_.id(word) : std::nullopt;
      if (token) {
        ids.push_back(*token);
      } else {
        start(word);
        merge();
        for (const Symbol& symbol : symbols_)
          if (symbol.alive) ids.push_back(symbol.id);
      }
      if (remember && words_.size() < 1U << 20U)
        words_.emplace(std::string(word), std::vector<std::int32_t>(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end()));
    }

    /// One symbol a character of the word.
    void start(std::string_view word) {
      symbols_.clear();
      const BpeOptions& options = model_.options_;
      std::int32_t pending = -1;  // an unknown token that further unknown characters may join
      const auto add = [&](std::int32_t id) { symbols_.push_back({id, -1, -1, true}); };
      std::string marked;
      for (std::size_t at = 0; at < word.size();) {
        const std::size_t length = character_length(word, at);
        std::string_view character = word.substr(at, length);
        const bool first = at == 0, last = at + length >= word.size();
        at += length;
        if ((!first && !options.continuing_subword_prefix.empty()) || (last && !options.end_of_word_suffix.empty())) {
          marked = first ? "" : options.continuing_subword_prefix;
          marked += character;
          if (last) marked += options.end_of_word_suffix;
          character = marked;
        }
        if (const auto id = model_.vocabulary_.id(character)) {
          if (pending >= 0) add(pending);
          pending = -1;
          add(*id);
        } else if (options.byte_fallback && std::all_of(character.begin(), character.end(), [&](char c) { return model_.byte(c) >= 0; })) {
          for (const char c : character) add(model_.byte(c));
        } else if (options.unknown) {
          if (pending >= 0 && !options.fuse_unknown) add(pending);
          pending = *options.unknown;
        }
      }
      if (pending >= 0) add(pending);
    }

    /// Merges until no pair is left, lowest rank first, leftmost first among equals: O(n log n) by a heap of candidates, stale ones
    /// skipped.
    void merge() {
      if (symbols_.size() > INT32_MAX) fail("a text of ", symbols_.size(), " characters is too long for one word");
      const auto count = static_cast<std::int32_t>(symbols_.size());
      candidates_.clear();
      for (std::int32_t i = 0; i < count; ++i) {
        at(i).previous = i - 1;
        at(i).next = i + 1 < count ? i + 1 : -1;
        if (i > 0) propose(i - 1, false);
      }
      std::make_heap(candidates_.begin(), candidates_.end(), std::greater<>{});
      while (!candidates_.empty()) {
        std::pop_heap(candidates_.begin(), candidates_.end(), std::greater<>{});
        const Candidate top = candidates_.back();
        candidates_.pop_back();
        Symbol& left = at(top.position);
        if (!left.alive || left.next < 0) continue;
        Symbol& right = at(left.next);
        const auto current = model_.merges_.find(pair_key(left.id, right.id));
        if (current == model_.merges_.end() || current->second.id != top.id) continue;
        left.id = top.id;
        right.alive = false;
        left.next = right.next;
        if (left.next >= 0) at(left.next).previous = top.position;
        if (left.previous >= 0) propose(left.previous, true);
        if (left.next >= 0) propose(top.position, true);
      }
    }

    void propose(std::int32_t position, bool heap) {
      const auto merge = model_.merges_.find(pair_key(at(position).id, at(at(position).next).id));
      if (merge == model_.merges_.end()) return;
      candidates_.push_back({merge->second.rank, position, merge->second.id});
      if (heap) std::push_heap(candidates_.begin(), candidates_.end(), std::greater<>{});
    }

    Symbol& at(std::int32_t i) { return symbols_[static_cast<std::size_t>(i)]; }

    const Bpe& model_;
    StringMap<std::vector<std::int32_t>> words_;
    std::vector<Symbol> symbols_;
    std::vector<Candidate> candidates_;
  };

 private:
  struct Joined {
    std::int32_t rank, id;
  };
  static constexpr std::string_view metaspace = "\xE2\x96\x81";

  [[nodiscard]] static std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
    return (std::uint64_t{static_cast<std::uint32_t>(left)} << 32U) | static_cast<std::uint32_t>(right);
  }
  [[nodiscard]] std::int32_t byte(char c) const { return bytes_[static_cast<unsigned char>(c)]; }

  /// Whether every merge keeps to one side of each place where "▁" follows another character.
  void find_boundary(const std::vector<Merge>& merges) {
    boundary_ = !options_.ignore_merges && options_.continuing_subword_prefix.empty() && options_.end_of_word_suffix.empty() &&
                vocabulary_.id(metaspace).has_value() && std::none_of(merges.begin(), merges.end(), [](const Merge& merge) {
                  return merge.second.starts_with(metaspace) && !merge.first.ends_with(metaspace);
                });
  }

  Vocabulary vocabulary_;
  BpeOptions options_;
  std::unordered_map<std::uint64_t, Joined> merges_;
  std::array<std::int32_t, 256> bytes_{};
  bool boundary_ = false;
};

}  // namespace ptq::io
