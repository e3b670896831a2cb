// torch: no
// GGUF: worked examples of the block formats, element-wise counterparts of the decoders, metadata, hostile files.
#include <ptq/io/gguf.hpp>
#include <ptq/io/gguf_dequant.hpp>

#include <array>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bytes.hpp"
#include "catch.hpp"
#include "data.hpp"
#include "temporary_folder.hpp"

using Catch::Matchers::ContainsSubstring;
using ptq::test::as_bytes;
using ptq::test::Bytes;
using ptq::test::error_of;
using ptq::test::Gguf;

namespace {

std::vector<float> decoded(const char* type, const std::string& blocks) {
  const auto* found = ptq::io::ggml_type(std::string_view(type));
  std::vector<float> out(blocks.size() / found->bytes * found->elements);
  ptq::io::dequantize(*found, as_bytes(blocks), out);
  return out;
}

std::string random_bytes(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random() & 0xffu);
  return bytes;
}

std::string header_error(const std::string& file) {
  return error_of([&] { (void)ptq::io::read_gguf_header(as_bytes(file), "some.gguf"); });
}

ptq::io::GgufHeader header_of(const std::string& file) { return ptq::io::read_gguf_header(as_bytes(file), "some.gguf"); }

/// Bit `i` of a byte string.
unsigned bit(const std::string& bytes, std::size_t i) { return static_cast<unsigned char>(bytes[i / 8]) >> (i % 8) & 1u; }

/// `width` bits from bit `first` on.
unsigned bits(const std::string& bytes, std::size_t first, std::size_t width) {
  unsigned value = 0;
  for (std::size_t i = 0; i < width; ++i) value |= bit(bytes, first + i) << i;
  return value;
}

const std::string half_one("\x00\x3c", 2), half_two("\x00\x40", 2), half_quarter("\x00\x34", 2);

Gguf small() {
  Gguf file;
  file.text("general.architecture", "llama").integer("answer", 42);
  file.tensor("first", {2, 3}, 0, std::string(24, '\0'));
  file.tensor("second", {32, 2}, 8, std::string(68, '\0'));
  return file;
}

}  // namespace

TEST_CASE("Q4_0 decodes the worked example") {
  const std::string block = std::string("\x00\x38", 2) + "\x80\x91\x91\xa2\xa2\xb3\xb3\xc4\xc4\xd5\xd5\xe6\xe6\xf7\xf7\xf8";
  const auto values = decoded("Q4_0", block);
  const int codes[] = {0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15, 15};
  for (std::size_t i = 0; i < 32; ++i) CHECK(values[i] == 0.5f * static_cast<float>(codes[i] - 8));
}

TEST_CASE("Q8_0 decodes the worked example") {
  const auto values = decoded("Q8_0", std::string("\x08\x28\x81\x89\x91", 5) + std::string(29, '\x01'));
  const float d = 0.031494140625f;  // 4 / 127 in binary16
  CHECK(values[0] == -127 * d);
  CHECK(values[1] == -119 * d);
  CHECK(values[2] == -111 * d);
  CHECK(values[31] == d);
}

TEST_CASE("the six-bit scales and minima of the K formats follow the worked example") {
  const std::string bytes("\x81\x42\xc3\xff\x45\x80\x89\xff\x01\xf1\x00\xde", 12);
  const float scales[] = {1, 2, 3, 63, 33, 17, 48, 62}, minima[] = {5, 0, 9, 63, 16, 47, 32, 61};
  for (std::size_t j = 0; j < 8; ++j) {
    const auto [scale, min] = ptq::io::detail::scale_min(reinterpret_cast<const std::byte*>(bytes.data()), j);
    CHECK(scale == scales[j]);
    CHECK(min == minima[j]);
  }
}

TEST_CASE("blocks of 32 decode element by element") {
  const std::string nibbles = random_bytes(16, 1), fifth = random_bytes(4, 2);
  const auto four = [&](std::size_t i) {
    return static_cast<float>(i < 16 ? bits(nibbles, 8 * i, 4) : bits(nibbles, 8 * (i - 16) + 4, 4));
  };
  const auto five = [&](std::size_t i) { return four(i) + 16.0f * static_cast<float>(bit(fifth, i)); };
  const auto q4_1 = decoded("Q4_1", half_quarter + half_two + nibbles), q5_0 = decoded("Q5_0", half_quarter + fifth + nibbles),
             q5_1 = decoded("Q5_1", half_quarter + half_two + fifth + nibbles);
  int wrong = 0;
  for (std::size_t i = 0; i < 32; ++i)
    wrong += (q4_1[i] != 0.25f * four(i) + 2.0f) + (q5_0[i] != 0.25f * (five(i) - 16.0f)) + (q5_1[i] != 0.25f * five(i) + 2.0f);
  CHECK(wrong == 0);
}

