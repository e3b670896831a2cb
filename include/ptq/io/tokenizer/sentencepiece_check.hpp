// Checks of a serialized SentencePiece model that the library itself does not make: the map of characters in its normalizer is a
// double-array trie (Aoe 1989; darts-clone) which the library walks without looking at its end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>

namespace ptq::io {

namespace detail {

/// Calls field(number, bytes) for the length-prefixed fields of a protocol buffer message, and passes over the others.
template <class Field>
void for_each_proto_field(std::string_view message, const std::string& origin, Field&& field) {
  const auto stop = [&] { fail(origin, ": not a SentencePiece model (a protocol buffer that ends too early)"); };
  std::size_t at = 0;
  const auto varint = [&] {
    std::uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
      if (at >= message.size() || shift > 63) stop();
      const auto byte = static_cast<unsigned char>(message[at++]);
      value |= std::uint64_t{byte & 0x7FU} << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.size()) {
    const std::uint64_t tag = varint(), wire = tag & 7U;
    const std::uint64_t size = wire == 0 ? 0 : wire == 1 ? 8 : wire == 5 ? 4 : wire == 2 ? varint() : message.size() + 1;
    if (wire == 0) varint();
    if (size > message.size() - at) stop();
    if (wire == 2) field(tag >> 3U, message.substr(at, static_cast<std::size_t>(size)));
    at += static_cast<std::size_t>(size);
  }
}

/// Fails unless every walk from the root of the trie stays inside, and every value points at a string that ends inside.
inline void check_character_map(std::string_view map, const std::string& origin) {
  const auto stop = [&](const char* what) { fail(origin, ": the character map of its normalizer is damaged (", what, ")"); };
  const auto word = [&](std::size_t i) {
    std::uint32_t value = 0;
    for (std::size_t b = 0; b < 4; ++b) value |= std::uint32_t{static_cast<unsigned char>(map[4 * i + b])} << (8 * b);
    return value;
  };
  if (map.empty()) return;
  if (map.size() < 8 || word(0) > map.size() - 4 || word(0) % 4 != 0 || word(0) == 0) stop("its size");
  const std::size_t units = word(0) / 4, strings = map.size() - 4 - word(0);
  if (strings == 0 || map.back() != '\0') stop("its strings do not end");
  const auto unit = [&](std::size_t i) { return word(i + 1); };
  const auto children = [&](std::size_t node) {
    return node ^ static_cast<std::size_t>((unit(node) >> 10U) << ((unit(node) & (1U << 9U)) >> 6U));
  };
  std::vector<char> met(units, 0);
  std::vector<std::size_t> open{0};
  met[0] = 1;
  while (!open.empty()) {
    const std::size_t node = open.back(), base = children(node);
    open.pop_back();
    if ((base | 0xFFU) >= units) stop("a branch leaves it");
    if (node != 0 && (unit(node) >> 8U & 1U) != 0 && (unit(base) & 0x7FFFFFFFU) >= strings) stop("a value leaves it");
    for (std::size_t c = 0; c < 256; ++c) {
      const std::size_t child = base ^ c;
      if ((unit(child) & 0x800000FFU) != c || met[child] != 0) continue;
      met[child] = 1;
      open.push_back(child);
    }
  }
}

}  // namespace detail

/// Fails on a damaged ModelProto, with `origin` as its name.
inline void check_sentencepiece_proto(std::string_view proto, const std::string& origin) {
  detail::for_each_proto_field(proto, origin, [&](std::uint64_t field, std::string_view message) {
    if (field != 3 && field != 5) return;  // normalizer_spec, denormalizer_spec
    detail::for_each_proto_field(message, origin, [&](std::uint64_t inner, std::string_view map) {
      if (inner == 2) detail::check_character_map(map, origin);  // precompiled_charsmap
    });
  });
}

}  // namespace ptq::io
