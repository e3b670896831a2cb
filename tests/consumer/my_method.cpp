// A hybrid of one's own, outside the tree: SmoothQuant's scales, then GPTQ's columns.
#include <driver.hpp>
#include <ptq/smoothing/smoothquant.hpp>
#include <ptq/solver/gptq.hpp>

int main(int argc, char** argv) {
  using namespace ptq;
  constexpr Recipe<Nearest, SmoothQuant, Mse, Gptq> mine{};
  return driver::run(argc, argv, {.about = "SmoothQuant, then GPTQ", .rows = {driver::row(mine)}});
}
