// Round to nearest: the baseline of every paper.
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  return driver::run(argc, argv, {.about = "Round to nearest", .rows = {driver::row(methods::rtn)}});
}
