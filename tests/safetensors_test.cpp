// torch: no
// safetensors: the format's worked example in both directions, element types, hostile files, shards, the writer.
#include <ptq/io/safetensors.hpp>
#include <ptq/io/safetensors_shards.hpp>
#include <ptq/io/safetensors_writer.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "bytes.hpp"
#include "catch.hpp"
#include "temporary_folder.hpp"

using Catch::Matchers::ContainsSubstring;
using ptq::io::DType;
using ptq::test::as_bytes;
using ptq::test::error_of;
using ptq::test::safetensors;
using ptq::test::write_file;

namespace {

const std::string example_header =
    R"({"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"I8","shape":[3],"data_offsets":[4,7]}})" + std::string(6, ' ');
const std::string example_data("\x00\x3c\x00\xc0\x01\xfe\x7f", 7);

std::string header_error(const std::string& file) {
  return error_of([&] { (void)ptq::io::read_safetensors_header(as_bytes(file), "some.safetensors"); });
}

std::vector<float> values(const ptq::io::SafetensorsFile& file, const std::string& name) {
  const auto& tensor = *file.find(name);
  std::vector<float> out(static_cast<std::size_t>(*ptq::io::element_count(tensor.shape)));
  ptq::io::to_float(ptq::io::known_dtype(tensor, file.path()), file.bytes(tensor), out);
  return out;
}

template <class Number>
std::vector<float> converted(DType type, const std::vector<Number>& numbers) {
  std::vector<float> out(numbers.size());
  ptq::io::to_float(type, std::as_bytes(std::span(numbers)), out);
  return out;
}

/// IEEE 754: sign, exponent, fraction, in plain arithmetic.
double small_float(unsigned code, int exponent_bits, int fraction_bits, bool infinities) {
  const unsigned fraction = code & ((1u << fraction_bits) - 1), exponent = (code >> fraction_bits) & ((1u << exponent_bits) - 1);
  const double sign = (code >> (exponent_bits + fraction_bits)) & 1u ? -1.0 : 1.0;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double part = fraction / std::ldexp(1.0, fraction_bits);
  if (infinities && exponent == (1u << exponent_bits) - 1)
    return fraction == 0 ? sign * std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  if (exponent == 0) return sign * std::ldexp(part, 1 - bias);
  return sign * std::ldexp(1.0 + part, static_cast<int>(exponent) - bias);
}

bool same(float a, double b) { return std::isnan(b) ? std::isnan(a) : (a == b && std::signbit(a) == std::signbit(b)); }

}  // namespace

TEST_CASE("the worked example of the format is read value by value") {
  const std::string file = safetensors(example_header, example_data);
  REQUIRE(file.size() == 127);
  TemporaryFolder folder("safetensors");
  const ptq::io::SafetensorsFile opened(write_file(folder / "x.safetensors", file).string());
  CHECK(values(opened, "a") == std::vector<float>{1.0f, -2.0f});
  CHECK(values(opened, "b") == std::vector<float>{1, -2, 127});
  CHECK(opened.find("a")->shape == ptq::io::Shape{2});
  CHECK(opened.find("b")->offset == 124);
  CHECK(opened.find("c") == nullptr);
}

TEST_CASE("the worked example of the format is written byte by byte") {
  TemporaryFolder folder("safetensors");
  const std::string path = (folder / "x.safetensors").string();
  ptq::io::SafetensorsWriter writer(path, {{"b", DType::i8, {3}}, {"a", DType::f16, {2}}}, {});
  writer.write("b", as_bytes(example_data).subspan(4));  // in any order
  writer.write("a", as_bytes(example_data).first(4));
  CHECK(!std::filesystem::exists(path));
  writer.commit();
  CHECK(contents(path) == safetensors(example_header, example_data));
}

