// L²QER (Zhang et al., arXiv 2402.02446): LQER with the error weighted by the magnitude of activations; beside plain rounding and LQER.
#include <ptq/methods.hpp>

#include "lqer_formats.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  using driver::row;
  return driver::run(argc, argv,
                     driver::lqer_w4a8("L²QER, arXiv 2402.02446, W4A8 in block floating point",
                                       {row(methods::rtn), row(methods::lqer), row(methods::l2qer, {}, {}, /*exported=*/true)}));
}