TEST_CASE("Q4_K and Q5_K decode element by element") {
  const std::string scales("\x81\x42\xc3\xff\x45\x80\x89\xff\x01\xf1\x00\xde", 12), fifth = random_bytes(32, 3),
                                                                                    nibbles = random_bytes(128, 4);
  const float sc[] = {1, 2, 3, 63, 33, 17, 48, 62}, m[] = {5, 0, 9, 63, 16, 47, 32, 61};
  const auto q4 = decoded("Q4_K", half_quarter + half_two + scales + nibbles),
             q5 = decoded("Q5_K", half_quarter + half_two + scales + fifth + nibbles);
  int wrong = 0;
  for (std::size_t e = 0; e < 256; ++e) {
    const std::size_t j = e / 32, pair = e / 64;
    const unsigned code = bits(nibbles, 8 * (32 * pair + e % 32) + (j % 2) * 4, 4), top = bit(fifth, 8 * (e % 32) + j);
    const float offset = 2.0f * m[j];
    wrong += (q4[e] != 0.25f * sc[j] * static_cast<float>(code) - offset) +
             (q5[e] != 0.25f * sc[j] * static_cast<float>(code + 16 * top) - offset);
  }
  CHECK(wrong == 0);
}

TEST_CASE("Q6_K decodes element by element, with negative scales") {
  const std::string ql = random_bytes(128, 5), qh = random_bytes(64, 6), sc = random_bytes(16, 7);
  const auto values = decoded("Q6_K", ql + qh + sc + half_quarter);
  int wrong = 0, negative = 0;
  for (std::size_t e = 0; e < 256; ++e) {
    const std::size_t half = e / 128, within = e % 128, quarter = within / 32, l = within % 32;
    const unsigned low = bits(ql, 8 * (64 * half + 32 * (quarter & 1) + l) + (quarter >> 1) * 4, 4);
    const unsigned high = bits(qh, 8 * (32 * half + l) + 2 * quarter, 2);
    const int scale = static_cast<signed char>(sc[e / 16]);
    negative += scale < 0;
    wrong += values[e] != 0.25f * static_cast<float>(scale * (static_cast<int>(low + 16 * high) - 32));
  }
  CHECK(wrong == 0);
  CHECK(negative > 0);
}

TEST_CASE("plain types decode, and a wrong number of bytes or an unsupported type is refused") {
  CHECK(decoded("F32", Bytes().add(1.5f).add(-2.0f).data) == std::vector<float>{1.5f, -2.0f});
  CHECK(decoded("F16", half_one + half_two) == std::vector<float>{1.0f, 2.0f});
  CHECK(decoded("BF16", std::string("\x80\x3f\x00\xc0", 4)) == std::vector<float>{1.0f, -2.0f});
  std::vector<float> out(32);
  CHECK_THAT(error_of([&] { ptq::io::dequantize(*ptq::io::ggml_type("Q4_0"), as_bytes("short"), out); }),
             ContainsSubstring("5 bytes do not hold 32"));
  CHECK_THAT(error_of([&] { (void)decoded("IQ4_NL", std::string(18, '\0')); }),
             ContainsSubstring("IQ4_NL is not supported") && ContainsSubstring("Q4_K"));
}

