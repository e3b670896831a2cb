// Reflection: the fields of a policy, listed once with BOOST_HANA_ADAPT_STRUCT, yield labels, attributes, command-line options and
// equality.
#pragma once

#include <boost/hana.hpp>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/text.hpp>

namespace ptq {

/// One hyperparameter of a policy value. `set` parses a text strictly and throws an Error that names `path`.
struct Field {
  std::string path;                             ///< "solver.damp", "loss.nlc.weight"
  std::string text;                             ///< the current value; reads back as the same value
  std::string expects;                          ///< "number", "true or false", "none or number", "natural|descending|…"
  std::function<void(const std::string&)> set;  ///< writes into the described object, which must outlive the field
};

/// Names of an enumeration, for fields of that type: specialise beside the enumeration with a static array `names` in the order 0, 1, ….
template <class E>
struct EnumNames;

namespace detail {

template <class T>
constexpr bool is_optional = false;
template <class T>
constexpr bool is_optional<std::optional<T>> = true;

template <class T>
concept NamedEnum = std::is_enum_v<T> && requires {
  EnumNames<T>::names.size();
};

/// Types with their own text form: static parse(text, what) and text().
template <class T>
concept Textual = requires(const T value, const std::string& s) {
  { T::parse(s, s) } -> std::same_as<T>;
  { value.text() } -> std::convertible_to<std::string>;
};

template <class T>
std::string expects() {
  if constexpr (is_optional<T>) {
    return "none or " + expects<typename T::value_type>();
  } else if constexpr (std::is_same_v<T, bool>) {
    return "true or false";
  } else if constexpr (NamedEnum<T>) {
    std::string all;
    for (const std::string_view name : EnumNames<T>::names) all += (all.empty() ? "" : "|") + std::string(name);
    return all;
  } else if constexpr (std::is_integral_v<T>) {
    return "whole number";
  } else if constexpr (std::is_floating_point_v<T>) {
    return "number";
  } else {
    return "text";
  }
}

template <class T>
std::string to_text(const T& value) {
  if constexpr (is_optional<T>) {
    return value ? to_text(*value) : "none";
  } else if constexpr (std::is_same_v<T, bool>) {
    return value ? "true" : "false";
  } else if constexpr (NamedEnum<T>) {
    return std::string(EnumNames<T>::names[static_cast<size_t>(value)]);
  } else if constexpr (std::is_integral_v<T>) {
    return std::to_string(value);
  } else if constexpr (std::is_floating_point_v<T>) {
    return number_text(static_cast<double>(value));
  } else if constexpr (Textual<T>) {
    return value.text();
  } else {
    return std::string(value);
  }
}

template <class T>
T from_text(const std::string& text, const std::string& what) {
  if constexpr (is_optional<T>) {
    if (text == "none") return std::nullopt;
    return from_text<typename T::value_type>(text, what);
  } else if constexpr (std::is_same_v<T, bool>) {
    return parse_bool(text, what);
  } else if constexpr (NamedEnum<T>) {
    const auto& names = EnumNames<T>::names;
    for (size_t i = 0; i < names.size(); ++i)
      if (names[i] == text) return static_cast<T>(i);
    refuse(what, ": '", text, "' is none of ", expects<T>());
  } else if constexpr (std::is_integral_v<T>) {
    return parse_integer<T>(text, what);
  } else if constexpr (std::is_floating_point_v<T>) {
    return static_cast<T>(parse_number(text, what));
  } else if constexpr (Textual<T>) {
    return T::parse(text, what);
  } else {
    return T(text);
  }
}

}  // namespace detail

/// A policy, or a part of one, that can be described: a struct adapted with BOOST_HANA_ADAPT_STRUCT, or a combinator that
/// offers `each(visit)` and calls visit(name, part) for each of its parts.
template <class P>
concept Described = boost::hana::Struct<std::remove_const_t<P>>::value || requires(P& p) {
  p.each([](const std::string&, auto&) {});
};

namespace detail {

template <class P, class Visit>
void visit_members(P& policy, const Visit& visit) {
  namespace hana = boost::hana;
  if constexpr (requires { policy.each(visit); }) {
    policy.each(visit);
  } else {
    hana::for_each(hana::keys(policy), [&](auto key) { visit(std::string(hana::to<const char*>(key)), hana::at_key(policy, key)); });
  }
}

template <class P>
void collect(P& policy, const std::string& prefix, std::vector<Field>& fields) {
  visit_members(policy, [&](const std::string& name, auto& member) {
    using Member = std::remove_cvref_t<decltype(member)>;
    const std::string path = prefix.empty() ? name : prefix + "." + name;
    if constexpr (Described<Member>) {
      collect(member, path, fields);
    } else {
      fields.push_back({path, to_text(member), expects<Member>(), [&member, path](const std::string& text) {
                          if constexpr (!std::is_const_v<std::remove_reference_t<decltype(member)>>) member = from_text<Member>(text, path);
                        }});
    }
  });
}

}  // namespace detail

/// Every field of `policy`, nested parts included, with paths below `prefix`. The fields refer to `policy`.
template <Described P>
[[nodiscard]] std::vector<Field> describe(P& policy, const std::string& prefix = "") {
  std::vector<Field> fields;
  detail::collect(policy, prefix, fields);
  return fields;
}

/// "gptq(damp=0.01, order=natural)": the tag and the fields that differ from a default-constructed value.
template <Described P>
[[nodiscard]] std::string label(const P& policy) {
  const P standard{};
  const auto now = describe(policy), usual = describe(standard);
  std::string inside;
  for (size_t i = 0; i < now.size(); ++i)
    if (i >= usual.size() || now[i].text != usual[i].text) inside += (inside.empty() ? "" : ", ") + now[i].path + "=" + now[i].text;
  return std::string(P::tag) + (inside.empty() ? "" : "(" + inside + ")");
}

}  // namespace ptq
