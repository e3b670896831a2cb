// The one door to Catch2, version 2 or 3, and a visible skip, which version 2 lacks.
#pragma once

#include <string>

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#define PTQ_CATCH_VERSION 3
using Catch::Approx;
#else
#include <catch2/catch.hpp>
#define PTQ_CATCH_VERSION 2
namespace Catch::Matchers {
inline auto ContainsSubstring(const std::string& part) { return Contains(part); }  // the name of version 3
}  // namespace Catch::Matchers
#endif

namespace ptq::test {
/// Prints "SKIPPED: reason" and counts it; a program in which nothing else was checked exits with 77, which CTest shows as skipped.
void skipped(const std::string& reason);
}  // namespace ptq::test

/// Leaves the test case: `if (!std::getenv("PTQ_ORACLES")) SKIP_TEST("PTQ_ORACLES is not set");`
#define SKIP_TEST(reason)         \
  do {                            \
    ::ptq::test::skipped(reason); \
    return;                       \
  } while (false)
