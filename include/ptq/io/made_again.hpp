// Files that a program can make again: an error in reading one says so.
#pragma once

#include <ptq/core/error.hpp>

namespace ptq::io {

/// The result of `read`; what it throws about a file gains the advice to delete the file that the error names.
template <class Read>
auto made_again(const Read& read) {
  try {
    return read();
  } catch (const NoRoom&) {
    throw;
  } catch (const Error& error) {
    fail(error.what(), "; delete that file, and the command that made it makes it again");
  }
}

}  // namespace ptq::io
