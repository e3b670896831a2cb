// torch: no
// Texts, crops and windows against Python: random, hashlib and Hugging Face tokenizers gave the constants here.
#include <ptq/io/corpus/named_texts.hpp>
#include <ptq/io/corpus/overlap.hpp>
#include <ptq/io/corpus/python_random.hpp>
#include <ptq/io/corpus/sampling.hpp>
#include <ptq/io/corpus/text_spec.hpp>
#include <ptq/io/corpus/windows.hpp>
#include <ptq/io/json.hpp>
#include <ptq/io/tokenizer/open.hpp>

#include <zlib.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "bytes.hpp"
#include "catch.hpp"
#include "data.hpp"
#include "temporary_folder.hpp"

using Catch::Matchers::ContainsSubstring;
using ptq::io::cut_windows;
using ptq::io::load_text;
using ptq::io::parse_text_spec;
using ptq::io::Protocol;
using ptq::io::PythonRandom;
using ptq::io::sample_tokens;
using ptq::io::Sampling;
using ptq::io::Special;
using ptq::io::Text;
using ptq::io::TextForm;
using ptq::io::TextRole;
using ptq::test::error_of;
using ptq::test::write_file;
namespace fs = std::filesystem;

namespace {

using Offsets = std::vector<std::int64_t>;

std::vector<fs::path> folders() { return {ptq::test::data() / "texts"}; }
Text shipped(const std::string& name, TextRole role = TextRole::evaluation) { return load_text(name, role, folders()); }

/// llama_books, BOS 1 before each text.
const ptq::io::Tokenizer& tokenizer() {
  static const ptq::io::Tokenizer opened = ptq::io::open_tokenizer(ptq::test::data() / "models/llama_books");
  return opened;
}

std::string digest_of(std::span<const std::int32_t> ids) { return ptq::Sha256().update(std::as_bytes(ids)).hex(); }
std::string digest_of(const ptq::io::TokenRows& rows) { return digest_of(rows.ids); }

/// The paragraphs of Frankenstein as documents.
std::vector<std::string> paragraphs() {
  std::vector<std::string> documents;
  for (const std::string& row : shipped("books_valid").rows)
    if (!row.empty()) documents.push_back(row);
  return documents;
}

Text documents(std::vector<std::string> rows) {
  return ptq::io::digested({.name = "documents", .rows = std::move(rows), .separator = " ", .documents = true});
}

/// All of them, and the first 500 again.
std::vector<std::string> more_paragraphs() {
  std::vector<std::string> all = paragraphs();
  const std::vector<std::string> again(all.begin(), all.begin() + 500);
  all.insert(all.end(), again.begin(), again.end());
  return all;
}

std::string json_lines(const std::vector<std::string>& rows) {
  std::string lines;
  for (const std::string& row : rows) lines += ptq::io::json{{"url", "x"}, {"text", row}}.dump() + "\n";
  return lines;
}

void write_gzip(const fs::path& path, const std::string& data) {
  gzFile file = gzopen(path.c_str(), "wb");
  REQUIRE(gzwrite(file, data.data(), static_cast<unsigned>(data.size())) == static_cast<int>(data.size()));
  gzclose(file);
}

Text plain(std::string text) { return ptq::io::digested({.name = "plain", .rows = ptq::io::rows::lines(text), .separator = "\n"}); }

}  // namespace

TEST_CASE("Draws are those of Python's random module") {
  struct Draws {
    std::uint64_t seed;
    std::uint64_t words[2];
    std::int64_t numbers[3];
    std::uint64_t wide, narrow[3];
  };
  const Draws expected[] = {
      {0, {3626764237U, 1654615998U}, {978212965543, 44756014160, 534771852893}, 16938433693753131896U, {1, 3564191072U, 528142679431U}},
      {1, {577090037U, 2444712010U}, {884107995866, 71999863743, 129944532023}, 14037279428536751483U, {0, 6323245153U, 864918861462U}},
      {2, {4106135923U, 3707026329U}, {936078791286, 99027134106, 395501513688}, 3119042104763040036U, {1, 7769432831U, 338674639848U}},
      {4294967301U,
       {675479763U, 2085189291U},
       {976170847024, 917424144344, 386609434364},
       3160281327580079605U,
       {1, 8386065404U, 729395789815U}},
      {12345678901U,
       {4063089813U, 2562312935U},
       {954891488782, 388195424297, 775407549960},
       14140400492166584222U,
       {0, 8457979030U, 373325514562U}},
  };
  for (const Draws& e : expected) {
    PythonRandom random(e.seed);
    for (const auto word : e.words) CHECK(random.getrandbits(32) == word);
    for (const auto number : e.numbers) CHECK(random.randint(-5, 1000000000000) == number);
    CHECK(random.getrandbits(64) == e.wide);
    CHECK(random.getrandbits(1) == e.narrow[0]);
    CHECK(random.getrandbits(33) == e.narrow[1]);
    CHECK(random.getrandbits(40) == e.narrow[2]);
  }
  PythonRandom documents_of_c4(0), small(0);
  for (const std::uint64_t draw : {201979, 220500, 21225, 135746, 268055, 254766}) CHECK(documents_of_c4.below(356317) == draw);
  for (const std::uint64_t draw : {6, 6, 0, 4, 8, 7, 6, 4, 7, 5}) CHECK(small.below(10) == draw);
  CHECK_THAT(error_of([&] { (void)small.randint(0, -1); }), ContainsSubstring("empty"));
}

