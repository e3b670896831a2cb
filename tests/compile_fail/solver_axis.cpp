// A policy of another axis in the place of the solver.
#include <ptq/recipe.hpp>

using namespace ptq;

int main() {
  const Recipe<Nearest, NoSmoothing, Mse, NoCorrection> wrong{};  // expect: Recipe: the fourth axis takes a Solver
  return sizeof wrong > 0 ? 0 : 1;
}
