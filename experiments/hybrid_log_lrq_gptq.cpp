// A hybrid of three papers, published in none: LRQuant's learned logarithmic smoothing, LRQ's rounding of low rank learned with it, and
// GPTQ's columns on the grid they end at; beside every part alone.
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  constexpr LearnedLog smoothing = methods::lrquant.smoothing;
  constexpr Lrq rounding = methods::lrq.rounding;
  constexpr Gptq columns = methods::gptq_act_order.solver;
  constexpr Learning learning = methods::equivalent_learning;  // both learn together, with activations rounded

  Recipe<Lrq, LearnedLog, Mse, Gptq> hybrid{.rounding = rounding, .smoothing = smoothing, .solver = columns, .learning = learning};
  Recipe<Lrq, LearnedLog> learned{.rounding = rounding, .smoothing = smoothing, .learning = learning};
  Recipe<Nearest, LearnedLog, Mse, Gptq> without_lrq{.smoothing = smoothing, .solver = columns, .learning = learning};
  Recipe<Lrq, NoSmoothing, Mse, Gptq> without_log{.rounding = rounding, .solver = columns, .learning = learning};
  using driver::row;
  return driver::run(argc, argv,
                     {.about = "Learned logarithmic smoothing, LRQ and GPTQ together, and their parts",
                      .rows = {row(methods::rtn), row(methods::gptq_act_order, {}, "gptq"),
                               row(Recipe<Nearest, LearnedLog>{.smoothing = smoothing, .learning = learning}, {}, "log"),
                               row(Recipe<Lrq>{.rounding = rounding, .learning = learning}, {}, "lrq"), row(learned, {}, "log + lrq"),
                               row(without_lrq, {}, "log + gptq"), row(without_log, {}, "lrq + gptq"),
                               row(hybrid, {}, "log + lrq + gptq", /*exported=*/true)},
                      .weights = "int4:channel:range=flexround",
                      .activations = "int8:token"});
}
