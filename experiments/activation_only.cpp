// Activations rounded, weights kept, with and without smoothing: how much of a W4A8 loss is the activations'.
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  return driver::run(
      argc, argv,
      {.about = "Activation rounding alone, plain and after SmoothQuant",
       .rows = {driver::row(methods::rtn, {}, "weights kept"), driver::row(methods::smoothquant, {}, "smoothquant, weights kept")},
       .weights = "none",
       .activations = "int8:token"});
}
