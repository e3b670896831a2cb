// QERA (Zhang et al., arXiv 2410.06040): the correction with the least output error, from the second moment of the inputs or its diagonal.
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  using driver::row;
  return driver::run(argc, argv,
                     {.about = "QERA, arXiv 2410.06040, weights alone",
                      .rows = {row(methods::rtn), row(methods::lqer), row(methods::qera_approximate, {}, "qera (approximate)"),
                               row(methods::qera, {}, {}, /*exported=*/true)},
                      .weights = "mxint4:b32",
                      .calibrate = "wikitext2:128x2048"});
}
