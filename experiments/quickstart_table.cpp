// The table of ./quickstart run: plain rounding, GPTQ and SmoothQuant on one model.
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  using driver::row;
  return driver::run(argc, argv,
                     {.about = "Plain rounding, GPTQ and SmoothQuant side by side",
                      .rows = {row(methods::rtn, {"int4:g64"}), row(methods::gptq, {"int4:g64"}),
                               row(methods::gptq_act_order, {"int4:g64"}, {}, /*exported=*/true), row(methods::rtn, {"int3:g64"}),
                               row(methods::gptq, {"int3:g64"}), row(methods::gptq_act_order, {"int3:g64"}),
                               row(methods::smoothquant, {"int8:channel:sym:range=absmax", "int8:token:sym"})},
                      .weights = "int4:g64",
                      .calibrate = "books_valid:16x512",
                      .evaluate = "wikitext2:8x512"});
}