TEST_CASE("metadata of every kind is read, in both versions") {
  for (const std::uint32_t version : {2u, 3u}) {
    Gguf file;
    file.version = version;
    file.key("u8", 0).pairs.add<std::uint8_t>(200);
    file.key("i8", 1).pairs.add<std::int8_t>(-3);
    file.key("u16", 2).pairs.add<std::uint16_t>(60000);
    file.key("i16", 3).pairs.add<std::int16_t>(-30000);
    file.key("u32", 4).pairs.add<std::uint32_t>(4000000000u);
    file.key("i32", 5).pairs.add<std::int32_t>(-5);
    file.key("f32", 6).pairs.add(0.5f);
    file.key("yes", 7).pairs.add<std::uint8_t>(1);
    file.key("u64", 10).pairs.add<std::uint64_t>(0xFFFFFFFFFFFFFFFFu);
    file.key("i64", 11).pairs.add<std::int64_t>(-6);
    file.key("f64", 12).pairs.add(0.1);
    file.key("words", 9).pairs.add<std::uint32_t>(8).add<std::uint64_t>(2).text("a").text("");
    file.key("floats", 9).pairs.add<std::uint32_t>(6).add<std::uint64_t>(2).add(1.0f).add(2.0f);
    file.key("ints", 9).pairs.add<std::uint32_t>(5).add<std::uint64_t>(3).add<std::int32_t>(7).add<std::int32_t>(7).add<std::int32_t>(7);
    file.key("mixed", 9).pairs.add<std::uint32_t>(5).add<std::uint64_t>(2).add<std::int32_t>(7).add<std::int32_t>(8);
    const auto header = header_of(file.bytes());
    const auto& meta = header.metadata;
    CHECK(meta.integer("u8") == 200);
    CHECK(meta.integer("i8") == -3);
    CHECK(meta.integer("u16") == 60000);
    CHECK(meta.integer("i16") == -30000);
    CHECK(meta.integer("u32") == 4000000000);
    CHECK(meta.integer("i32") == -5);
    CHECK(meta.integer("i64") == -6);
    CHECK(meta.get<std::uint64_t>("u64") == 0xFFFFFFFFFFFFFFFFu);
    CHECK(meta.real("f32") == 0.5);
    CHECK(meta.real("f64") == 0.1);
    CHECK(meta.real("i32") == -5.0);
    CHECK(meta.flag("yes", false));
    CHECK(meta.texts("words") == std::vector<std::string>{"a", ""});
    CHECK(meta.get<std::vector<double>>("floats") == std::vector<double>{1.0, 2.0});
    CHECK(meta.integer("ints") == 7);
    CHECK(meta.integer("absent", 9) == 9);
    CHECK_THAT(error_of([&] { (void)meta.integer("mixed"); }), ContainsSubstring("some.gguf") && ContainsSubstring("\"mixed\" differs"));
    CHECK_THAT(error_of([&] { (void)meta.integer("absent"); }), ContainsSubstring("\"absent\" is missing"));
    CHECK_THAT(error_of([&] { (void)meta.text("i8"); }), ContainsSubstring("\"i8\" holds an integer, not a string"));
  }
}

TEST_CASE("tensors are found with their shapes outermost first, at aligned offsets") {
  Gguf file = small();
  file.alignment = 64;
  file.integer("general.alignment", 64);
  const std::string bytes = file.bytes();
  const auto header = header_of(bytes);
  CHECK(header.tensors[0].shape == ptq::io::Shape{3, 2});
  CHECK(header.tensors[1].dtype == "Q8_0");
  CHECK(header.tensors[1].bytes == 68);
  CHECK(header.tensors[0].offset % 64 == 0);
  CHECK(header.tensors[1].offset == header.tensors[0].offset + 64);
  CHECK(header.tensors[1].offset + 128 == bytes.size());
}

