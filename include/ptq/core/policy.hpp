// What the policies of every axis share: a tag, a described aggregate of hyperparameters, learnable state by name.
#pragma once

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
