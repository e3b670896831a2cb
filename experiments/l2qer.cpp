// L²QER (Zhang et al., arXiv 2402.02446): LQER with the error weighted by the magnitude of activations; beside plain rounding and LQER.
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  using driver::row;
  return driver::run(argc, argv,
                     {.about = "L²QER, arXiv 2402.02446, W4A8 in block floating point",
                      .rows = {row(methods::rtn), row(methods::lqer), row(methods::l2qer, {}, {}, /*exported=*/true)},
                      .weights = "mxint4:b16:ceil",
                      .activations = "mxint8:b16:ceil",
                      .attention = "q=mxint8:b16:ceil,k=mxint8:b16:ceil,p=mxint8:b16:ceil,v=mxint8:b16:ceil",
                      .bias = "mxint8:b16:ceil",
                      .factors = "mxint8:b16:ceil",
                      .branch = "mxint8:b16:ceil",
                      .calibrate = "c4:32x2048"});
}
