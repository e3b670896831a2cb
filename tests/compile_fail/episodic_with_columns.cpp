// Refitting on one segment with a solver that needs a Hessian.
#include "../toys.hpp"

using namespace ptq;

int main() {
  const Recipe<Nearest, NoSmoothing, Mse, Gptq, NoCorrection, test::ToyEpisodic>
      wrong{};  // expect: Recipe: the Hessian of one segment has no rank; use the adaptation per data set
  return sizeof wrong > 0 ? 0 : 1;
}