TEST_CASE("Text specifications are parsed strictly") {
  CHECK(parse_text_spec("wikitext2").source == "wikitext2");
  CHECK(!parse_text_spec("wikitext2").count);
  const auto spec = parse_text_spec("books_valid:16x512");
  CHECK(spec.source == "books_valid");
  CHECK(spec.count == 16);
  CHECK(spec.length == 512);
  CHECK(parse_text_spec("a:b/c.txt").source == "a:b/c.txt");
  CHECK(parse_text_spec("a:b/c.txt:2x3").source == "a:b/c.txt");
  for (const std::string bad : {"", ":8x512", "a:", "a:8", "a:x512", "a:8x", "a:0x512", "a:8x1", "a:-1x512", "a:8x512x2", "a:8X512",
                                "a:99999999999x512", "a: 8x512", "a:+8x512", "a:8x512 "})
    CHECK_THAT(error_of([&] { (void)parse_text_spec(bad); }), ContainsSubstring("text"));
}

TEST_CASE("WikiText-2 is the text of the papers, from the joined and from the raw form") {
  const Text test = shipped("wikitext2");
  CHECK(test.rows.size() == 4358);
  CHECK(test.joined().size() == 1296370);
  CHECK(test.digest == "696cca6b65a171b0a358a4be6732cdfdf2dd6164a32e20fd70e3c13fc4dfae83");
  CHECK(std::count(test.rows.begin(), test.rows.end(), "") == 1467);
  CHECK(test.joined().starts_with("\n\n = Robert Boulter = \n\n\n\n\n Robert Boulter is"));
  const Text valid = shipped("wikitext2_valid", TextRole::calibration);
  CHECK(valid.rows.size() == 3760);
  CHECK(valid.digest == "005655d5f0af5b072831f3a97361c7e5f6974ab000dfdd541fa10c6e8c12d28f");

  TemporaryFolder folder("wikitext");  // the raw test file, with Windows line ends and a byte order mark
  std::string raw = "\xEF\xBB\xBF";
  for (const std::string& row : test.rows) raw += row.empty() ? " \r\n" : row.substr(0, row.size() - 1) + "\r\n";
  CHECK(raw.size() == 1290590 + 4358 + 3);
  write_file(folder / "wiki.test.raw", raw);
  CHECK(load_text("wikitext2", TextRole::evaluation, {folder.path}).digest == test.digest);
  write_file(folder / "wikitext2_test.txt", "another text\n");
  CHECK_THAT(error_of([&] { (void)load_text("wikitext2", TextRole::evaluation, {folder.path}); }),
             ContainsSubstring("not the text named wikitext2"));
}

TEST_CASE("Penn Treebank sentences are stripped and joined by a blank or by blank lines") {
  const auto path = ptq::test::text("ptb_test.txt");
  if (!path) SKIP_TEST("ptb_test.txt is not here (PTQ_TEXTS)");
  const Text test = load_text("ptb-new", TextRole::evaluation, {path->parent_path()});
  CHECK(test.rows.size() == 3761);
  CHECK(test.joined().size() == 442422);
  CHECK(test.digest == "900cfc61a7a63afcd086c5e1cce90554764eae65cb2ca9f5d4cac47be5f0f394");
  const Text other = ptq::io::read_text_file(*path, TextForm::sentences_by_blank_lines, "ptb of test");
  CHECK(other.joined().size() == 446182);
  CHECK(other.digest == "6d901ee536372c8b88eaa1c749960b867abf16e6e2ec5741facf9c73c83fa09c");
}