TEST_CASE("every code of the small floats is converted exactly") {
  int wrong = 0;
  std::vector<std::uint16_t> wide(65536);
  std::vector<std::uint8_t> narrow(256);
  for (unsigned i = 0; i < 65536; ++i) wide[i] = static_cast<std::uint16_t>(i);
  for (unsigned i = 0; i < 256; ++i) narrow[i] = static_cast<std::uint8_t>(i);
  const auto half = converted(DType::f16, wide), brain = converted(DType::bf16, wide);
  for (unsigned i = 0; i < 65536; ++i) wrong += !same(half[i], small_float(i, 5, 10, true)) + !same(brain[i], small_float(i, 8, 7, true));
  const auto e4m3 = converted(DType::f8_e4m3, narrow), e5m2 = converted(DType::f8_e5m2, narrow), e8m0 = converted(DType::f8_e8m0, narrow);
  for (unsigned i = 0; i < 256; ++i) {
    const bool nan = (i & 0x7fu) == 0x7fu;
    wrong += !same(e4m3[i], nan ? std::nan("") : small_float(i, 4, 3, false)) + !same(e5m2[i], small_float(i, 5, 2, true));
    wrong += !same(e8m0[i], i == 255 ? std::nan("") : std::ldexp(1.0, static_cast<int>(i) - 127));
  }
  CHECK(wrong == 0);
  CHECK(e4m3[0x38] == 1.0f);
  CHECK(e4m3[0x36] == 0.875f);
  CHECK(e4m3[0x77] == 240.0f);
  CHECK(e4m3[0x7e] == 448.0f);
  CHECK(e4m3[0x01] == 0x1p-9f);
  CHECK(e4m3[0x58] == 16.0f);
  CHECK(e5m2[0x7b] == 57344.0f);
  CHECK(e8m0[129] == 4.0f);
}

TEST_CASE("integers, truth values and doubles are converted") {
  CHECK(converted<std::int64_t>(DType::i64, {-3, 1LL << 40}) == std::vector<float>{-3.0f, 0x1p40f});
  CHECK(converted<std::int32_t>(DType::i32, {-7, 8}) == std::vector<float>{-7.0f, 8.0f});
  CHECK(converted<std::int16_t>(DType::i16, {-300, 300}) == std::vector<float>{-300.0f, 300.0f});
  CHECK(converted<std::uint8_t>(DType::u8, {255, 0}) == std::vector<float>{255.0f, 0.0f});
  CHECK(converted<std::uint8_t>(DType::boolean, {0, 1, 2}) == std::vector<float>{0.0f, 1.0f, 1.0f});
  CHECK(converted<double>(DType::f64, {0.1, 1e300}) == std::vector<float>{0.1f, std::numeric_limits<float>::infinity()});
  std::vector<float> out(2);
  CHECK_THAT(error_of([&] { ptq::io::to_float(DType::f4, as_bytes("x"), out); }), ContainsSubstring("F4") && ContainsSubstring("F8_E4M3"));
  CHECK_THAT(error_of([&] { ptq::io::to_float(DType::f16, as_bytes("xyz"), out); }), ContainsSubstring("3 bytes for 2 elements"));
}

TEST_CASE("an unaligned tensor has the same values as an aligned one") {
  TemporaryFolder folder("safetensors");
  const std::string four = ptq::test::Bytes().add(1.5f).add(-2.5f).data, two("\x00\x3c\x00\xc0", 4),
                    eight = ptq::test::Bytes().add(0.1).data;
  const std::string header =
      R"({"one":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[2],"data_offsets":[1,9]},)"
      R"("h":{"dtype":"F16","shape":[2],"data_offsets":[9,13]},"d":{"dtype":"F64","shape":[],"data_offsets":[13,21]}})";
  const ptq::io::SafetensorsFile file(write_file(folder / "x.safetensors", safetensors(header, "\x05" + four + two + eight)).string());
  CHECK(values(file, "f") == std::vector<float>{1.5f, -2.5f});
  CHECK(values(file, "h") == std::vector<float>{1.0f, -2.0f});
  CHECK(values(file, "d") == std::vector<float>{0.1f});
}

TEST_CASE("empty tensors, metadata and padding around the header are legal") {
  const std::string header =
      " \n"
      R"({"__metadata__":{"format":"pt"},"e":{"dtype":"F32","shape":[0,5],"data_offsets":[0,0]},)"
      R"("f":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})"
      "   ";
  const std::string file = safetensors(header, "x");
  const auto read = ptq::io::read_safetensors_header(as_bytes(file), "x");
  CHECK(read.tensors.size() == 2);
  CHECK(read.metadata.at("format") == "pt");
  CHECK(header_error(safetensors("{}", "")) == "no error");
}

