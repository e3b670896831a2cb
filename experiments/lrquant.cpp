// LRQuant (Zhao et al., ACL 2024): learned smoothing from a logarithmic start, MSE and NLC, at W4A4; beside its baselines and its start.
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  Recipe<LearnedClip, LearnedLog> start{.rounding = methods::lrquant.rounding, .smoothing = methods::lrquant.smoothing};
  start.rounding.rate = start.smoothing.rate = 0;
  return driver::run(
      argc, argv,
      {.about = "LRQuant, doi 10.18653/v1/2024.acl-long.122",
       .rows = {driver::row(methods::rtn), driver::row(methods::smoothquant), driver::row(methods::static_log),
                driver::row(start, {}, "lrquant, not learned"), driver::row(methods::lrquant, {}, "lrquant", /*exported=*/true)},
       .weights = "int4:channel:range=omni",
       .activations = "int4:token",
       .attention = "q=activations,k=activations,v=activations"});
}
