// Hostile configurations of Hugging Face folders.
// seeds: tests/fuzz/seeds/config
#include "fuzz.hpp"

#include <ptq/io/hf_config.hpp>
#include <ptq/io/json.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return ptq::fuzz::reading([&] {
    const auto config = ptq::io::read_hf_config(ptq::io::parse_json(ptq::fuzz::text(data, size), "fuzz"), "fuzz");
    ptq::fuzz::promise(config.hidden > 0 && config.layers > 0, "an accepted model has a size");
  });
}
