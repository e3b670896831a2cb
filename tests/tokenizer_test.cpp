// torch: no
// Tokenizers against ids that Hugging Face tokenizers, transformers and SentencePiece gave; hostile files.
#include <ptq/io/hdf5.hpp>
#include <ptq/io/json.hpp>
#include <ptq/io/tokenizer/open.hpp>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "bytes.hpp"
#include "catch.hpp"
#include "data.hpp"
#include "temporary_folder.hpp"

using Catch::Matchers::ContainsSubstring;
using ptq::io::json;
using ptq::io::open_tokenizer;
using ptq::io::Special;
using ptq::io::Tokenizer;
using ptq::io::TokenizerFile;
using ptq::test::error_of;
using ptq::test::write_file;
namespace fs = std::filesystem;

namespace {

using Ids = std::vector<std::int32_t>;

/// SHA-256 of ids as little-endian int32, the form of the reference files.
std::string digest_of(const Ids& ids) { return ptq::Sha256().update(std::as_bytes(std::span(ids))).hex(); }

std::string read_all(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Every awkward string of a reference file; those made with special tokens too, where it has them.
void check_strings(const ptq::io::Hdf5Reader& reference, const Tokenizer& tokenizer) {
  const auto strings = reference.groups("strings");
  REQUIRE(strings.size() >= 11);
  for (const std::string& name : strings) {
    const std::string place = "strings/" + name + "/";
    const auto bytes = reference.read<std::uint8_t>(place + "utf8");
    const std::string text(bytes.begin(), bytes.end());
    INFO(text);
    CHECK(tokenizer.encode(text, Special::none) == reference.read<std::int32_t>(place + "ids"));
    if (reference.exists(place + "ids_with_special")) {
      CHECK(tokenizer.encode(text, Special::default_) == reference.read<std::int32_t>(place + "ids_with_special"));
    }
  }
}

/// Counts, first ids and digests of whole texts; a text that is not at hand is named.
void check_texts(const ptq::io::Hdf5Reader& reference, const Tokenizer& tokenizer) {
  int checked = 0;
  for (const std::string& name : reference.groups("tokens")) {
    const auto path = ptq::test::text(name + ".txt");
    if (!path) {
      WARN("not checked: " << name << ".txt is not here (PTQ_TEXTS)");
      continue;
    }
    const Ids ids = tokenizer.encode(read_all(*path), Special::none);
    const auto count = reference.attribute<std::int64_t>("tokens/" + name, "count");
    const auto head = reference.read<std::int32_t>("tokens/" + name + "/head");
    INFO(name);
    REQUIRE(static_cast<std::int64_t>(ids.size()) == count);
    CHECK(Ids(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(head.size())) == head);
    CHECK(digest_of(ids) == reference.attribute<std::string>("tokens/" + name, "sha256_int32_le"));
    ++checked;
  }
  CHECK(checked >= 2);
}

void check_cases(const json& cases, const Tokenizer& tokenizer) {
  REQUIRE(cases.size() >= 10);
  for (const json& entry : cases) {
    const auto text = entry.at("text").get<std::string>();
    INFO(json(text).dump());
    const Ids ids = tokenizer.encode(text, Special::none);
    CHECK(ids == entry.at("ids").get<Ids>());
    CHECK(tokenizer.encode(text, Special::default_) == entry.at("with_special").get<Ids>());
    CHECK(tokenizer.decode(ids) == entry.at("decoded").get<std::string>());
  }
}

/// A folder with one tokenizer.json.
Tokenizer of_json(const json& document) { return ptq::io::tokenizer_json::build(document, "some.json"); }

fs::path models() { return ptq::test::data() / "models"; }
fs::path fixtures() { return ptq::test::data() / "tokenizers"; }

/// The smallest byte-level tokenizer: 256 bytes, "ab", "abc", <s>.
json small() {
  json vocabulary = json::object();
  for (int b = 0; b < 256; ++b) vocabulary[ptq::io::bytes_to_characters(std::string(1, static_cast<char>(b)))] = b;
  vocabulary["ab"] = 256;
  vocabulary["abc"] = 257;
  return {{"added_tokens", json::array({{{"id", 258}, {"content", "<s>"}, {"special", true}, {"normalized", false}}})},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", json::array({"a b", {"ab", "c"}})}}}};
}

std::string error_of_json(const json& document) {
  return error_of([&] { (void)of_json(document).encode("abc"); });
}

/// A GGUF vocabulary as plain data.
ptq::io::GgufVocabulary gguf_vocabulary(const std::string& model) {
  ptq::io::GgufVocabulary v;
  v.origin = "some.gguf";
  v.model = model;
  v.pre = "gpt-2";
  if (model == "gpt2") {
    for (int b = 0; b < 256; ++b) v.tokens.push_back(ptq::io::bytes_to_characters(std::string(1, static_cast<char>(b))));
    v.tokens.insert(v.tokens.end(), {"ab", "<s>"});
    v.merges = {"a b"};
  } else {
    v.tokens = {"<unk>", "<s>", "</s>", "\u2581", "a", "b", "\u2581a"};
    v.scores = {0, 0, 0, -2, -3, -4, -1};
  }
  v.types.assign(v.tokens.size(), ptq::io::TokenType::normal);
  if (model == "gpt2") {
    v.types.back() = ptq::io::TokenType::control;
    v.bos = 257;
  } else {
    v.types[0] = ptq::io::TokenType::unknown;
    v.types[1] = v.types[2] = ptq::io::TokenType::control;
    v.bos = 1, v.eos = 2, v.unk = 0;
  }
  return v;
}

}  // namespace

TEST_CASE("llama_books: tokenizer.json gives the ids of transformers") {
  const Tokenizer tokenizer = open_tokenizer(models() / "llama_books");
  const ptq::io::Hdf5Reader reference(models() / "llama_books_reference.h5");
  CHECK(tokenizer.kind() == "BPE");
  CHECK(tokenizer.vocab_size() == 4096);
  CHECK(tokenizer.bos() == 1);
  CHECK(tokenizer.eos() == 2);
  CHECK(tokenizer.unk() == 0);
  CHECK_THAT(tokenizer.description(), ContainsSubstring("tokenizer.model beside it is not used"));
  check_strings(reference, tokenizer);
  check_texts(reference, tokenizer);
}

TEST_CASE("opt_books: byte-level BPE with </s> in front") {
  const Tokenizer tokenizer = open_tokenizer(models() / "opt_books");
  const ptq::io::Hdf5Reader reference(models() / "opt_books_reference.h5");
  CHECK(tokenizer.kind() == "byte-level BPE");
  CHECK(tokenizer.bos() == 2);
  check_strings(reference, tokenizer);
  check_texts(reference, tokenizer);
}

TEST_CASE("SmolLM2: the vocabulary of a GGUF file gives the ids of transformers") {
  const auto path = ptq::test::smollm2();
  if (!path) SKIP_TEST("the SmolLM2 package is not here (./quickstart brings it)");
  const Tokenizer tokenizer = open_tokenizer(*path);
  const ptq::io::Hdf5Reader reference(models() / "smollm2_reference.h5");
  CHECK(tokenizer.vocab_size() == 49152);
  check_strings(reference, tokenizer);
  check_texts(reference, tokenizer);
}

TEST_CASE("A llama vocabulary in a GGUF file gives the ids of SentencePiece") {
  const Tokenizer tokenizer = open_tokenizer(models() / "gguf/llama_mixed_types.gguf");
  const ptq::io::Hdf5Reader reference(models() / "gguf/llama_mixed_types.reference.h5");
  CHECK(tokenizer.kind() == "SentencePiece");
  check_strings(reference, tokenizer);
  const Ids ids = tokenizer.encode(read_all(*ptq::test::text("books_test.txt")), Special::none);
  CHECK(static_cast<std::int64_t>(ids.size()) == reference.attribute<std::int64_t>("/", "token_count"));
  CHECK(digest_of(ids) == reference.attribute<std::string>("/", "sha256_int32_le"));
  CHECK(tokenizer.encode("a").front() == 1);
}

TEST_CASE("tokenizer.model beside tokenizer.json can be asked for, and differs where a text begins with a blank") {
  const Tokenizer fast = open_tokenizer(models() / "llama_books", TokenizerFile::tokenizer_json);
  const Tokenizer slow = open_tokenizer(models() / "llama_books", TokenizerFile::tokenizer_model);
  CHECK(slow.kind() == "SentencePiece");
  CHECK(slow.digest() != fast.digest());
  const ptq::io::Hdf5Reader reference(models() / "llama_books_reference.h5");
  const Ids ids = slow.encode(read_all(*ptq::test::text("wikitext2_test.txt")), Special::none);
  CHECK(digest_of(ids) == reference.attribute<std::string>("tokens/wikitext2_test", "sha256_int32_le"));
  const Ids blank = fast.encode(" a", Special::none);
  Ids twice = slow.encode(" a", Special::none);
  CHECK(twice.size() == blank.size() + 1);  // SentencePiece always adds its dummy blank
  CHECK(slow.encode("<s> a</s>", Special::none).front() == 1);
  CHECK(slow.encode("<s> a</s>", Special::none).back() == 2);
  CHECK(slow.encode("x").front() == 1);
}

TEST_CASE("The ids of every zoo model begin as the folder's tokenizer makes them, BOS once") {
  const std::string text = read_all(*ptq::test::text("books_test.txt"));
  const auto folders = ptq::test::zoo();
  REQUIRE(folders.size() >= 10);
  for (const auto& folder : folders) {
    INFO(folder.string());
    const auto expected = ptq::io::Hdf5Reader(folder / "reference.h5").read<std::int32_t>("ids");
    Ids ids = open_tokenizer(folder).encode(text);
    ids.resize(expected.size());
    CHECK(ids == expected);
  }
}

TEST_CASE("Llama-3 and Qwen2 styles agree with Hugging Face tokenizers on awkward strings") {
  for (const std::string name : {"llama3_style", "qwen2_style"}) {
    INFO(name);
    const Tokenizer tokenizer = of_json(ptq::io::read_json((fixtures() / (name + ".json")).string()));
    check_cases(ptq::io::read_json((fixtures() / (name + ".expected.json")).string()).at("cases"), tokenizer);
  }
}

TEST_CASE("Each supported step of tokenizer.json agrees with Hugging Face tokenizers") {
  const json variants = ptq::io::read_json((fixtures() / "variants.json").string()).at("variants");
  REQUIRE(variants.size() >= 15);
  for (const json& variant : variants) {
    INFO(variant.at("name").get<std::string>());
    const auto base = variant.at("base").get<std::string>();
    json document = ptq::io::read_json(((base.find('/') == base.npos ? fixtures() : models()) / base).string());
    for (const auto& [key, value] : variant.at("patch").items()) {
      if (key == "model") document[key].update(value);
      if (key != "model") document[key] = value;
    }
    check_cases(variant.at("cases"), of_json(document));
  }
}

TEST_CASE("Merges may be strings or pairs, and vocab.json with merges.txt says the same") {
  json document = ptq::io::read_json((fixtures() / "qwen2_style.json").string());
  const json cases = ptq::io::read_json((fixtures() / "qwen2_style.expected.json").string()).at("cases");
  json& merges = document["model"]["merges"];
  REQUIRE(merges[0].is_array());
  for (json& merge : merges) merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  check_cases(cases, of_json(document));

  const json opt = ptq::io::read_json((models() / "opt_books/tokenizer.json").string());
  TemporaryFolder folder("older_form");
  std::string lines = "#version: 0.2\n";
  for (const json& merge : opt["model"]["merges"]) lines += merge[0].get<std::string>() + " " + merge[1].get<std::string>() + "\r\n";
  write_file(folder / "merges.txt", lines);
  write_file(folder / "vocab.json", opt["model"]["vocab"].dump());
  write_file(folder / "tokenizer_config.json", R"({"add_bos_token": true, "bos_token": {"content": "</s>"}, "pad_token": "<pad>"})");
  check_strings(ptq::io::Hdf5Reader(models() / "opt_books_reference.h5"), open_tokenizer(folder.path));
}

TEST_CASE("tokenizer_config.json decides about BOS and EOS, and adds tokens") {
  TemporaryFolder folder("config");
  write_file(folder / "tokenizer.json", small().dump());
  CHECK(open_tokenizer(folder.path).encode("abc") == Ids{257});
  const std::string plain = open_tokenizer(folder.path).digest();
  write_file(folder / "tokenizer_config.json", R"({"bos_token": "<s>", "add_bos_token": true, "add_eos_token": false})");
  const Tokenizer with_bos = open_tokenizer(folder.path);
  CHECK(with_bos.encode("abc") == Ids{258, 257});
  CHECK(with_bos.encode("abc", Special::none) == Ids{257});
  CHECK(with_bos.bos() == 258);
  CHECK(with_bos.digest() != plain);
  write_file(
      folder / "tokenizer_config.json",
      R"({"eos_token": "<end>", "add_eos_token": true, "added_tokens_decoder": {"259": {"content": "<end>", "special": true, "normalized": false}}})");
  const Tokenizer with_eos = open_tokenizer(folder.path);
  CHECK(with_eos.encode("abc<end>a") == Ids{257, 259, 97, 259});
  CHECK(with_eos.vocab_size() == 260);
  CHECK(with_eos.decode(Ids{257, 259}) == "abc<end>");
  CHECK(with_eos.decode(Ids{257, 259}, Special::none) == "abc");
}

TEST_CASE("Decoding what was encoded gives the text back") {
  const Tokenizer bytes = open_tokenizer(models() / "opt_books");
  const Tokenizer pieces = open_tokenizer(models() / "gguf/llama_mixed_types.gguf");
  for (const std::string text : {"", "Hello  world\n", "na\u00efve \u65e5\u672c\u8a9e \U0001F469\u200D\U0001F467", "\t x\r\n", "a</s>b"}) {
    CHECK(bytes.decode(bytes.encode(text, Special::none)) == text);
    CHECK(pieces.decode(pieces.encode(text, Special::none)) == text);
  }
  CHECK_THAT(error_of([&] { (void)bytes.decode(Ids{4096}); }), ContainsSubstring("4096"));
  CHECK_THAT(error_of([&] { (void)pieces.decode(Ids{-1}); }), ContainsSubstring("-1"));
}

TEST_CASE("A lone byte of a character decodes to the replacement character") {
  const Tokenizer tokenizer = of_json(small());
  CHECK(tokenizer.decode(Ids{0xC3, 0xA9}) == "\u00e9");
  CHECK(tokenizer.decode(Ids{0xC3, 0x61}) ==
        "\uFFFD"
        "a");
}

TEST_CASE("Invalid UTF-8 is refused with its place") {
  const Tokenizer tokenizer = of_json(small());
  for (const std::string bad : {"ok\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x96"})
    CHECK_THAT(error_of([&] { (void)tokenizer.encode(bad); }), ContainsSubstring("is not UTF-8"));
  CHECK_THAT(error_of([&] { (void)tokenizer.encode("a\nb\xff"); }), ContainsSubstring("byte 3 (line 2)"));
}

TEST_CASE("A word as long as a text is merged in well under quadratic time") {
  json document = ptq::io::read_json((models() / "llama_books/tokenizer.json").string());
  const Tokenizer tokenizer = of_json(document);
  std::string text = read_all(*ptq::test::text("books_test.txt"));
  for (char& c : text)
    if (c == ' ') c = 'e';  // one word of 335,526 bytes
  const auto start = std::chrono::steady_clock::now();
  const Ids ids = tokenizer.encode(text, Special::none);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  CHECK(ids.size() > 100000);
  CHECK(seconds.count() < 20);  // a quadratic loop takes hours
  const Ids blanks = tokenizer.encode(std::string(1U << 20U, ' '), Special::none);
  CHECK(!blanks.empty());
}

TEST_CASE("Malformed tokenizer.json files are refused with the reason") {
  const auto changed = [](auto change) {
    json document = small();
    change(document);
    return error_of_json(document);
  };
  CHECK(changed([](json&) {}) == "no error");
  CHECK_THAT(changed([](json& d) { d["model"]["type"] = "Unigram"; }), ContainsSubstring("Unigram"));
  CHECK_THAT(changed([](json& d) { d["model"]["merges"].push_back("a b c"); }), ContainsSubstring("merge 2"));
  CHECK_THAT(changed([](json& d) { d["model"]["merges"].push_back({"a", "b", "c"}); }), ContainsSubstring("merge 2"));
  CHECK_THAT(changed([](json& d) {
               d["model"]["merges"].push_back({"b", "c"});
             }),
             ContainsSubstring("\"bc\", which is not in the vocabulary"));
  CHECK_THAT(changed([](json& d) { d["model"]["vocab"]["x"] = -1; }), ContainsSubstring("-1"));
  CHECK_THAT(changed([](json& d) { d["model"]["vocab"]["zz"] = 3; }), ContainsSubstring("share the id 3"));
  CHECK_THAT(changed([](json& d) { d["model"]["vocab"]["zz"] = 1.5; }), ContainsSubstring("1.5"));
  CHECK_THAT(changed([](json& d) { d["model"]["dropout"] = 0.1; }), ContainsSubstring("dropout"));
  CHECK_THAT(changed([](json& d) { d["model"]["unk_token"] = "<unk>"; }), ContainsSubstring("<unk>"));
  CHECK_THAT(changed([](json& d) { d["model"].erase("vocab"); }), ContainsSubstring("vocab"));
  CHECK_THAT(changed([](json& d) { d.erase("model"); }), ContainsSubstring("model"));
  CHECK_THAT(changed([](json& d) { d["normalizer"] = {{"type", "Lowercase"}}; }), ContainsSubstring("Lowercase"));
  CHECK_THAT(changed([](json& d) { d["pre_tokenizer"] = {{"type", "BertPreTokenizer"}}; }), ContainsSubstring("BertPreTokenizer"));
  CHECK_THAT(changed([](json& d) { d["decoder"] = {{"type", "WordPiece"}}; }), ContainsSubstring("WordPiece"));
  CHECK_THAT(changed([](json& d) { d["post_processor"] = {{"type", "Mystery"}}; }), ContainsSubstring("Mystery"));
  const auto pattern = [&](const std::string& regex) {
    return changed([&](json& d) {
      d["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
    });
  };
  CHECK(pattern(R"(\p{L}+|[^\s\p{L}]+|\s+)") == "no error");
  CHECK_THAT(pattern("(a"), ContainsSubstring("cannot be compiled"));
  CHECK_THAT(pattern("[a&&b]"), ContainsSubstring("&&"));
  CHECK_THAT(pattern(R"(\p{N}{1,3}+)"), ContainsSubstring("plus after a counted repeat"));
  CHECK_THAT(pattern("[a[b]]"), ContainsSubstring("nests"));
  CHECK_THAT(pattern("(a?){1000}{1000}"), ContainsSubstring("pattern"));
}

TEST_CASE("Folders and files that hold no tokenizer are refused by name") {
  TemporaryFolder folder("none");
  CHECK_THAT(error_of([&] { (void)open_tokenizer(folder.path); }), ContainsSubstring("tokenizer.json"));
  CHECK_THAT(error_of([&] { (void)open_tokenizer(folder / "absent.gguf"); }), ContainsSubstring("no such file"));
  write_file(folder / "tokenizer.json", "{\"model\": ");
  CHECK_THAT(error_of([&] { (void)open_tokenizer(folder.path); }), ContainsSubstring("not valid JSON"));
  write_file(folder / "tokenizer.json", R"({"model": {"type": "BPE", "type": "BPE"}})");
  CHECK_THAT(error_of([&] { (void)open_tokenizer(folder.path); }), ContainsSubstring("twice"));
  fs::remove(folder / "tokenizer.json");
  write_file(folder / "tokenizer.model", "not a model");
  CHECK_THAT(error_of([&] { (void)open_tokenizer(folder.path); }), ContainsSubstring("not a SentencePiece model"));
  write_file(folder / "tokenizer.model", read_all(models() / "llama_books/tokenizer.model").substr(0, 30000));
  CHECK_THAT(error_of([&] { (void)open_tokenizer(folder.path); }), ContainsSubstring("not a SentencePiece model"));
}

TEST_CASE("A SentencePiece model whose character map leads outside is refused before the library walks it") {
  // One unit, the root: its children would lie at offset ^ label, beyond the array; then a map whose size is a lie.
  const auto model = [](const std::string& map) {
    ptq::io::detail::ProtoWriter normalizer, proto;
    normalizer.text(1, "nmt_nfkc");
    normalizer.text(2, map);
    proto.bytes = ptq::io::sentencepiece_proto(gguf_vocabulary("llama"));
    proto.text(3, normalizer.bytes);
    return error_of(
        [&] { (void)ptq::io::sentencepiece_from_proto(proto.bytes, {}, ptq::io::DummyPrefix::every_part, "m.model", {}).encode("abc"); });
  };
  ptq::test::Bytes leaves, lies, whole;
  leaves.add<std::uint32_t>(4).add<std::uint32_t>(1U << 20U).raw(std::string("x\0", 2));
  lies.add<std::uint32_t>(4000).add<std::uint32_t>(0).raw(std::string("x\0", 2));
  CHECK_THAT(model(leaves.data), ContainsSubstring("a branch leaves it"));
  CHECK_THAT(model(lies.data), ContainsSubstring("its size"));
  // A sound map of one entry, "a" to "b": the root's children from unit 256 on; "a" at 256 ^ 'a', its value at 512.
  std::vector<std::uint32_t> units(768, 0x80000000U);
  units[0] = 256U << 10U;
  units[256U ^ 'a'] = ((256U ^ 'a') ^ 512U) << 10U | 1U << 8U | 'a';
  units[512] = 0x80000000U;
  whole.add<std::uint32_t>(768 * 4);
  for (const std::uint32_t unit : units) whole.add(unit);
  whole.raw(std::string("b\0", 2));
  CHECK(model(whole.data) == "no error");
  units[512] = 0x80000002U;  // points behind the strings
  ptq::test::Bytes beyond;
  beyond.add<std::uint32_t>(768 * 4);
  for (const std::uint32_t unit : units) beyond.add(unit);
  CHECK_THAT(model(beyond.raw(std::string("b\0", 2)).data), ContainsSubstring("a value leaves it"));
}

TEST_CASE("A small GGUF vocabulary of either kind works, and its faults are named") {
  using ptq::io::byte_level_from_gguf;
  using ptq::io::sentencepiece_from_gguf;
  CHECK(byte_level_from_gguf(gguf_vocabulary("gpt2")).encode("ab<s>b") == Ids{256, 257, 98});
  CHECK(sentencepiece_from_gguf(gguf_vocabulary("llama")).encode("a b</s>") == Ids{1, 6, 3, 5, 2});

  auto v = gguf_vocabulary("gpt2");
  v.add_bos = true;
  CHECK(byte_level_from_gguf(v).encode("ab") == Ids{257, 256});
  v.bos.reset();
  CHECK_THAT(error_of([&] { (void)byte_level_from_gguf(v); }), ContainsSubstring("BOS"));
  v = gguf_vocabulary("gpt2");
  v.pre = "tekken";
  CHECK_THAT(error_of([&] { (void)byte_level_from_gguf(v); }), ContainsSubstring("tekken"));
  v = gguf_vocabulary("gpt2");
  v.merges = {"ab"};
  CHECK_THAT(error_of([&] { (void)byte_level_from_gguf(v); }), ContainsSubstring("merge 0"));
  v.merges = {"a c"};
  CHECK_THAT(error_of([&] { (void)byte_level_from_gguf(v); }), ContainsSubstring("\"ac\""));
  v = gguf_vocabulary("gpt2");
  v.tokens[1] = v.tokens[0];
  CHECK_THAT(error_of([&] { (void)byte_level_from_gguf(v); }), ContainsSubstring("twice"));

  v = gguf_vocabulary("llama");
  v.add_space_prefix = false;
  CHECK(sentencepiece_from_gguf(v).encode("a", Special::none) == Ids{4});
  v.scores.clear();
  CHECK_THAT(error_of([&] { (void)sentencepiece_from_gguf(v); }), ContainsSubstring("scores"));
  v = gguf_vocabulary("llama");
  v.tokens[5] = "a";
  CHECK_THAT(error_of([&] { (void)sentencepiece_from_gguf(v); }), ContainsSubstring("SentencePiece"));
  v = gguf_vocabulary("llama");
  v.types[4] = ptq::io::TokenType::byte;
  CHECK_THAT(error_of([&] { (void)sentencepiece_from_gguf(v); }), ContainsSubstring("SentencePiece"));

  ptq::io::GgufMetadata metadata("other.gguf");
  metadata.add("tokenizer.ggml.model", std::string("bert"));
  metadata.add("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b"});
  CHECK_THAT(error_of([&] { (void)ptq::io::open_gguf_tokenizer(metadata); }), ContainsSubstring("bert"));
  metadata.add("tokenizer.ggml.token_type", std::vector<std::int64_t>{1});
  CHECK_THAT(error_of([&] { (void)ptq::io::open_gguf_tokenizer(metadata); }), ContainsSubstring("1 entries for 2 tokens"));
}

TEST_CASE("The patterns that GGUF files name agree with the styles they stand for") {
  using ptq::io::byte_level_document;
  auto v = gguf_vocabulary("gpt2");
  v.pre = "llama-bpe";
  const json llama = byte_level_document(v);
  const json style = ptq::io::read_json((fixtures() / "llama3_style.json").string());
  CHECK(llama["pre_tokenizer"]["pretokenizers"][0]["pattern"] == style["pre_tokenizer"]["pretokenizers"][0]["pattern"]);
  CHECK(llama["model"]["ignore_merges"] == style["model"]["ignore_merges"]);
  v.pre = "qwen2";
  const json qwen = byte_level_document(v);
  const json other = ptq::io::read_json((fixtures() / "qwen2_style.json").string());
  CHECK(qwen["pre_tokenizer"]["pretokenizers"][0]["pattern"] == other["pre_tokenizer"]["pretokenizers"][0]["pattern"]);
  CHECK(qwen["normalizer"] == other["normalizer"]);
}