TEST_CASE("A name whose file is absent says what to put where") {
  CHECK_THAT(error_of([&] { (void)shipped("ptb"); }), ContainsSubstring("ptb_valid.txt") && ContainsSubstring("PTQ_TEXTS"));
  CHECK_THAT(error_of([&] { (void)shipped("c4", TextRole::calibration); }), ContainsSubstring("c4-train.00000-of-01024.json.gz"));
  CHECK_THAT(error_of([&] { (void)shipped("wikitext2", TextRole::calibration); }), ContainsSubstring("wikitext2_train.txt"));
  CHECK_THAT(error_of([&] { (void)shipped("no_such_text"); }), ContainsSubstring("neither a file nor a known text"));
}

TEST_CASE("Files: line ends, marks, damage, emptiness") {
  TemporaryFolder folder("texts");
  const auto read = [&](const std::string& bytes) { return ptq::io::read_text(write_file(folder / "t.txt", bytes)); };
  CHECK(read("\xEF\xBB\xBF"
             "a\r\nb\rc\n\r\n") == "a\nb\nc\n\n");
  CHECK(plain("a\n\nb\n").joined() == "a\n\nb\n");
  CHECK_THAT(error_of([&] { (void)read("a\nb\xe9t\xe9"); }), ContainsSubstring("byte 3 (line 2) is not UTF-8"));
  CHECK_THAT(error_of([&] { (void)read(""); }), ContainsSubstring("empty"));
  CHECK_THAT(error_of([&] { (void)read(" \n\n"); }), ContainsSubstring("empty"));
  CHECK_THAT(error_of([&] { (void)ptq::io::read_text(folder / "absent.txt"); }), ContainsSubstring("no such file"));

  const std::vector<std::string> rows{"first \u00e9", "second\nline", ""};
  write_file(folder / "d.jsonl", json_lines(rows) + "\n");
  write_gzip(folder / "d.json.gz", json_lines(rows));
  for (const char* name : {"d.jsonl", "d.json.gz"}) {
    const Text text = load_text((folder / name).string(), TextRole::evaluation, {});
    CHECK(text.documents);
    CHECK(text.rows == rows);
  }
  std::string packed = contents(folder / "d.json.gz");
  write_file(folder / "cut.json.gz", packed.substr(0, packed.size() - 6));
  CHECK_THAT(error_of([&] { (void)ptq::io::read_json_lines(folder / "cut.json.gz"); }), ContainsSubstring("cut.json.gz"));
  write_file(folder / "bad.json", "{\"text\": \"a\"}\n{\"text\": 3}\n");
  CHECK_THAT(error_of([&] { (void)ptq::io::read_json_lines(folder / "bad.json"); }), ContainsSubstring("line 2"));
  write_file(folder / "bad.json", "{\"text\": \"a\"}\n[]\n");
  CHECK_THAT(error_of([&] { (void)ptq::io::read_json_lines(folder / "bad.json"); }), ContainsSubstring("line 2"));
  write_file(folder / "bad.json", "\n\n");
  CHECK_THAT(error_of([&] { (void)ptq::io::read_json_lines(folder / "bad.json"); }), ContainsSubstring("no documents"));
}

TEST_CASE("c4 and c4-new: whole documents, or the first 1100 as one text") {
  TemporaryFolder folder("c4");
  const std::vector<std::string> rows = more_paragraphs();
  write_gzip(folder / "c4-validation.00000-of-00008.json.gz", json_lines(rows));
  const Text all = load_text("c4", TextRole::evaluation, {folder.path});
  CHECK(all.documents);
  CHECK(all.rows == rows);
  const Text joined = load_text("c4-new", TextRole::evaluation, {folder.path});
  CHECK(!joined.documents);
  CHECK(joined.rows.size() == 1100);
  CHECK(joined.remark == "the first 1100 of 1319 documents");
  CHECK(joined.joined(0, 2) == rows[0] + " " + rows[1]);
  CHECK(cut_windows(joined, tokenizer(), Protocol::gptq, 64).rows.count() == 256);
  CHECK(cut_windows(all, tokenizer(), Protocol::gptq, 64).rows.count() == 256);
  CHECK_THAT(error_of([&] { (void)cut_windows(all, tokenizer(), Protocol::tail, 64); }), ContainsSubstring("needs one text"));
}

