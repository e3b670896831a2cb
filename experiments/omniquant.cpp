// OmniQuant (Shao et al., arXiv 2308.13137): learned clipping and equivalent transformation at W4A4; beside plain rounding and SmoothQuant.
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  Recipe<LearnedClip, LearnedLog> start{.rounding = methods::omniquant.rounding, .smoothing = methods::omniquant.smoothing};
  start.rounding.rate = start.smoothing.rate = 0;
  return driver::run(
      argc, argv,
      {.about = "OmniQuant, arXiv 2308.13137",
       .rows = {driver::row(methods::rtn), driver::row(methods::smoothquant), driver::row(start, {}, "omniquant, not learned"),
                driver::row(methods::omniquant, {}, "omniquant", /*exported=*/true)},
       .weights = "int4:channel:range=omni",
       .activations = "int4:token",
       .attention = "q=activations,k=activations,v=activations"});
}