TEST_CASE("an unknown element type is an error only for whoever asks for the tensor") {
  TemporaryFolder folder("safetensors");
  const std::string header =
      R"({"odd":{"dtype":"F3","shape":[9],"data_offsets":[0,2]},"u":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})";
  const ptq::io::SafetensorsFile file(write_file(folder / "x.safetensors", safetensors(header, "abc")).string());
  CHECK(values(file, "u") == std::vector<float>{'c'});
  CHECK_THAT(error_of([&] { (void)values(file, "odd"); }),
             ContainsSubstring("x.safetensors") && ContainsSubstring("\"odd\"") && ContainsSubstring("\"F3\""));
}

TEST_CASE("hostile headers are refused by name") {
  const auto entry = [](const std::string& body) { return R"({"w":{)" + body + "}}"; };
  const auto f32 = [&](const std::string& shape, const std::string& offsets) {
    return entry(R"("dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" + offsets);
  };
  const std::string eight(8, 'x');
  const std::pair<std::string, std::string> cases[] = {
      {"1234567", "header too small"},
      {ptq::test::Bytes().add<std::uint64_t>(0xFFFFFFFFFFFFFFFFu).raw("{}").data, "larger than the limit"},
      {ptq::test::Bytes().add<std::uint64_t>(0xFFFFFFFFFFFFFFF8u).raw("{}").data, "larger than the limit"},
      {ptq::test::Bytes().add<std::uint64_t>(100'000'001).raw("{}").data, "larger than the limit"},
      {ptq::test::Bytes().add<std::uint64_t>(100'000'000).raw("{}").data, "cut short"},
      {ptq::test::Bytes().add<std::uint64_t>(3).raw("{}").data, "cut short"},
      {safetensors("", ""), "does not begin with {"},
      {safetensors("[]", ""), "does not begin with {"},
      {safetensors("{", ""), "not valid JSON"},
      {safetensors("{} {}", ""), "not valid JSON"},
      {safetensors("{\"\xff\":1}", ""), "not valid JSON"},
      {safetensors(R"({"w":1,"w":2})", ""), "\"w\" occurs twice"},
      {safetensors("{\"w\":" + std::string(5000, '[') + std::string(5000, ']') + "}", ""), "nested deeper"},
      {safetensors(R"({"__metadata__":{"a":1}})", ""), "\"a\" is not a string"},
      {safetensors(R"({"__metadata__":"a"})", ""), "__metadata__ is not an object"},
      {safetensors(R"({"__metadata__ ":{"format":"pt"}})", ""), "lacks \"dtype\""},
      {safetensors(R"({"w":{"__metadata__":{"a":"b"}}})", ""), "lacks \"dtype\""},
      {safetensors(R"({"w":[1]})", ""), "not an object"},
      {safetensors(entry(R"("dtype":"F32","shape":[2])"), eight), "lacks \"data_offsets\""},
      {safetensors(entry(R"("dtype":5,"shape":[2],"data_offsets":[0,8])"), eight), "dtype is not a string"},
      {safetensors(entry(R"("dtype":"F32","shape":2,"data_offsets":[0,8])"), eight), "shape is not a list"},
      {safetensors(entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1)"), eight), "fields besides"},
      {safetensors(f32("[2.0]", "[0,8]"), eight), "whole number"},
      {safetensors(f32("[-2]", "[0,8]"), eight), "whole number"},
      {safetensors(f32("[2]", "[0,8.0]"), eight), "whole number"},
      {safetensors(f32("[2]", "[0]"), eight), "not a pair"},
      {safetensors(f32("[2]", "[0,4,8]"), eight), "not a pair"},
      {safetensors(f32("[2]", "[8,0]"), eight), "end before they begin"},
      {safetensors(f32("[18446744073709551616]", "[0,8]"), eight), "whole number"},
      {safetensors(f32("[2,9223372036854775808]", "[0,8]"), eight), "too large"},
      {safetensors(f32("[2,18446744073709551614]", "[0,8]"), eight), "too large"},
      {safetensors(f32("[4294967296,4294967296]", "[0,0]"), ""), "more elements than can be counted"},
      {safetensors(f32("[4611686018427387904]", "[0,0]"), ""), "more elements than can be counted"},
      {safetensors(f32("[3]", "[0,8]"), eight), "needs 12 bytes, data_offsets give 8"},
      {safetensors(entry(R"("dtype":"F4","shape":[3],"data_offsets":[0,2])"), "xx"), "end inside a byte"},
      {safetensors(f32("[2]", "[4,12]"), eight + "1234"), "begins at 4"},
      {safetensors(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", "1234"),
       "neither overlap"},
      {safetensors(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})", eight),
       "neither overlap"},
      {safetensors(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[3],"data_offsets":[5,8]}})", eight),
       "leave holes"},
      {safetensors(f32("[2]", "[0,8]"), eight + "!"), "1 bytes lie behind the last tensor"},
      {safetensors(f32("[2]", "[0,8]"), "1234567"), "the file is cut short (last tensor \"w\")"},
      {safetensors(f32("[2]", "[18446744073709551607,18446744073709551615]"), eight), "begins at 18446744073709551607"},
  };
  for (const auto& [file, part] : cases) {
    INFO(file.substr(0, 200));
    CHECK_THAT(header_error(file), ContainsSubstring("some.safetensors") && ContainsSubstring(part));
  }
}

