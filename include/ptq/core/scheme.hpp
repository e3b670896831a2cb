// Number formats as values: bits, symmetry, granularity, and by which published convention a range becomes a grid.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <ptq/core/text.hpp>
#include <ptq/kernels/grid.hpp>

namespace ptq {

/// What shares one scale: the whole tensor, a row (output channel), `group` neighbouring columns of a row, one token of an activation.
enum class Granularity { tensor, channel, group, token };

/// Named min-max conventions of the published codes; they differ in whether zero is always in the range, in floors, in the symmetric
/// step and in the bounds of codes. docs/number_formats.md has the table.
using kernels::Range;

/// What a format is for; it decides which granularities make sense and what is the default.
enum class Role { weight, activation };

template <class E>
struct NameTable;
template <>
struct NameTable<Range> {
  static constexpr std::array<std::string_view, 7> names{"gptq", "awrq_activation",    "flexround", "flexround_activation",
                                                         "omni", "omni_no_zero_point", "absmax"};
};

/// An integer format of 2 to 8 bits, or none (floating point).
struct Scheme {
  int bits = 0;  ///< 0: not quantized
  bool symmetric = false;
  Granularity granularity = Granularity::channel;
  int64_t group = 0;  ///< columns of a group, for Granularity::group
  Range range = Range::gptq;
  bool search = false;      ///< fit the range by the exponent-2.4 search of its convention (gptq, flexround) instead of min-max
  bool calibrated = false;  ///< activations only: one static range per tensor, from calibration

  [[nodiscard]] bool active() const { return bits != 0; }
  bool operator==(const Scheme&) const = default;

  /// "none", or "int4:g64", "int8:token:sym", "int4:channel:range=omni:search". Refuses, naming `what`, anything else.
  static Scheme parse(std::string_view text, const std::string& what, Role role);

  /// Reads back as the same value, whatever the role.
  [[nodiscard]] std::string text() const;

  /// The same without what is usual in that role: "int4:g64", "int8:token:sym".
  [[nodiscard]] std::string brief(Role role) const;
};

namespace detail {

inline Range usual_range(const Scheme& s, Role role) {
  if (role == Role::weight) return Range::gptq;
  if (s.symmetric) return Range::absmax;
  return s.granularity == Granularity::tensor && !s.calibrated ? Range::awrq_activation : Range::omni;
}

}  // namespace detail

inline Scheme Scheme::parse(std::string_view text, const std::string& what, Role role) {
  if (text == "none") return {};
  const auto parts = split(text, ':');
  if (parts[0].starts_with("mxint")) refuse(what, ": '", parts[0], "' (blocks that share an exponent) is not built in; use int2 to int8");
  if (!parts[0].starts_with("int")) refuse(what, ": '", text, "' does not begin with none or int2 to int8");
  Scheme s;
  s.bits = parse_integer<int>(std::string_view(parts[0]).substr(3), what, 2, 8);
  s.granularity = role == Role::weight ? Granularity::channel : Granularity::token;
  bool ranged = false;
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::string& p = parts[i];
    if (p == "sym" || p == "asym") {
      s.symmetric = p == "sym";
    } else if (p == "tensor") {
      s.granularity = Granularity::tensor;
    } else if (p == "channel" && role == Role::weight) {
      s.granularity = Granularity::channel;
    } else if (p == "token" && role == Role::activation) {
      s.granularity = Granularity::token;
    } else if (p == "static" && role == Role::activation) {
      s.granularity = Granularity::tensor, s.calibrated = true;
    } else if (p == "search" && role == Role::weight) {
      s.search = true;
    } else if (p.size() > 1 && p[0] == 'g' && p.find_first_not_of("0123456789", 1) == std::string::npos && role == Role::weight) {
      s.granularity = Granularity::group;
      s.group = parse_integer<int64_t>(std::string_view(p).substr(1), what, 1, int64_t{1} << 30);
    } else if (p.starts_with("range=")) {
      const auto& names = NameTable<Range>::names;
      const auto found = std::find(names.begin(), names.end(), std::string_view(p).substr(6));
      if (found == names.end())
        refuse(what, ": '", p,
               "' names no convention; known are gptq, awrq_activation, flexround, flexround_activation, omni, omni_no_zero_point, absmax");
      s.range = static_cast<Range>(found - names.begin()), ranged = true;
    } else {
      refuse(what, ": '", p, "' in '", text, "' is none of sym, asym, ",
             role == Role::weight ? "tensor, channel, gN, search" : "token, tensor, static", ", range=NAME");
    }
  }
  if (!ranged) s.range = detail::usual_range(s, role);
  if (s.range == Range::absmax && !s.symmetric) refuse(what, ": range=absmax is symmetric; write ", parts[0], ":…:sym:range=absmax");
  if (s.search && s.range != Range::gptq && s.range != Range::flexround) refuse(what, ": search exists for range=gptq and range=flexround");
  return s;
}

inline std::string Scheme::text() const {
  if (!active()) return "none";
  std::string t = "int" + std::to_string(bits);
  switch (granularity) {
    case Granularity::tensor:
      t += calibrated ? ":static" : ":tensor";
      break;
    case Granularity::channel:
      t += ":channel";
      break;
    case Granularity::group:
      t += ":g" + std::to_string(group);
      break;
    case Granularity::token:
      t += ":token";
      break;
  }
  t += symmetric ? ":sym" : ":asym";
  t += ":range=" + std::string(NameTable<Range>::names[static_cast<size_t>(range)]);
  return search ? t + ":search" : t;
}

inline std::string Scheme::brief(Role role) const {
  std::string t = text();
  const auto drop = [&](const std::string& part) {
    if (const size_t at = t.find(part); at != std::string::npos) t.erase(at, part.size());
  };
  if (range == detail::usual_range(*this, role)) drop(":range=" + std::string(NameTable<Range>::names[static_cast<size_t>(range)]));
  if (!symmetric) drop(":asym");
  return t;
}

}  // namespace ptq
