// Hostile tokenizer.json files, and the tokenizer they make.
// seeds: tests/fuzz/seeds/tokenizer
#include "fuzz.hpp"

#include <ptq/io/json.hpp>
#include <ptq/io/tokenizer/tokenizer_json.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return ptq::fuzz::reading([&] {
    const auto tokenizer = ptq::io::tokenizer_json::build(ptq::io::parse_json(ptq::fuzz::text(data, size), "fuzz"), "fuzz");
    const auto ids = tokenizer.encode("  It's 1984: \xc3\xa4 \xf0\x9f\x99\x82 <s>\n");
    for (const auto id : ids) ptq::fuzz::promise(id >= 0 && id < tokenizer.vocab_size(), "ids lie in the vocabulary");
    (void)tokenizer.decode(ids);
  });
}
