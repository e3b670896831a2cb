// What the policies of every axis share: a tag, a described aggregate of hyperparameters, learnable state by name.
#pragma once

#include <array>
#include <concepts>
#include <string>
#include <string_view>
#include <vector>

#include <ptq/core/describe.hpp>
#include <ptq/core/scheme.hpp>
#include <ptq/core/tensor.hpp>

namespace ptq {

/// Models: every member of every axis. Minimal definition: `tag`, fields listed with BOOST_HANA_ADAPT_STRUCT (or `each`).
/// Laws: a default-constructed value is usable; describe(p) reads back as the same value.
template <class P>
concept Policy = std::copyable<P> && Described<P> && std::default_initializable<P> && requires {
  { P::tag } -> std::convertible_to<std::string_view>;
};

/// A tag without a policy: Tagged<'a', 'u', 'g'>.
template <char... Letters>
struct Tagged {
  static constexpr std::array<char, sizeof...(Letters)> letters{Letters...};
  static constexpr std::string_view tag{letters.data(), letters.size()};
};

namespace detail {

template <char Between, class... Ps>
struct JoinedTags {
  static constexpr size_t size = (Ps::tag.size() + ...) + sizeof...(Ps) - 1;
  std::array<char, size> letters{};

  constexpr JoinedTags() {
    size_t at = 0;
    const auto put = [&](std::string_view tag) {
      if (at > 0) letters[at++] = Between;
      for (const char c : tag) letters[at++] = c;
    };
    (put(Ps::tag), ...);
  }
  [[nodiscard]] constexpr std::string_view text() const { return {letters.data(), size}; }
};

}  // namespace detail

/// The tag of a combinator: those of its parts, with a letter between. Its text() is a view of this object.
template <char Between, class... Ps>
inline constexpr detail::JoinedTags<Between, Ps...> joined_tags{};

/// Whether no two policies share a tag.
template <class... Ps>
inline constexpr bool distinct_tags = [] {
  const std::array<std::string_view, sizeof...(Ps)> tags{Ps::tag...};
  for (size_t i = 0; i < tags.size(); ++i)
    for (size_t j = i + 1; j < tags.size(); ++j)
      if (tags[i] == tags[j]) return false;
  return true;
}();

/// Parameters that a policy wants minimised, with its own learning rate.
struct Learnable {
  std::vector<std::string> names;  ///< keys of the policy's state
  double rate = 0;
};

/// Reasons why a recipe cannot run with the given numbers, or changes nothing; empty text: fine.
using Reason = std::string;

/// The two float-valued streams that a policy may want to look at.
enum class Stream { reference, quantized };
template <>
struct EnumNames<Stream> {
  static constexpr std::array<std::string_view, 2> names{"reference", "quantized"};
};

}  // namespace ptq
