// LQER (Zhang et al., arXiv 2402.02446): the rounding error's best approximation of low rank runs beside the rounded weight.
#include <ptq/methods.hpp>

#include "lqer_formats.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  using driver::row;
  return driver::run(argc, argv,
                     driver::lqer_w4a8("LQER, arXiv 2402.02446, W4A8 in block floating point",
                                       {row(methods::rtn), row(methods::lqer, {}, {}, /*exported=*/true)}));
}
