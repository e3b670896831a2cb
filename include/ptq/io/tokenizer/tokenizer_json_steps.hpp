// The steps named in a tokenizer.json: normalizers, pre-tokenizers, decoders. What is not supported is refused by name.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/json.hpp>
#include <ptq/io/tokenizer/decode.hpp>
#include <ptq/io/tokenizer/normalize.hpp>
#include <ptq/io/tokenizer/pre_tokenize.hpp>

namespace ptq::io::tokenizer_json {

/// A member that may be absent or null.
template <class T>
[[nodiscard]] T value_or(const json& object, const char* key, T fallback) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? fallback : found->template get<T>();
}

/// The elements of a list member.
[[nodiscard]] inline const json& list(const json& object, const char* key, const std::string& origin) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array()) fail(origin, ": \"", key, "\" is not a list");
  return *found;
}

/// Calls literal(text) or pattern(Regex) for {"String": …} or {"Regex": …}.
template <class Literal, class Pattern>
auto pattern_of(const json& step, const std::string& origin, Literal&& literal, Pattern&& pattern) {
  const json& wanted = step.at("pattern");
  if (wanted.is_object() && wanted.contains("String")) return literal(wanted["String"].get<std::string>());
  if (wanted.is_object() && wanted.contains("Regex")) return pattern(Regex(wanted["Regex"].get<std::string>(), origin));
  fail(origin, ": a pattern is neither a String nor a Regex");
}

[[nodiscard]] inline Normalizer normalizer(const json& step, const std::string& origin) {
  if (step.is_null()) return nullptr;
  const auto type = step.at("type").get<std::string>();
  if (type == "Sequence") {
    std::vector<Normalizer> steps;
    for (const json& inner : list(step, "normalizers", origin)) steps.push_back(normalizer(inner, origin));
    return normalize::sequence(std::move(steps));
  }
  if (type == "Prepend") return normalize::prepend(step.at("prepend").get<std::string>());
  if (type == "ByteLevel") return normalize::byte_level();
  if (type == "Replace") {
    const auto content = step.at("content").get<std::string>();
    return pattern_of(
        step, origin, [&](std::string text) { return normalize::replace(std::move(text), content); },
        [&](Regex regex) { return normalize::replace(std::move(regex), content); });
  }
  if (Normalizer form = normalize::unicode(type)) return form;
  fail(origin, ": normalizer ", type, " is not supported (supported: Sequence, Prepend, Replace, ByteLevel, NFC, NFD, NFKC, NFKD)");
}

[[nodiscard]] inline SplitBehavior split_behavior(const std::string& name, const std::string& origin) {
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  fail(origin, ": split behaviour \"", name, "\" is unknown");
}

/// "always", "first" or "never"; older files say add_prefix_space instead.
[[nodiscard]] inline pre_tokenize::PrependScheme prepend_scheme(const json& step, const std::string& origin) {
  const auto name = value_or<std::string>(step, "prepend_scheme", value_or(step, "add_prefix_space", true) ? "always" : "never");
  if (name == "always") return pre_tokenize::PrependScheme::always;
  if (name == "first") return pre_tokenize::PrependScheme::first;
  if (name == "never") return pre_tokenize::PrependScheme::never;
  fail(origin, ": prepend_scheme \"", name, "\" is unknown");
}

[[nodiscard]] inline PreTokenizer pre_tokenizer(const json& step, const std::string& origin) {
  namespace pre = pre_tokenize;
  if (step.is_null()) return pre::sequence({});
  const auto type = step.at("type").get<std::string>();
  if (type == "Sequence") {
    std::vector<PreTokenizer> steps;
    for (const json& inner : list(step, "pretokenizers", origin)) steps.push_back(pre_tokenizer(inner, origin));
    return pre::sequence(std::move(steps));
  }
  if (type == "ByteLevel") return pre::byte_level(value_or(step, "add_prefix_space", true), value_or(step, "use_regex", true));
  if (type == "Split") {
    const auto behavior = split_behavior(step.at("behavior").get<std::string>(), origin);
    pre::Cutter cutter = pattern_of(
        step, origin, [](std::string text) { return pre::cut(std::move(text)); }, [](Regex regex) { return pre::cut(std::move(regex)); });
    return pre::split(std::move(cutter), behavior, value_or(step, "invert", false));
  }
  if (type == "Metaspace")
    return pre::metaspace(value_or<std::string>(step, "replacement", "\xE2\x96\x81"), prepend_scheme(step, origin),
                          value_or(step, "split", true));
  if (type == "Digits") return pre::digits(value_or(step, "individual_digits", false));
  if (type == "Whitespace") return pre::split(pre::cut(Regex(R"(\w+|[^\w\s]+)")), SplitBehavior::removed, true);
  if (type == "WhitespaceSplit") return pre::split(pre::cut(Regex(R"(\s)")), SplitBehavior::removed, false);
  if (type == "Punctuation") {
    const auto behavior = split_behavior(value_or<std::string>(step, "behavior", "Isolated"), origin);
    return pre::split(pre::cut(Regex(R"([\p{P}\x{21}-\x{2F}\x{3A}-\x{40}\x{5B}-\x{60}\x{7B}-\x{7E}])")), behavior, false);
  }
  fail(origin, ": pre-tokenizer ", type,
       " is not supported (supported: Sequence, ByteLevel, Split, Metaspace, Digits, Whitespace, WhitespaceSplit, Punctuation)");
}

[[nodiscard]] inline Decoder decoder(const json& step, const std::string& origin) {
  if (step.is_null()) return nullptr;
  const auto type = step.at("type").get<std::string>();
  if (type == "Sequence") {
    std::vector<Decoder> steps;
    for (const json& inner : list(step, "decoders", origin)) steps.push_back(decoder(inner, origin));
    return decode::sequence(std::move(steps));
  }
  if (type == "ByteLevel") return decode::byte_level();
  if (type == "ByteFallback") return decode::byte_fallback();
  if (type == "Fuse") return decode::fuse();
  if (type == "Strip")
    return decode::strip(step.at("content").get<std::string>(), step.at("start").get<std::size_t>(), step.at("stop").get<std::size_t>());
  if (type == "Replace") return decode::each(normalizer(step, origin));
  if (type == "Metaspace")
    return decode::metaspace(value_or<std::string>(step, "replacement", "\xE2\x96\x81"),
                             prepend_scheme(step, origin) != pre_tokenize::PrependScheme::never);
  fail(origin, ": decoder ", type, " is not supported (supported: Sequence, ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace)");
}

}  // namespace ptq::io::tokenizer_json
