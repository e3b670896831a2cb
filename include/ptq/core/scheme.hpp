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

/// What shares one scale: the whole tensor, a row (output channel), `group` neighbouring columns of a row (or of `group_rows` rows), one
/// token of an activation.
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
  static constexpr std::array<std::string_view, 9> names{
      "gptq", "awrq_activation", "flexround", "flexround_activation", "omni", "omni_no_zero_point", "absmax", "mx", "mx_ceil"};
};

/// What codes stand for: `integer`: themselves, times a scale from the data; `fixed`: themselves, times 2^−fraction; `minifloat`: the
/// values of a floating point format of few bits, times a scale where the format names what shares one.
enum class NumberKind { integer, fixed, minifloat };

/// An integer format of 2 to 8 bits, one whose scales are powers of two (mxint), fixed point, minifloat, or none (floating point).
/// A minifloat without a scale keeps Range::gptq, one with scales has Range::absmax, or Range::mx where they are powers of two.
struct Scheme {
  int bits = 0;  ///< 0: not quantized
  bool symmetric = false;
  Granularity granularity = Granularity::channel;
  int64_t group = 0;       ///< columns of a group, for Granularity::group
  int64_t group_rows = 1;  ///< rows of a group; more than one for weights that share exponents only
  Range range = Range::gptq;
  bool search = false;      ///< fit the range by the exponent-2.4 search of its convention (gptq, flexround) instead of min-max
  bool calibrated = false;  ///< activations only: one static range per tensor, from calibration
  NumberKind kind = NumberKind::integer;
  int fraction = 0;       ///< fixed: bits behind the point
  int exponent_bits = 0;  ///< minifloat
  int exponent_bias = 0;  ///< minifloat

  [[nodiscard]] bool active() const { return bits != 0; }
  /// Whether scales are powers of two, stored as exponents of 8 bits (block floating point); the last group of a row may then be short.
  [[nodiscard]] bool block_float() const { return range == Range::mx || range == Range::mx_ceil; }
  /// Whether scales follow from the data.
  [[nodiscard]] bool scaled() const { return kind == NumberKind::integer || (kind == NumberKind::minifloat && range != Range::gptq); }
  bool operator==(const Scheme&) const = default;

  /// "none", or "int4:g64", "int8:token:sym", "int4:channel:range=omni:search", "mxint4:b16", "mxint4:b4x16:ceil", "fixed8:f4",
  /// "fixed8:f7:unsigned", "float8:e4", "float8:e4:bias15", "float4:e2:g32", "float4:e2:b32". Refuses, naming `what`, anything else.
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

inline bool digits(std::string_view t) { return !t.empty() && t.find_first_not_of("0123456789") == std::string_view::npos; }

/// Refuses a second choice of what shares a scale.
inline void choose_once(bool& chosen, const std::string& part, std::string_view text, const std::string& what) {
  if (chosen) refuse(what, ": '", part, "' in '", std::string(text), "' says a second time what shares a scale");
  chosen = true;
}

/// Reads "b16" or "b4x16" (rows x columns) into the group of `s`; false: it is neither. Rows are refused where a token would see later
/// ones.
inline bool parse_blocks(std::string_view p, const std::string& what, Role role, Scheme& s) {
  const std::string_view sizes = p.substr(p.empty() ? 0 : 1);
  const size_t times = sizes.find('x');
  if (!p.starts_with('b') || !(digits(sizes) || (times != sizes.npos && digits(sizes.substr(0, times)) && digits(sizes.substr(times + 1)))))
    return false;
  s.granularity = Granularity::group;
  if (times != sizes.npos) s.group_rows = parse_integer<int64_t>(sizes.substr(0, times), what, 1, int64_t{1} << 30);
  s.group = parse_integer<int64_t>(times == sizes.npos ? sizes : sizes.substr(times + 1), what, 1, int64_t{1} << 30);
  if (s.group_rows > 1 && role == Role::activation)
    refuse(what, ": blocks of ", s.group_rows, " tokens would make a token depend on later ones; use :b", s.group);
  return true;
}

/// "mxint4", "mxint4:b16", "mxint4:b4x16" (rows x columns), "mxint4:channel", "mxint8:token", "mxint8:tensor", each also ":ceil".
inline Scheme parse_mxint(std::string_view text, const std::string& what, Role role) {
  const auto parts = split(text, ':');
  Scheme s;
  s.bits = parse_integer<int>(std::string_view(parts[0]).substr(5), what, 2, 8);
  s.symmetric = true, s.range = Range::mx, s.granularity = Granularity::group, s.group = 16;
  bool chosen = false;
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::string_view p = parts[i];
    if (p == "ceil") {
      s.range = Range::mx_ceil;
      continue;
    }
    choose_once(chosen, parts[i], text, what);
    if (p == "tensor") {
      s.granularity = Granularity::tensor, s.group = 0;
    } else if (p == (role == Role::weight ? "channel" : "token")) {
      s.granularity = role == Role::weight ? Granularity::channel : Granularity::token, s.group = 0;
    } else if (!parse_blocks(p, what, role, s)) {
      refuse(what, ": '", parts[i], "' in '", std::string(text), "' is none of bN, bMxN, ", role == Role::weight ? "channel" : "token",
             ", tensor, ceil");
    }
  }
  return s;
}

