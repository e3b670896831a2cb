// Compiles: the neighbours of the wrong recipes beside this file.
#include "../toys.hpp"

using namespace ptq;

int main() {
  const Recipe<test::ToyClip, NoSmoothing, Mse, Gptq, NoCorrection, test::ToyTta> clip{};
  const Recipe<test::ToyDivisor, NoSmoothing, Mse, test::ToyCodebook, NoCorrection, test::ToyEpisodic> codebook{};
  return label(clip) != label(codebook) ? 0 : 1;
}