TEST_CASE("gptq crops of a text equal Python's") {
  const Text text = shipped("books_valid", TextRole::calibration);
  const auto zero = sample_tokens(text, tokenizer(), Sampling::gptq, 16, 512, 0);
  CHECK(zero.offsets ==
        Offsets{110680, 50494, 99346, 116686, 55125, 5306, 33936, 67013, 63691, 53075, 102734, 108770, 39755, 62468, 46930, 76465});
  CHECK(digest_of(zero.rows) == "385bc0d31b88bb204058aff12d586a01e3c9a80d57b2cbf4c130321c80482ec8");
  CHECK(zero.rows.count() == 16);
  CHECK(zero.rows.row(15).size() == 512);
  CHECK(zero.bos == "once");
  const auto plan = ptq::io::sampling_plan("lrquant");
  CHECK(plan.count == 128);
  const auto two = sample_tokens(text, tokenizer(), plan.scheme, 8, plan.length, plan.seed);
  CHECK(two.offsets == Offsets{113129, 111287, 7412, 12004, 11124, 47324, 109510, 22162});
  CHECK(digest_of(two.rows) == "926ab1fbc49f5998ef7cae5a010b3ecee5a6abc5c26c8fd5a585e5dcf158b20a");
  CHECK(two.digest() != zero.digest());
  CHECK(sample_tokens(text, tokenizer(), Sampling::gptq, 16, 512, 0).digest() == zero.digest());
  CHECK_THAT(error_of([&] { (void)sample_tokens(text, tokenizer(), Sampling::gptq, 1, 117827, 0); }),
             ContainsSubstring("117827 tokens") && ContainsSubstring("117828"));
  CHECK(sample_tokens(text, tokenizer(), Sampling::gptq, 2, 117826, 0).offsets == Offsets{0, 0});
  CHECK_THAT(error_of([&] { (void)ptq::io::sampling_plan("awq"); }), ContainsSubstring("awq"));
}

TEST_CASE("gptq crops of documents equal Python's, and too short documents end in an error") {
  const auto sample = sample_tokens(documents(paragraphs()), tokenizer(), Sampling::gptq, 12, 128, 0);
  CHECK(sample.documents == Offsets{394, 430, 523, 414, 366, 143, 633, 545, 150, 747, 700, 483});
  CHECK(sample.offsets == Offsets{12, 2, 124, 77, 4, 12, 2, 38, 19, 18, 21, 143});
  CHECK(digest_of(sample.rows) == "511f409d082f7ce1a3994d9dd730192ab2589228433f65ed483290faf36b3d47");
  CHECK_THAT(error_of([&] {
               (void)sample_tokens(documents({"a", "b", "one two three"}), tokenizer(), Sampling::gptq, 1, 64, 0);
             }),
             ContainsSubstring("longest of its 3 documents"));
}

TEST_CASE("FlexRound's and LQER's blocks equal the same steps in Python") {
  std::vector<std::string> rows = paragraphs();
  CHECK(rows.size() == 819);
  const auto lqer = sample_tokens(documents(rows), tokenizer(), Sampling::lqer, 40, 256, 0);
  CHECK(digest_of(lqer.rows) == "fcd9474bcf16d64413cafaaa87350838890d532594af615fcc68f647a67a3ef8");
  CHECK_THAT(error_of([&] { (void)sample_tokens(documents(rows), tokenizer(), Sampling::lqer, 461, 256, 0); }),
             ContainsSubstring("gives 460"));

  rows = more_paragraphs();
  const auto flexround = sample_tokens(documents(rows), tokenizer(), Sampling::flexround, 300, 256, 0);
  CHECK(digest_of(flexround.rows) == "df8d9053f4e445585bb5e55d82c7159c27c60db9527c173567a7e4329b35ca3f");
  const auto all = sample_tokens(documents(rows), tokenizer(), Sampling::flexround, 746, 256, 0);  // crosses a batch of 1000 documents
  CHECK(digest_of(all.rows) == "326cf0b476a9f255576f4b1e6fab4e36c53d6825364afd0ab1b5707005eade7a");

  rows = paragraphs();
  std::vector<std::string> many;  // 9001 short documents: shards of more than one batch
  for (std::size_t i = 0; i < 9001; ++i) many.push_back(rows[i % 819].substr(0, 60));
  const auto batches = sample_tokens(documents(many), tokenizer(), Sampling::lqer, 2562, 64, 0);
  CHECK(digest_of(batches.rows) == "3b8032790e2d94729b52e2a96f37de17005145353e6ef9be909f7f62ced830ff");
}

