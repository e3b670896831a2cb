// CLAQ (Wang et al., arXiv 2405.17233): a codebook a column, at the format's bits, with adaptive precision, reservation, and both; beside
// GPTQ.
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  using Method = Recipe<Nearest, NoSmoothing, Mse, Claq>;
  return driver::run(
      argc, argv,
      {.about = "CLAQ, arXiv 2405.17233",
       .rows = {driver::row(Recipe<Nearest, NoSmoothing, Mse, Gptq>{.solver = {.order = ColumnOrder::descending, .true_sequential = true}}),
                driver::row(methods::claq, {}, "claq", /*exported=*/true),
                driver::row(Method{.solver = {.average_bits = 2.1}}, {"int2:channel"}),
                driver::row(Method{.solver = {.reserve = Reserve::ranked}}, {"int2:channel"}),
                driver::row(methods::claq_fused, {"int2:channel"})},
       .weights = "int2:channel",
       .calibrate = "c4:128x2048"});
}
