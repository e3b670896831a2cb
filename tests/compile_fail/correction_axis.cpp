// A policy of another axis in the place of the correction.
#include <ptq/recipe.hpp>

using namespace ptq;

int main() {
  const Recipe<Nearest, NoSmoothing, Mse, Direct, NoAdaptation> wrong{};  // expect: Recipe: the fifth axis takes a Correction
  return sizeof wrong > 0 ? 0 : 1;
}
