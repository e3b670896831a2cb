// LRQ (Lee et al., arXiv 2407.11534): FlexRound with divisors of low rank; beside plain rounding on the same grid, its start.
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  return driver::run(argc, argv,
                     {.about = "LRQ, arXiv 2407.11534",
                      .rows = {driver::row(methods::rtn), driver::row(methods::lrq, {}, "lrq", /*exported=*/true)},
                      .weights = "int4:channel:range=flexround",
                      .calibrate = "c4:512x1024"});
}
