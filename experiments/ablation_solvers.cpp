// Solvers × smoothing, at the formats given by --weights A,B,… and --activations A,B,…
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  constexpr auto order = ColumnOrder::descending;
  const auto grid = sweep(axis(Nearest{}), axis(NoSmoothing{}, SmoothQuant{}), axis(Mse{}),
                          axis(Direct{}, Gptq{.order = order, .static_groups = true}, Gptaq{.order = order, .static_groups = true},
                               Awrq{.order = order, .static_groups = true}, Claq{}));
  return driver::run(argc, argv,
                     {.about = "Ablation: solvers and smoothing", .rows = driver::rows(grid), .weights = "int4:channel,int3:channel"});
}
