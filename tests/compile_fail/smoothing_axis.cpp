// A policy of another axis in the place of the smoothing.
#include <ptq/recipe.hpp>

using namespace ptq;

int main() {
  const Recipe<Nearest, Nearest> wrong{};  // expect: Recipe: the second axis takes a Smoothing
  return sizeof wrong > 0 ? 0 : 1;
}
