// One sweep over what exists: smoothing × solver, at the weight formats given by --weights A,B,…
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  const auto grid =
      sweep(axis(Nearest{}), axis(NoSmoothing{}, SmoothQuant{}, SmoothQuant{.alpha = 0.8}), axis(Mse{}, Mse{.reduce = Reduce::sum}),
            axis(Direct{}, Gptq{}, Gptq{.order = ColumnOrder::descending, .static_groups = true}, Gptaq{}, Awrq{}));
  return driver::run(argc, argv,
                     {.about = "Ablation: smoothing, loss and solver", .rows = driver::rows(grid), .weights = "int4:g64,int3:g64"});
}
