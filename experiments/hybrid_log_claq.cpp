// A hybrid of two papers, published in neither: LRQuant's logarithmic smoothing learned under its loss, squared error and cosine, then
// CLAQ's codebooks. A codebook a column is blind to the factor of its column, so weights do not pay for what activations gain.
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  constexpr LearnedLog smoothing = methods::lrquant.smoothing;
  constexpr Learning learning = methods::equivalent_learning;

  Recipe<Nearest, LearnedLog, Sum<Mse, Nlc>, Claq> hybrid{.smoothing = smoothing, .learning = learning};
  Recipe<Nearest, LearnedLog, Mse, Claq> squared_error{.smoothing = smoothing, .learning = learning};
  Recipe<Nearest, LearnedLog, Sum<Mse, Nlc>, Gptq> on_a_grid{
      .smoothing = smoothing, .solver = methods::gptq_act_order.solver, .learning = learning};
  Recipe<Nearest, LearnedLog, Sum<Mse, Nlc>> learned{.smoothing = smoothing, .learning = learning};
  using driver::row;
  return driver::run(
      argc, argv,
      {.about = "Learned logarithmic smoothing under squared error and cosine, then CLAQ; and their parts",
       .rows = {row(methods::rtn), row(methods::claq, {}, "claq"), row(learned, {}, "log, mse + nlc"),
                row(on_a_grid, {}, "log, mse + nlc, gptq"), row(Recipe<Nearest, StaticLog, Mse, Claq>{}, {}, "log not learned + claq"),
                row(squared_error, {}, "log, mse + claq"), row(hybrid, {}, "log, mse + nlc, claq", /*exported=*/true)},
       .weights = "int4:channel:range=omni",
       .activations = "int4:token",
       .attention = "q=activations,k=activations,v=activations"});
}
