// main() of every test program, compiled once.
#define CATCH_CONFIG_RUNNER
#include "catch.hpp"

#include <cstdlib>
#include <iostream>

namespace {
int skips = 0;
}  // namespace

void ptq::test::skipped(const std::string& reason) {
  ++skips;
  std::cout << "SKIPPED: " << reason << std::endl;
}

namespace {

/// Counts assertions, so that a program that only skipped does not look like one that passed.
std::size_t assertions = 0;

#if PTQ_CATCH_VERSION == 3
struct Count : Catch::EventListenerBase {
  using EventListenerBase::EventListenerBase;
  void testRunEnded(const Catch::TestRunStats& stats) override { assertions = static_cast<std::size_t>(stats.totals.assertions.total()); }
};
#else
struct Count : Catch::TestEventListenerBase {
  using TestEventListenerBase::TestEventListenerBase;
  void testRunEnded(const Catch::TestRunStats& stats) override { assertions = stats.totals.assertions.total(); }
};
#endif
CATCH_REGISTER_LISTENER(Count)

}  // namespace

int main(int argc, char** argv) {
  const int failed = Catch::Session().run(argc, argv);
  if (failed != 0) return failed;
  return skips > 0 && assertions == 0 ? 77 : 0;
}
