// Correction × solver at the weight formats given by --weights A,B,…: does QERA ≤ L²QER ≤ LQER ≤ none hold behind every solver?
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  const auto grid = sweep(axis(Nearest{}), axis(NoSmoothing{}), axis(Mse{}), axis(Direct{}, Gptq{}),
                          axis(NoCorrection{}, Lqer{}, L2qer{}, Qera{.form = QeraForm::approximate}, Qera{}));
  return driver::run(argc, argv,
                     {.about = "Ablation: solver and correction",
                      .rows = driver::rows(grid),
                      .weights = "mxint4:b16,int3:g64",
                      .factors = "mxint8:b16",
                      .calibrate = "wikitext2:128x2048"});
}
