// Hostile text: as something to tokenize, as a text file, as JSON lines, as rows, as a specification of a text.
// seeds: tests/fuzz/seeds/text
#include "fuzz.hpp"

#include <ptq/io/corpus/overlap.hpp>
#include <ptq/io/corpus/text.hpp>
#include <ptq/io/corpus/text_file.hpp>
#include <ptq/io/corpus/text_spec.hpp>
#include <ptq/io/tokenizer/gguf_byte_level.hpp>
#include <ptq/io/tokenizer/sentencepiece.hpp>

#include <string>

namespace {

using ptq::io::GgufVocabulary;
using ptq::io::TokenType;

/// Bytes, a few merges, special tokens: every text can be encoded, and decodes to itself.
ptq::io::Tokenizer byte_level(const char* pre) {
  GgufVocabulary v{.origin = "fuzz", .model = "gpt2", .pre = pre};
  for (int b = 0; b < 256; ++b) v.tokens.push_back(ptq::io::bytes_to_characters(std::string(1, static_cast<char>(b))));
  v.tokens.insert(v.tokens.end(), {"aa", "aaaa", "he", "<s>", "<|x|>"});
  v.types.assign(v.tokens.size(), TokenType::normal);
  v.types.back() = v.types[v.types.size() - 2] = TokenType::control;
  v.merges = {"a a", "aa aa", "h e"};
  v.bos = 259;
  return ptq::io::byte_level_from_gguf(v);
}

ptq::io::Tokenizer pieces() {
  GgufVocabulary v{.origin = "fuzz", .model = "llama"};
  v.tokens = {"<unk>", "<s>", "</s>"};
  v.types = {TokenType::unknown, TokenType::control, TokenType::control};
  const std::string digits = "0123456789ABCDEF";
  for (std::size_t b = 0; b < 256; ++b) {
    v.tokens.push_back(std::string("<0x") + digits[b / 16] + digits[b % 16] + '>');
    v.types.push_back(TokenType::byte);
  }
  for (const char* token : {"\xE2\x96\x81", "a", "\xE2\x96\x81\xE2\x96\x81", "aa"})
    v.tokens.push_back(token), v.types.push_back(TokenType::normal);
  for (std::size_t i = 0; i < v.tokens.size(); ++i) v.scores.push_back(-static_cast<double>(i));
  v.bos = 1, v.eos = 2, v.unk = 0;
  return ptq::io::sentencepiece_from_gguf(v);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const ptq::io::Tokenizer tokenizers[] = {byte_level("gpt-2"), byte_level("llama-bpe"), pieces()};
  const std::string text(ptq::fuzz::text(data, size));
  ptq::fuzz::reading([&] {
    for (const auto& tokenizer : tokenizers) {
      const auto ids = tokenizer.encode(text, ptq::io::Special::none);
      for (const auto id : ids) ptq::fuzz::promise(id >= 0 && id < tokenizer.vocab_size(), "ids lie in the vocabulary");
      const std::string back = tokenizer.decode(ids);
      if (tokenizer.kind() == "byte-level BPE") ptq::fuzz::promise(back == text, "byte-level BPE loses nothing");
      ptq::fuzz::promise(ptq::io::first_invalid_utf8(back) == std::string::npos, "decoded text is UTF-8");
    }
  });
  ptq::fuzz::reading([&] { (void)ptq::io::parse_text_spec(text); });
  ptq::fuzz::promise(ptq::io::first_invalid_utf8(ptq::io::lossy_utf8(text)) == std::string::npos, "repaired text is UTF-8");
  ptq::fuzz::promise(ptq::io::universal_newlines(text).find('\r') == std::string::npos, "one kind of line end");
  ptq::io::Text lines{.name = "lines", .rows = ptq::io::rows::lines(text), .separator = "\n"};
  ptq::fuzz::promise(lines.joined() == text, "lines join to their text");
  ptq::io::Text wiki{.name = "rows", .rows = ptq::io::rows::wikitext_joined(text), .separator = "\n\n"};
  ptq::fuzz::promise(wiki.rows.empty() || wiki.joined() == text, "rows join to their text");
  (void)ptq::io::rows::stripped(text);
  (void)ptq::io::overlap(ptq::io::digested(lines), ptq::io::digested(wiki));
  return 0;
}
