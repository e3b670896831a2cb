// A policy of another axis in the place of the loss.
#include <ptq/recipe.hpp>

using namespace ptq;

int main() {
  const Recipe<Nearest, NoSmoothing, Direct> wrong{};  // expect: Recipe: the third axis takes a Loss
  return sizeof wrong > 0 ? 0 : 1;
}
