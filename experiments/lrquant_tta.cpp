// Test-time adaptation of LRQuant (Zhao et al., ACL 2024): one calibration, then the last block refitted on the text in several ways.
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  return driver::run(
      argc, argv,
      {.about = "Test-time adaptation of LRQuant, doi 10.18653/v1/2024.acl-long.122",
       .rows = {driver::row(methods::lrquant, {}, "lrquant", /*exported=*/true), driver::row(methods::lrquant_tta, {}, "lrquant, tta"),
                driver::row(methods::lrquant_tta_full, {}, "lrquant, tta of the full teacher"),
                driver::row(methods::lrquant_episodic, {}, "lrquant, each segment by itself"),
                driver::row(methods::lrquant_tta_as_published, {}, "lrquant, tta as published")},
       .weights = "int4:channel:range=omni",
       .activations = "int4:token",
       .attention = "q=activations,k=activations,v=activations"});
}
