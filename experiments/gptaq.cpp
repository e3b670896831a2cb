// GPTAQ (Li et al., arXiv 2504.02692): GPTQ that also makes up for the error its inputs arrive with; beside GPTQ.
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  return driver::run(
      argc, argv,
      {.about = "GPTAQ, arXiv 2504.02692",
       .rows = {driver::row(methods::rtn), driver::row(Recipe<Nearest, NoSmoothing, Mse, Gptq>{.solver = {.true_sequential = true}}),
                driver::row(methods::gptaq, {}, "gptaq", /*exported=*/true)},
       .calibrate = "wikitext2:128x2048"});
}
