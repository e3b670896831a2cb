// A policy of another axis in the place of the rounding.
#include <ptq/recipe.hpp>

using namespace ptq;

int main() {
  const Recipe<NoSmoothing> wrong{};  // expect: Recipe: the first axis takes a Rounding
  return sizeof wrong > 0 ? 0 : 1;
}
