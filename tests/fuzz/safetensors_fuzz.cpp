// Hostile safetensors files: offsets, shapes, header lengths.
// seeds: tests/fuzz/seeds/safetensors
#include "fuzz.hpp"

#include <ptq/io/safetensors.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return ptq::fuzz::reading([&] {
    std::uint64_t covered = 0;
    for (const auto& tensor : ptq::io::read_safetensors_header(ptq::fuzz::bytes(data, size), "fuzz").tensors) {
      ptq::fuzz::promise(tensor.offset <= size && tensor.bytes <= size - tensor.offset, "each tensor lies in the file");
      covered += tensor.bytes;
    }
    ptq::fuzz::promise(covered <= size, "tensors do not overlap");
  });
}
