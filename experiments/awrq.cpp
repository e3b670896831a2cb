// AWRQ (github.com/linzhao-ai/AWRQ): weights chosen for inputs that are rounded too; beside the baselines of its repository, of which one
// keeps the weights and one the activations.
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  using driver::row;
  const Recipe<Nearest, SmoothQuant> smooth{.smoothing = methods::awrq_smoothing};
  const Recipe<Nearest, SmoothQuant, Mse, Gptq> smooth_gptq{.smoothing = methods::awrq_smoothing};
  const Recipe<Nearest, NoSmoothing, Mse, Awrq> awrq{};
  return driver::run(argc, argv,
                     {.about = "AWRQ, W4A8 with ranges per tensor",
                      .rows = {row(methods::rtn), row(smooth, {}, "smoothing + rtn"), row(smooth, {.weights = "none"}, "smoothing"),
                               row(smooth_gptq, {.activations = "none"}, "smoothing + gptq"), row(awrq, {}, "awrq"),
                               row(methods::awrq, {}, "smoothing + awrq", /*exported=*/true)},
                      .weights = "int4:channel",
                      .activations = "int8:tensor",
                      .calibrate = "c4:128x2048"});
}
