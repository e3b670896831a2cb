// GPTQ (Frantar et al., arXiv 2210.17323): one-shot weight quantization with error feedback; columns by descending diagonal, static groups.
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  return driver::run(argc, argv, {.about = "GPTQ, arXiv 2210.17323", .rows = {driver::row(methods::gptq_act_order)}, .calibrate = "c4:128x2048"});
}
