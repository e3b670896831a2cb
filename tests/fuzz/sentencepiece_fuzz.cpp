// Hostile SentencePiece models, and the tokenizer they make.
// seeds: tests/fuzz/seeds/sentencepiece
#include "fuzz.hpp"

#include <ptq/io/tokenizer/sentencepiece.hpp>

#include <string>
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return ptq::fuzz::reading([&] {
    const auto t =
        ptq::io::sentencepiece_from_proto(std::string(ptq::fuzz::text(data, size)), {}, ptq::io::DummyPrefix::first_part, "fuzz", {});
    const auto ids = t.encode("  It's 1984: \xc3\xa4 \xf0\x9f\x99\x82 <s>\n ab \xe3\x81\x82");
    for (const auto id : ids) ptq::fuzz::promise(id >= 0 && id < t.vocab_size(), "ids lie in the vocabulary");
    (void)t.decode(ids);
  });
}