TEST_CASE("hostile GGUF files are refused by name") {
  const auto with = [](const auto& change) {
    Gguf file = small();
    change(file);
    return file.bytes();
  };
  const auto pair = [&](std::uint32_t type, const std::string& value) {
    return with([&](Gguf& f) { f.key("bad", type).pairs.raw(value); });
  };
  const auto tensor = [&](const std::string& name, std::vector<std::uint64_t> dims, std::uint32_t type) {
    return with([&](Gguf& f) { f.tensor(name, std::move(dims), type, ""); });
  };
  const auto counts = [](std::uint64_t tensors, std::uint64_t pairs) {
    return Bytes().raw("GGUF").add<std::uint32_t>(3).add(tensors).add(pairs).raw(std::string(100, '\0')).data;
  };
  const std::uint64_t huge = 0xFFFFFFFFFFFFFFF0u;
  const std::pair<std::string, std::string> cases[] = {
      {"", "not a GGUF file"},
      {"GGUF", "not a GGUF file"},
      {"GGML" + std::string(40, '\0'), "not a GGUF file"},
      {with([](Gguf& f) { f.version = 1; }), "GGUF version 1; versions 2 and 3"},
      {with([](Gguf& f) { f.version = 4; }), "GGUF version 4"},
      {with([](Gguf& f) { f.version = 0x03000000; }), "big-endian"},
      {counts(huge, 0), "tensors cannot lie in"},
      {counts(0, huge), "key/value pairs cannot lie in"},
      {pair(13, ""), "key \"bad\": unknown value type 13"},
      {pair(8, Bytes().add(huge).data), "key \"bad\""},
      {pair(9, Bytes().add<std::uint32_t>(8).add(huge).data), "list entries cannot lie in"},
      {pair(9, Bytes().add<std::uint32_t>(4).add<std::uint64_t>(1u << 30).data), "list entries cannot lie in"},
      {pair(9, Bytes().add<std::uint32_t>(9).add<std::uint64_t>(0).data), "lists of lists"},
      {pair(9, Bytes().add<std::uint32_t>(77).add<std::uint64_t>(0).data), "unknown value type 77"},
      {pair(9, Bytes().add<std::uint32_t>(10).add<std::uint64_t>(1).add(huge).data), "more than 63 bits"},
      {pair(7, "\x02"), "truth value is 2"},
      {with([](Gguf& f) { f.integer("answer", 1); }), "key \"answer\": occurs twice"},
      {with([](Gguf& f) { f.integer("general.alignment", 24); }), "not a power of two"},
      {with([](Gguf& f) { f.integer("general.alignment", 0); }), "not a power of two"},
      {with([](Gguf& f) { f.text("general.alignment", "32"); }), "holds a string"},
      {with([](Gguf& f) { f.integer("split.count", 3); }), "one part of a split GGUF"},
      {tensor("first", {1}, 0), "tensor \"first\": occurs twice"},
      {tensor(std::string(64, 'n'), {1}, 0), "64 bytes; the format allows 63"},
      {tensor("a\x01", {1}, 0), "tensor \"a\\x01\": its name holds control characters"},
      {tensor("five", {1, 1, 1, 1, 1}, 0), "tensor \"five\": 5 dimensions"},
      {tensor("wide", {huge}, 0), "tensor \"wide\": the size"},
      {tensor("wraps", {1ull << 33, 1ull << 31}, 0), "tensor \"wraps\": shape"},
      {tensor("wraps", {1ull << 62}, 0), "tensor \"wraps\": shape"},
      {tensor("ragged", {33}, 8), "tensor \"ragged\": rows of 33 elements are not whole blocks of 32 (Q8_0)"},
      {tensor("absent", {64}, 0), "tensor \"absent\" (256 bytes"},
      {small().bytes(32), "tensor \"second\" begins at 64"},
      {small().bytes(-32), "tensor \"second\" begins at 0"},
      {small().bytes(1), "tensor \"second\" begins at 33"},
  };
  for (const auto& [file, part] : cases) CHECK_THAT(header_error(file), ContainsSubstring("some.gguf") && ContainsSubstring(part));
  CHECK(header_error(small().bytes()) == "no error");
}

TEST_CASE("a tensor of an unknown type is described, and those after it are found") {
  Gguf file = small();
  file.tensor("future", {8}, 99, std::string(64, '\0')).tensor("after", {1}, 0, Bytes().add(3.0f).data);
  const std::string bytes = file.bytes();
  const auto header = header_of(bytes);
  CHECK(header.tensors[2].dtype == "type 99");
  CHECK(bytes.substr(header.tensors[3].offset, 4) == Bytes().add(3.0f).data);
}

TEST_CASE("a GGUF file cut anywhere is refused") {
  const std::string whole = small().bytes();
  const std::size_t needed = whole.size() - 28;  // the last tensor's padding may be missing
  int accepted = 0;
  for (std::size_t size = 0; size < needed; ++size) accepted += header_error(whole.substr(0, size)) == "no error";
  CHECK(accepted == 0);
  CHECK(header_error(whole.substr(0, needed)) == "no error");
}

TEST_CASE("a real file of eleven tensor types is described as its writer meant") {
  const auto path = ptq::test::data() / "models/gguf/llama_mixed_types.gguf";
  const ptq::io::GgufFile file(path.string());
  CHECK(file.metadata().text("general.architecture") == "llama");
  CHECK(file.metadata().texts("tokenizer.ggml.tokens").size() == 4096);
  CHECK(file.metadata().get<std::vector<double>>("tokenizer.ggml.scores").size() == 4096);
  CHECK(file.tensors().size() == 21);
  CHECK(file.find("blk.0.ffn_down.weight")->dtype == "BF16");
  CHECK(file.find("blk.0.ffn_down.weight")->shape == ptq::io::Shape{256, 512});
}