TEST_CASE("a safetensors file cut anywhere is refused") {
  const std::string whole = safetensors(example_header, example_data);
  int accepted = 0;
  for (std::size_t size = 0; size < whole.size(); ++size) accepted += header_error(whole.substr(0, size)) == "no error";
  CHECK(accepted == 0);
  CHECK(header_error(whole) == "no error");
}

TEST_CASE("a path that is no file is refused by name") {
  TemporaryFolder folder("safetensors");
  CHECK_THAT(error_of([&] { ptq::io::SafetensorsFile((folder / "absent").string()); }), ContainsSubstring("absent: cannot open"));
  CHECK_THAT(error_of([&] { ptq::io::SafetensorsFile(folder.path.string()); }), ContainsSubstring("not a regular file"));
  CHECK_THAT(error_of([&] { ptq::io::SafetensorsFile(write_file(folder / "empty", "").string()); }), ContainsSubstring("header too small"));
}

TEST_CASE("shards are joined by their index") {
  TemporaryFolder folder("shards");
  const auto shard = [&](const std::string& file, const std::string& tensor, const std::string& data) {
    write_file(folder / file, safetensors("{\"" + tensor + R"(":{"dtype":"U8","shape":[)" + std::to_string(data.size()) +
                                              R"(],"data_offsets":[0,)" + std::to_string(data.size()) + "]}}",
                                          data));
  };
  const auto opened = [&](const std::string& map) {
    const auto path = write_file(folder / "i.json", R"({"metadata":{"total_size":"stale"},"weight_map":)" + map + "}");
    return ptq::io::SafetensorsShards::indexed(path.string());
  };
  const auto error = [&](const std::string& map) { return error_of([&] { (void)opened(map); }); };
  shard("one", "a", "123");
  shard("two", "b", "45");
  const auto both = opened(R"({"a":"one","b":"two"})");
  CHECK(both.find("b").file->path() == (folder / "two").string());
  CHECK(both.find("c").tensor == nullptr);
  CHECK(both.missing().empty());
  CHECK(both.unlisted().empty());

  const auto odd = opened(R"({"a":"two","c":"one"})");
  CHECK(odd.missing() == std::vector<std::pair<std::string, std::string>>{{"a", "two"}, {"c", "one"}});
  CHECK(odd.unlisted() == std::vector<std::string>{"b"});

  CHECK_THAT(error(R"({"a":"one","b":"absent.safetensors"})"), ContainsSubstring("\"absent.safetensors\"") && ContainsSubstring("\"b\""));
  for (const std::string name : {"../one", "sub/one", "/etc/passwd", "..", ".", "", "C:one", "a\\\\b", "one\\u0000"})
    CHECK_THAT(error(R"({"a":")" + name + "\"}"), ContainsSubstring("\"a\"") && ContainsSubstring("not a plain file name"));
  CHECK_THAT(error(R"({"a":5})"), ContainsSubstring("\"a\": its shard is not a string"));
  CHECK_THAT(error("{}"), ContainsSubstring("empty"));
  CHECK_THAT(error("[]"), ContainsSubstring("weight_map"));
  CHECK_THAT(error(R"({"a":"one","a":"two"})"), ContainsSubstring("\"a\" occurs twice"));

  shard("three", "a", "1");
  CHECK_THAT(error(R"({"a":"one","c":"three"})"), ContainsSubstring("tensor \"a\" lies in") && ContainsSubstring("three"));
  write_file(folder / "two", contents(folder / "two").substr(0, 60));
  CHECK_THAT(error(R"({"a":"one","b":"two"})"), ContainsSubstring("two: ") && ContainsSubstring("cut short"));
}