/// "fixed8:f4", "fixed8:f-1:unsigned": a grid of one scale, 2^−f, and codes of 8 bits.
inline Scheme parse_fixed(std::string_view text, const std::string& what) {
  const auto parts = split(text, ':');
  Scheme s;
  s.bits = parse_integer<int>(std::string_view(parts[0]).substr(5), what, 2, 8);
  s.kind = NumberKind::fixed, s.granularity = Granularity::tensor, s.symmetric = true, s.range = Range::omni_no_zero_point;
  if (parts.size() < 2 || !parts[1].starts_with('f'))
    refuse(what, ": '", std::string(text), "' needs the bits behind the point: ", parts[0], ":f4");
  s.fraction = parse_integer<int>(std::string_view(parts[1]).substr(1), what, -30, 30);
  for (size_t i = 2; i < parts.size(); ++i) {
    if (parts[i] != "unsigned") refuse(what, ": '", parts[i], "' in '", std::string(text), "' is not unsigned");
    s.symmetric = false, s.range = Range::gptq;
  }
  return s;
}

/// "float8:e4", "float8:e4:bias15": 8 bits, 4 of them the exponent. With a scale: "float4:e2:channel", "float4:e2:g32"; one that is a power
/// of two: "float4:e2:b32", "float4:e2:b4x16".
inline Scheme parse_minifloat(std::string_view text, const std::string& what, Role role) {
  const auto parts = split(text, ':');
  Scheme s;
  s.bits = parse_integer<int>(std::string_view(parts[0]).substr(5), what, 3, 16);
  s.kind = NumberKind::minifloat, s.granularity = Granularity::tensor, s.symmetric = true;
  if (parts.size() < 2 || !parts[1].starts_with('e'))
    refuse(what, ": '", std::string(text), "' needs the bits of the exponent: ", parts[0], ":e4");
  s.exponent_bits = parse_integer<int>(std::string_view(parts[1]).substr(1), what, 1, std::min(8, s.bits - 2));
  s.exponent_bias = (1 << (s.exponent_bits - 1)) - 1;
  bool chosen = false;
  for (size_t i = 2; i < parts.size(); ++i) {
    const std::string_view p = parts[i];
    if (p.starts_with("bias")) {
      s.exponent_bias = parse_integer<int>(p.substr(4), what, 0, 127);
      continue;
    }
    choose_once(chosen, parts[i], text, what);
    if (p == "tensor") {
      s.range = Range::absmax;
    } else if (p == (role == Role::weight ? "channel" : "token")) {
      s.range = Range::absmax, s.granularity = role == Role::weight ? Granularity::channel : Granularity::token;
    } else if (role == Role::weight && p.starts_with('g') && digits(p.substr(1))) {
      s.range = Range::absmax, s.granularity = Granularity::group;
      s.group = parse_integer<int64_t>(p.substr(1), what, 1, int64_t{1} << 30);
    } else if (parse_blocks(p, what, role, s)) {
      s.range = Range::mx;
    } else {
      refuse(what, ": '", parts[i], "' in '", std::string(text), "' is none of biasN, bN, ",
             role == Role::weight ? "bMxN, gN, channel" : "token", ", tensor");
    }
  }
  if (s.scaled() && s.bits > 8)
    refuse(what, ": '", std::string(text), "' has more than 8 bits, and so no scale; write ", parts[0], ":", parts[1]);
  return s;
}

}  // namespace detail

inline Scheme Scheme::parse(std::string_view text, const std::string& what, Role role) {
  if (text == "none") return {};
  const auto parts = split(text, ':');
  if (parts[0].starts_with("mxint")) return detail::parse_mxint(text, what, role);
  if (parts[0].starts_with("fixed")) return detail::parse_fixed(text, what);
  if (parts[0].starts_with("float")) return detail::parse_minifloat(text, what, role);
  if (!parts[0].starts_with("int"))
    refuse(what, ": '", text, "' does not begin with none, int2 to int8, mxint2 to mxint8, fixed2 to fixed8 or float3 to float16");
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
      const auto last = names.end() - 2;  // those of mxint follow from its name
      const auto found = std::find(names.begin(), last, std::string_view(p).substr(6));
      if (found == last)
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
  if (kind == NumberKind::fixed) return cat("fixed", bits, ":f", fraction, symmetric ? "" : ":unsigned");
  std::string t = (block_float() ? "mxint" : "int") + std::to_string(bits);
  if (kind == NumberKind::minifloat) {
    t = cat("float", bits, ":e", exponent_bits, exponent_bias == (1 << (exponent_bits - 1)) - 1 ? "" : cat(":bias", exponent_bias));
    if (!scaled()) return t;
  }
  switch (granularity) {
    case Granularity::tensor:
      t += calibrated ? ":static" : ":tensor";
      break;
    case Granularity::channel:
      t += ":channel";
      break;
    case Granularity::group:
      t += (block_float() ? ":b" : ":g") + (group_rows > 1 ? std::to_string(group_rows) + "x" : "") + std::to_string(group);
      break;
    case Granularity::token:
      t += ":token";
      break;
  }
  if (kind == NumberKind::minifloat || block_float()) return range == Range::mx_ceil ? t + ":ceil" : t;
  t += symmetric ? ":sym" : ":asym";
  t += ":range=" + std::string(NameTable<Range>::names[static_cast<size_t>(range)]);
  return search ? t + ":search" : t;
}

inline std::string Scheme::brief(Role role) const {
  std::string t = text();
  if (block_float() || kind != NumberKind::integer) return t;
  const auto drop = [&](const std::string& part) {
    if (const size_t at = t.find(part); at != std::string::npos) t.erase(at, part.size());
  };
  if (range == detail::usual_range(*this, role)) drop(":range=" + std::string(NameTable<Range>::names[static_cast<size_t>(range)]));
  if (!symmetric) drop(":asym");
  return t;
}

}  // namespace ptq
