// A policy of another axis in the place of the adaptation.
#include <ptq/recipe.hpp>

using namespace ptq;

int main() {
  const Recipe<Nearest, NoSmoothing, Mse, Direct, NoCorrection, Mse> wrong{};  // expect: Recipe: the sixth axis takes an Adaptation
  return sizeof wrong > 0 ? 0 : 1;
}
