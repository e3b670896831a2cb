// Hostile GGUF files: metadata, tensor descriptions, blocks of every decoder, and the tokenizer inside.
// seeds: tests/fuzz/seeds/gguf
#include "fuzz.hpp"

#include <vector>

#include <ptq/io/gguf.hpp>
#include <ptq/io/gguf_dequant.hpp>
#include <ptq/io/tokenizer/open.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return ptq::fuzz::reading([&] {
    const auto file = ptq::fuzz::bytes(data, size);
    const auto header = ptq::io::read_gguf_header(file, "fuzz");
    for (const auto& tensor : header.tensors) {
      ptq::fuzz::promise(tensor.offset <= size && tensor.bytes <= size - tensor.offset, "each tensor lies in the file");
      const auto* type = ptq::io::ggml_type(tensor.dtype);
      if (type == nullptr || tensor.bytes == 0) continue;
      const auto count = ptq::io::element_count(tensor.shape);
      ptq::fuzz::promise(count.has_value(), "an accepted tensor has a count");
      std::vector<float> values(*count);
      ptq::fuzz::reading([&] { ptq::io::dequantize(*type, file.subspan(tensor.offset, tensor.bytes), values); });
    }
    const auto tokenizer = ptq::io::open_gguf_tokenizer(header.metadata);
    const auto ids = tokenizer.encode("It's 1984: \xc3\xa4 \xf0\x9f\x99\x82  <s>\n");
    for (const auto id : ids) ptq::fuzz::promise(id >= 0 && id < tokenizer.vocab_size(), "ids lie in the vocabulary");
  });
}