TEST_CASE("Windows: tails dropped or kept, shards, counts, texts too short") {
  const Text text = shipped("books_test");
  const auto whole = cut_windows(text, tokenizer(), Protocol::gptq, 256);
  CHECK(whole.stream_tokens == 95060);
  CHECK(whole.rows.count() == 371);
  CHECK(whole.rows.even());
  CHECK(whole.bos == "once");
  CHECK(whole.rows.row(0)[0] == 1);
  const auto first = cut_windows(text, tokenizer(), Protocol::gptq, 256, 64, Special::none);
  CHECK(first.rows.count() == 64);
  CHECK(first.stream_tokens == 95059);
  CHECK(first.bos == "none");
  CHECK(std::equal(first.rows.ids.begin(), first.rows.ids.end() - 1, whole.rows.ids.begin() + 1));
  const auto tail = cut_windows(text, tokenizer(), Protocol::tail, 256);
  CHECK(tail.rows.count() == 372);
  CHECK(tail.rows.row(371).size() == 84);
  CHECK(!tail.rows.even());
  const auto shards = cut_windows(shipped("wikitext2"), tokenizer(), Protocol::lqer_shards, 2048);
  CHECK(shards.rows.count() == 227);
  CHECK(digest_of(shards.rows) == "10a74c174e93f6c149ebfa2a9102ee8885d2e88a869ab37c6e160f6600e91af8");
  CHECK(cut_windows(shipped("wikitext2"), tokenizer(), Protocol::gptq, 2048).rows.count() == 231);

  CHECK(cut_windows(plain("Hello"), tokenizer(), Protocol::tail, 256).rows.count() == 1);
  CHECK_THAT(error_of([&] { (void)cut_windows(plain("Hello"), tokenizer(), Protocol::gptq, 256); }), ContainsSubstring("too short"));
  CHECK_THAT(error_of([&] { (void)cut_windows(text, tokenizer(), Protocol::gptq, 256, 372); }), ContainsSubstring("has 371 windows"));
  CHECK_THAT(error_of([&] { (void)cut_windows(text, tokenizer(), Protocol::gptq, 1); }), ContainsSubstring("predict"));
  for (const auto protocol : {Protocol::gptq, Protocol::tail, Protocol::lqer_shards})
    CHECK(ptq::io::protocol_of(ptq::io::name_of(protocol)) == protocol);
  CHECK_THAT(error_of([&] { (void)ptq::io::protocol_of("lqer_shards"); }), ContainsSubstring("lqer-shards"));
}

TEST_CASE("A doubled BOS is refused") {
  CHECK_THAT(error_of([&] { (void)cut_windows(plain("<s>Hello, hello, hello"), tokenizer(), Protocol::tail, 8); }),
             ContainsSubstring("two BOS"));
  CHECK(cut_windows(plain("<s>Hello, hello, hello"), tokenizer(), Protocol::tail, 8, 0, Special::none).bos == "once");
  CHECK(cut_windows(plain("Hello, hello, hello"), tokenizer(), Protocol::tail, 8, 0, Special::none).bos == "none");
}

TEST_CASE("Texts that share content are found, others are not") {
  const Text valid = shipped("books_valid", TextRole::calibration), test = shipped("books_test");
  CHECK(!ptq::io::overlap(valid, test));
  CHECK(!ptq::io::overlap(valid, shipped("wikitext2")));
  CHECK(!ptq::io::overlap(shipped("wikitext2_valid", TextRole::calibration), shipped("wikitext2")));
  CHECK_THAT(ptq::io::overlap(valid, shipped("books_valid")).value_or(""), ContainsSubstring("same text"));
  TemporaryFolder folder("overlap");
  const auto file = [&](const std::string& content) {
    return load_text(write_file(folder / "t.txt", content).string(), TextRole::evaluation, {});
  };
  std::string part = test.joined().substr(50000, 100000);
  CHECK_THAT(ptq::io::overlap(file(part), test).value_or(""), ContainsSubstring("share"));
  CHECK_THAT(ptq::io::overlap(test, file(part)).value_or(""), ContainsSubstring("share"));
  std::string windows_ends;
  for (const char c : test.joined()) windows_ends += c == '\n' ? std::string(" \r\n") : std::string(1, c);
  CHECK(ptq::io::overlap(test, file(windows_ends)));
  CHECK_THAT(ptq::io::overlap(test, file(test.joined().substr(1010, 60))).value_or(""), ContainsSubstring("contains"));
  CHECK(!ptq::io::overlap(valid, file(test.joined() + valid.joined().substr(0, 3000))));  // a small part of many lines
}
