// SmoothQuant (Xiao et al., arXiv 2211.10438): W8A8 after moving outliers of activations into weights.
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  return driver::run(argc, argv,
                     {.about = "SmoothQuant, arXiv 2211.10438",
                      .rows = {driver::row(methods::smoothquant)},
                      .weights = "int8:channel:sym:range=absmax",
                      .activations = "int8:token:sym",
                      .calibrate = "c4:512x512"});
}
