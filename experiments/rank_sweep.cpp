// Corrections at ranks 8 to 128, behind plain rounding.
#include <ptq/methods.hpp>

#include "driver.hpp"

int main(int argc, char** argv) {
  using namespace ptq;
  std::vector<driver::Row> rows{driver::row(methods::rtn)};
  for (const int64_t rank : {8, 16, 32, 64, 128}) {
    auto lqer = methods::lqer;
    auto l2qer = methods::l2qer;
    auto qera = methods::qera;
    lqer.correction.rank = l2qer.correction.rank = qera.correction.rank = rank;
    for (const auto& row : {driver::row(lqer), driver::row(l2qer), driver::row(qera)}) rows.push_back(row);
  }
  return driver::run(argc, argv,
                     {.about = "Sweep: rank of a correction",
                      .rows = rows,
                      .weights = "mxint3:b16",
                      .factors = "mxint8:b16",
                      .calibrate = "wikitext2:128x2048"});
}