TEST_CASE("the writer refuses what would not be a whole file, and leaves nothing behind") {
  TemporaryFolder folder("writer");
  const std::string path = (folder / "x.safetensors").string();
  {
    ptq::io::SafetensorsWriter writer(path, {{"a", DType::u8, {2}}, {"none", DType::f32, {0, 4}}});
    CHECK_THAT(error_of([&] { writer.write("b", as_bytes("xx")); }),
               ContainsSubstring("x.safetensors") && ContainsSubstring("\"b\" was not announced"));
    CHECK_THAT(error_of([&] { writer.write("a", as_bytes("xxx")); }), ContainsSubstring("\"a\" takes 2 bytes, not 3"));
    CHECK_THAT(error_of([&] { writer.commit(); }), ContainsSubstring("\"a\" was announced but never written"));
    writer.write("a", as_bytes("xx"));
    CHECK_THAT(error_of([&] { writer.write("a", as_bytes("xx")); }), ContainsSubstring("\"a\" is written twice"));
  }
  CHECK(folder.names().empty());
  using Plan = std::vector<ptq::io::TensorPlan>;
  const auto error = [&](const Plan& plan) { return error_of([&] { ptq::io::SafetensorsWriter(path, plan); }); };
  CHECK_THAT(error({{"a", DType::u8, {1}}, {"a", DType::u8, {1}}}), ContainsSubstring("\"a\" is announced twice"));
  CHECK_THAT(error({{"a", DType::u8, {1LL << 62, 4}}}), ContainsSubstring("no size in bytes"));
  CHECK_THAT(error({{"__metadata__", DType::u8, {1}}}), ContainsSubstring("__metadata__"));
  CHECK(folder.names().empty());
}

TEST_CASE("what is written over its own source is read back, aligned") {
  TemporaryFolder folder("writer");
  const std::string path = write_file(folder / "x.safetensors", safetensors(example_header, example_data)).string();
  const ptq::io::SafetensorsFile source(path);
  const std::vector<float> numbers{1, 2, 3};
  ptq::io::SafetensorsWriter writer(path, {{"b", DType::i8, {3}}, {"f \"quoted\" \xc3\xa9", DType::f32, {3}}, {"a", DType::f16, {2}}});
  writer.write("b", source.bytes(*source.find("b")));
  writer.write("f \"quoted\" \xc3\xa9", std::as_bytes(std::span(numbers)));
  writer.write("a", source.bytes(*source.find("a")));
  writer.commit();
  const ptq::io::SafetensorsFile copy(path);
  CHECK(values(copy, "b") == values(source, "b"));
  CHECK(values(copy, "a") == values(source, "a"));
  CHECK(values(copy, "f \"quoted\" \xc3\xa9") == numbers);
  CHECK(copy.metadata().at("format") == "pt");
  CHECK(copy.find("a")->offset % 2 == 0);
  CHECK(copy.find("f \"quoted\" \xc3\xa9")->offset % 8 == 0);
  CHECK(folder.names() == std::set<std::string>{"x.safetensors"});
}
