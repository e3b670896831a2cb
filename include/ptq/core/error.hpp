// Errors that name the file, tensor or option, and say what would work. No ATen here: parsers use it too.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace ptq {

/// Who can mend it: the caller's arguments (exit status 2) or the contents of a file, the numbers, the machine (exit status 1).
enum class Blame { arguments, contents };

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& what, Blame blame = Blame::contents) : std::runtime_error(what), blame_(blame) {}
  [[nodiscard]] Blame blame() const noexcept { return blame_; }

 private:
  Blame blame_;
};

/// A folder or disk cannot take what would go there; no file is at fault.
class NoRoom : public Error {
 public:
  using Error::Error;
};

/// Concatenates anything that can be streamed.
template <class... Parts>
[[nodiscard]] std::string cat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return std::move(out).str();
}

/// Throws an Error about the contents of a file, a tensor or the machine.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw Error(cat(parts...), Blame::contents);
}

/// Throws an Error about an argument or option that the caller gave.
template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  throw Error(cat(parts...), Blame::arguments);
}

}  // namespace ptq
