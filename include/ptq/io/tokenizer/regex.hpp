// Patterns over Unicode text as tokenizer files write them. The one door to PCRE2.
#pragma once

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <ptq/core/error.hpp>

namespace ptq::io {

namespace detail {

/// Tokenizer files write patterns for Oniguruma. Where PCRE2 reads the same characters otherwise, rewrite them or refuse:
/// \s is exactly Unicode's White_Space (PCRE2 adds U+180E), \w and \d are spelled out, class sets ([a&&b], [a[b]]) and a plus
/// after a counted repeat ("{1,3}+" repeats again there, is possessive here) are refused.
[[nodiscard]] inline std::string translate_pattern(std::string_view pattern) {
  constexpr std::string_view space = "\\x{9}-\\x{d}\\x{85}\\p{Z}", digit = "\\p{Nd}";
  constexpr std::string_view word = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    const char next = i + 1 < pattern.size() ? pattern[i + 1] : '\0';
    if (c == '\\') {
      ++i;
      std::string_view set;
      bool negated = false;
      switch (next) {
        case 'S':
          negated = true;
          [[fallthrough]];
        case 's':
          set = space;
          break;
        case 'D':
          negated = true;
          [[fallthrough]];
        case 'd':
          set = digit;
          break;
        case 'W':
          negated = true;
          [[fallthrough]];
        case 'w':
          set = word;
          break;
        default:
          break;
      }
      if (set.empty()) {
        const bool braced =
            next != '\0' && std::string_view("pPxkgo").find(next) != std::string_view::npos && pattern.substr(i + 1).starts_with('{');
        const std::size_t end = braced ? pattern.find('}', i) : i;
        if (end == std::string_view::npos) fail("the pattern \"", pattern, "\" has an open brace");
        out.append(pattern.substr(i - 1, end + 2 - i));
        i = end;
      } else if (!in_class) {
        ((out += negated ? "[^" : "[") += set) += ']';
      } else if (!negated) {
        out += set;
      } else {
        fail("the pattern \"", pattern, "\" negates a class inside a class (\\", next, "), which is not supported");
      }
      continue;
    }
    if (in_class) {
      if (c == '&' && next == '&') fail("the pattern \"", pattern, "\" intersects character classes (&&), which is not supported");
      if (c == '[' && next != ':') fail("the pattern \"", pattern, "\" nests character classes, which is not supported");
      if (c == '[') {
        const std::size_t end = pattern.find(":]", i + 2);
        if (end == std::string_view::npos) fail("the pattern \"", pattern, "\" has an open [: class");
        out += pattern.substr(i, end + 2 - i);
        i = end + 1;
        continue;
      }
      in_class = c != ']';
    } else if (c == '[') {
      in_class = true;
      out += c;
      if (next == '^') out += pattern[++i];
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') out += '\\', out += pattern[++i];
      continue;
    } else if (c == '}' && next == '+') {
      fail("the pattern \"", pattern, "\" has a plus after a counted repeat, which is not supported");
    }
    out += c;
  }
  return out;
}

}  // namespace detail

/// A compiled pattern; copies share it. Matching is thread-safe.
class Regex {
 public:
  /// `origin` names the file in errors.
  explicit Regex(std::string_view pattern, std::string_view origin = "a pattern") : pattern_(pattern) {
    std::string translated;
    try {
      translated = detail::translate_pattern(pattern);
    } catch (const Error& error) {
      fail(origin, ": ", error.what());
    }
    int code = 0;
    PCRE2_SIZE offset = 0;
    pcre2_code* compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                         PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &offset, nullptr);
    if (compiled == nullptr) fail(origin, ": the pattern \"", pattern, "\" cannot be compiled at ", offset, ": ", message(code));
    code_.reset(compiled, pcre2_code_free);
    pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);  // without a JIT the interpreter serves
  }

  [[nodiscard]] const std::string& pattern() const { return pattern_; }

  /// Calls found(begin, end) for each match from left to right; the text must be valid UTF-8. An empty match moves on by a character.
  template <class Found>
  void for_each_match(std::string_view text, Found&& found) const {
    static thread_local const Scratch scratch;
    for (std::size_t at = 0; at <= text.size();) {
      const int count = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at, PCRE2_NO_UTF_CHECK,
                                    scratch.data.get(), scratch.context.get());
      if (count == PCRE2_ERROR_NOMATCH) return;
      if (count < 0) fail("the pattern \"", pattern_, "\" failed at byte ", at, " of a text: ", message(count));
      const PCRE2_SIZE* span = pcre2_get_ovector_pointer(scratch.data.get());
      const std::size_t begin = span[0], end = span[1];
      if (end < begin || begin < at) fail("the pattern \"", pattern_, "\" sets a match outside its text (\\K), which is not supported");
      found(begin, end);
      at = end;
      if (end == begin) {
        ++at;
        while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) ++at;
      }
    }
  }

 private:
  /// What a match needs, kept for the next: a stack for compiled code is mapped memory, too dear to make for every word.
  struct Scratch {
    std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> data{pcre2_match_data_create(1, nullptr), pcre2_match_data_free};
    std::unique_ptr<pcre2_match_context, void (*)(pcre2_match_context*)> context{pcre2_match_context_create(nullptr),
                                                                                 pcre2_match_context_free};
    std::unique_ptr<pcre2_jit_stack, void (*)(pcre2_jit_stack*)> stack{pcre2_jit_stack_create(32 << 10, 16 << 20, nullptr),
                                                                       pcre2_jit_stack_free};
    Scratch() {
      if (data == nullptr || context == nullptr) fail("PCRE2 found no memory for a match");
      if (stack != nullptr) pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
    }
  };

  [[nodiscard]] static std::string message(int code) {
    std::array<PCRE2_UCHAR, 256> buffer{};
    pcre2_get_error_message(code, buffer.data(), buffer.size());
    return reinterpret_cast<const char*>(buffer.data());
  }

  std::string pattern_;
  std::shared_ptr<pcre2_code> code_;
};

}  // namespace ptq::io
