// FlexRound (Lee et al., arXiv 2306.00317): every weight has a learned divisor; beside plain rounding on the same grid, its start.
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  return driver::run(argc, argv,
                     {.about = "FlexRound, arXiv 2306.00317",
                      .rows = {driver::row(methods::rtn), driver::row(methods::flexround, {}, "flexround", /*exported=*/true)},
                      .weights = "int4:channel:range=flexround",
                      .calibrate = "c4:512x1024"});
}
