// A rounding that learns its clipping range before a solver that makes its own levels.
#include "../toys.hpp"

using namespace ptq;

int main() {
  const Recipe<test::ToyClip, NoSmoothing, Mse, test::ToyCodebook>
      wrong{};  // expect: Recipe: a solver with its own codebooks has no range to clip; use Nearest
  return sizeof wrong > 0 ? 0 : 1;
}
