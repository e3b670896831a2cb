// torch: no
// HDF5 against plain C calls and h5py, through kills, full disks and files that lie.
#include <ptq/core/digest.hpp>
#include <ptq/io/hdf5.hpp>

#include <chrono>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <thread>

#include "catch.hpp"
#include "temporary_folder.hpp"

namespace {

using Catch::Matchers::ContainsSubstring;
using ptq::io::DType;
using ptq::io::Hdf5Bulk;
using ptq::io::Hdf5Reader;
using ptq::io::Hdf5Writer;

const std::vector<float> floats{1.5f, -0.0f, std::numeric_limits<float>::infinity(), 1e-40f, 3, 4};
const std::vector<std::uint16_t> halves{0x3c00, 0x8000, 0x7bff, 1};  // as binary16: 1, -0, 65504, 2^-24

/// A file with one of everything.
Hdf5Writer example() {
  Hdf5Writer writer;
  writer.attribute("/", "zeta", 1);
  writer.attribute("/", "alpha", std::int64_t{-5});
  writer.attribute("/", "yes", true);
  writer.attribute("/", "no", false);
  writer.attribute("/", "pi", 3.25);
  writer.attribute("/", "name", "Größe");
  writer.attribute("/", "empty", "");
  writer.attribute("/", "numbers", std::vector<double>{1, 2.5});
  writer.attribute("/", "whole", std::vector<std::int64_t>{});
  writer.attribute("/", "words", std::vector<std::string>{"a", "", "ccc"});
  writer.group("z/deep");
  writer.dataset<float>("z/f32", floats, {2, 3});
  writer.dataset("z/deep/f64", std::vector<double>{0.1, 0.2});
  writer.dataset("z/i8", std::vector<std::int8_t>{-128, 127});
  writer.dataset("z/u8", std::vector<std::uint8_t>{0, 255});
  writer.dataset("z/u16", std::vector<std::uint16_t>{65535});
  writer.dataset("z/i32", std::vector<std::int32_t>{INT32_MIN, INT32_MAX});
  writer.dataset("z/i64", std::vector<std::int64_t>{INT64_MIN, INT64_MAX});
  writer.dataset("z/f16", DType::f16, std::as_bytes(std::span(halves)), {4});
  writer.dataset("z/bf16", DType::bf16, std::as_bytes(std::span(halves)), {2, 2});
  writer.dataset<double>("z/one", std::vector<double>{7}, {});
  writer.dataset<float>("z/none", std::vector<float>{}, {0, 3});
  writer.texts("a", {"first", "", "Übung"});
  writer.attribute("z/f32", "unit", "nat");
  return writer;
}

/// Runs Python with the file as sys.argv[1]; none when there is no Python with h5py.
bool have_h5py() { return std::system("python3 -c 'import h5py' 2>/dev/null") == 0; }
int python(const TemporaryFolder& folder, const std::string& program, const std::filesystem::path& file) {
  std::ofstream(folder / "program.py") << program;
  return std::system(("python3 " + (folder / "program.py").string() + " " + file.string()).c_str());
}

/// Makes a file by plain C calls: one dataset "d" with these dimensions, chunks if any, and type; nothing is written to it.
void make_plain(const std::filesystem::path& path, hid_t type, std::vector<hsize_t> dims, std::vector<hsize_t> chunk = {}) {
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hid_t space = H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
  const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
  if (!chunk.empty()) H5Pset_chunk(properties, static_cast<int>(chunk.size()), chunk.data());
  const hid_t made = H5Dcreate2(file, "d", type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
  H5Dclose(made), H5Pclose(properties), H5Sclose(space), H5Fclose(file);
}

std::vector<std::byte> bytes_of(const std::string& text) {
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}

}  // namespace

TEST_CASE("plain C calls read what we write", "[hdf5]") {
  const TemporaryFolder folder("hdf5");
  example().save(folder / "a.h5");
  const hid_t file = H5Fopen((folder / "a.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  REQUIRE(file >= 0);

  const hid_t dataset = H5Dopen2(file, "z/f32", H5P_DEFAULT), space = H5Dget_space(dataset), type = H5Dget_type(dataset);
  hsize_t dims[2];
  REQUIRE(H5Sget_simple_extent_ndims(space) == 2);
  H5Sget_simple_extent_dims(space, dims, nullptr);
  CHECK((dims[0] == 2 && dims[1] == 3));
  CHECK(H5Tequal(type, H5T_IEEE_F32LE) > 0);
  float values[6];
  REQUIRE(H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
  CHECK(std::memcmp(values, floats.data(), sizeof values) == 0);
  CHECK(H5Dget_offset(dataset) != HADDR_UNDEF);  // contiguous
  H5O_info_t info;
  REQUIRE(H5Oget_info2(dataset, &info, H5O_INFO_TIME) >= 0);
  CHECK((info.mtime == 0 && info.ctime == 0));  // no times
  H5Tclose(type), H5Sclose(space), H5Dclose(dataset);

  std::int32_t zeta = 0;
  const hid_t attribute = H5Aopen(file, "zeta", H5P_DEFAULT);
  REQUIRE(H5Aread(attribute, H5T_NATIVE_INT32, &zeta) >= 0);
  CHECK(zeta == 1);
  H5Aclose(attribute), H5Fclose(file);
}

TEST_CASE("h5py reads what we write", "[hdf5]") {
  if (!have_h5py()) SKIP_TEST("no python3 with h5py");
  const TemporaryFolder folder("hdf5");
  example().save(folder / "a.h5");
  CHECK(python(folder, R"(
import h5py, numpy as np, sys
f = h5py.File(sys.argv[1], 'r')
assert f.attrs['zeta'] == 1 and f.attrs['alpha'] == -5 and f.attrs['pi'] == 3.25
assert f.attrs['yes'] is np.True_ and f.attrs['no'] is np.False_, f.attrs['yes']
assert f.attrs['name'] == 'Größe' and f.attrs['empty'] == ''
assert list(f.attrs['numbers']) == [1, 2.5] and f.attrs['whole'].shape == (0,) and list(f.attrs['words']) == ['a', '', 'ccc']
assert np.array_equal(f['z/f32'][:], np.float32([[1.5, -0.0, np.inf], [1e-40, 3, 4]])) and f['z/f32'].attrs['unit'] == 'nat'
assert list(f['z/deep/f64'][:]) == [0.1, 0.2] and f['z/one'][()] == 7 and f['z/none'].shape == (0, 3)
for name, dtype in dict(i8='i1', u8='u1', i32='i4', i64='i8').items():
    limits = np.iinfo(dtype)
    assert f['z'][name].dtype == dtype and list(f['z'][name][:]) == [limits.min, limits.max]
assert f['z/f16'].attrs['dtype'] == 'F16' and f['z/bf16'].attrs['dtype'] == 'BF16'
assert list(f['z/f16'][:].view(np.float16)) == [1, -0.0, 65504, 2.0**-24]
assert list(f['a'].asstr()[:]) == ['first', '', 'Übung']
)",
               folder / "a.h5") == 0);
}

TEST_CASE("what was written is read back, in order", "[hdf5]") {
  const TemporaryFolder folder("hdf5");
  example().save(folder / "a.h5");
  const Hdf5Reader file(folder / "a.h5");
  CHECK(file.groups() == std::vector<std::string>{"z"});
  CHECK(file.datasets() == std::vector<std::string>{"a"});
  CHECK(file.groups("z") == std::vector<std::string>{"deep"});
  CHECK(file.datasets("z") == std::vector<std::string>{"f32", "i8", "u8", "u16", "i32", "i64", "f16", "bf16", "one", "none"});
  CHECK(file.attributes() == std::vector<std::string>{"zeta", "alpha", "yes", "no", "pi", "name", "empty", "numbers", "whole", "words"});
  CHECK((file.exists("z/deep/f64") && file.exists("/z") && file.exists("/") && !file.exists("z/deep/f65") && !file.exists("a/b/c")));
  CHECK((file.has_attribute("z/f32", "unit") && !file.has_attribute("z/f32", "units")));

  CHECK(file.attribute<int>("/", "zeta") == 1);
  CHECK(file.attribute<double>("/", "zeta") == 1.0);
  CHECK(file.attribute<std::int64_t>("/", "alpha") == -5);
  CHECK((file.attribute<bool>("/", "yes") && !file.attribute<bool>("/", "no")));
  CHECK(file.attribute<std::string>("/", "name") == "Größe");
  CHECK(file.attribute<std::string>("/", "empty").empty());
  CHECK(file.attribute<std::vector<double>>("/", "numbers") == std::vector<double>{1, 2.5});
  CHECK(file.attribute<std::vector<std::int64_t>>("/", "whole").empty());
  CHECK(file.attribute<std::vector<std::string>>("/", "words") == std::vector<std::string>{"a", "", "ccc"});
  CHECK(file.attribute_or<int>("/", "absent", 9) == 9);

  CHECK(file.info("z/f32").shape == std::vector<std::int64_t>{2, 3});
  CHECK(file.info("z/f32").type == DType::f32);
  CHECK(file.info("z/f32").bytes == 24);
  CHECK(file.info("z/bf16").type == DType::bf16);
  CHECK(file.info("a").text);
  CHECK(file.info("z/one").shape.empty());
  CHECK(file.read<double>("z/one") == std::vector<double>{7});
  CHECK(file.read<float>("z/none").empty());
  CHECK(file.read<std::int64_t>("z/i32") == std::vector<std::int64_t>{INT32_MIN, INT32_MAX});
  CHECK(file.read<float>("z/u16") == std::vector<float>{65535});
  CHECK(file.read_rows<float>("z/f32", 1, 1) == std::vector<float>{1e-40f, 3, 4});
  CHECK(file.read_rows<float>("z/f32", 2, 0).empty());
  CHECK(file.read_texts("a") == std::vector<std::string>{"first", "", "Übung"});
  std::vector<std::uint16_t> back(2);
  file.read_bytes("z/bf16", DType::bf16, std::as_writable_bytes(std::span(back)), 1, 1);
  CHECK(back == std::vector<std::uint16_t>(halves.begin() + 2, halves.end()));
}

TEST_CASE("many and large attributes keep their order and values", "[hdf5]") {
  const TemporaryFolder folder("hdf5");
  Hdf5Writer writer;
  std::vector<std::string> names;
  for (int i = 0; i < 300; ++i) {
    names.push_back("field." + std::to_string(i * 7919 % 300));
    writer.attribute("/", names.back(), std::string(static_cast<std::size_t>(i), 'x'));
  }
  names.emplace_back("large");
  const std::vector<double> large(50000, 0.5);
  writer.attribute("/", "large", large);
  writer.save(folder / "a.h5");
  const Hdf5Reader file(folder / "a.h5");
  CHECK(file.attributes() == names);
  CHECK(file.attribute<std::string>("/", names[299]) == std::string(299, 'x'));
  CHECK(file.attribute<std::vector<double>>("/", "large") == large);
}

TEST_CASE("questions a file cannot answer are errors that name file and object", "[hdf5]") {
  const TemporaryFolder folder("hdf5");
  example().save(folder / "a.h5");
  const Hdf5Reader file(folder / "a.h5");
  CHECK_THROWS_WITH(file.read<float>("z/f33"), ContainsSubstring("a.h5: z/f33: is not in the file"));
  CHECK_THROWS_WITH(file.read<float>("z"), ContainsSubstring("a.h5: z: is no dataset"));
  CHECK_THROWS_WITH(file.groups("a"), ContainsSubstring("is no group"));
  CHECK_THROWS_WITH(file.read<float>("z/deep/f64"), ContainsSubstring("holds F64, which cannot be read as F32"));
  CHECK_THROWS_WITH(file.read<std::int32_t>("z/i64"), ContainsSubstring("holds I64, which cannot be read as I32"));
  CHECK_THROWS_WITH(file.read<std::uint8_t>("z/i8"), ContainsSubstring("holds I8"));
  CHECK_THROWS_WITH(file.read<std::int64_t>("z/f32"), ContainsSubstring("holds F32"));
  CHECK_THROWS_WITH(file.read<float>("z/i32"), ContainsSubstring("holds I32"));
  CHECK_THROWS_WITH(file.read<float>("a"), ContainsSubstring("holds no numbers"));
  CHECK_THROWS_WITH(file.read_texts("z/i8"), ContainsSubstring("is no text"));
  CHECK_THROWS_WITH(file.read<std::uint16_t>("z/bf16"), ContainsSubstring("holds BF16"));
  CHECK_THROWS_WITH(file.read<float>("z/f16"), ContainsSubstring("holds F16; read it as such"));
  CHECK_THROWS_WITH(file.read_rows<float>("z/f32", 1, 2), ContainsSubstring("2 rows from row 1 were asked of 2"));
  CHECK_THROWS_WITH(file.read_rows<float>("z/f32", -1, 1), ContainsSubstring("z/f32"));
  CHECK_THROWS_WITH(file.read_rows<float>("z/f32", 1, INT64_MAX), ContainsSubstring("z/f32"));
  CHECK_THROWS_WITH(file.read_rows<double>("z/one", 0, 1), ContainsSubstring("z/one"));
  CHECK_THROWS_WITH(file.attribute<int>("/", "absent"), ContainsSubstring("a.h5: /, attribute absent: is not in the file"));
  CHECK_THROWS_WITH(file.attribute<int>("/", "alpha"), ContainsSubstring("holds I64, which cannot be read as I32"));
  CHECK_THROWS_WITH(file.attribute<std::string>("/", "pi"), ContainsSubstring("is no text"));
  CHECK_THROWS_WITH(file.attribute<double>("/", "numbers"), ContainsSubstring("holds 2 values where one is expected"));
  CHECK_THROWS_WITH(file.attribute<std::vector<double>>("/", "words"), ContainsSubstring("holds no numbers"));

  Hdf5Writer writer;
  CHECK_THROWS_WITH(writer.attribute("absent", "x", 1), ContainsSubstring("absent"));
  writer.attribute("/", "x", 1);
  CHECK_THROWS_WITH(writer.attribute("/", "x", 2), ContainsSubstring("attribute x"));
  CHECK_THROWS_WITH(writer.attribute("/", "y", std::string("a\0b", 3)), ContainsSubstring("zero byte"));
  CHECK_THROWS_WITH(writer.dataset<float>("d", floats, {7}), ContainsSubstring("do not fill 7 elements"));
  CHECK_THROWS_WITH(writer.dataset<float>("e", floats, {-6}), ContainsSubstring("dimension"));
  CHECK_THROWS_WITH(writer.dataset<float>("e", floats, {INT64_MAX, INT64_MAX, 6}), ContainsSubstring("dimension"));
}

TEST_CASE("h5py's files are read", "[hdf5]") {
  if (!have_h5py()) SKIP_TEST("no python3 with h5py");
  const TemporaryFolder folder("hdf5");
  REQUIRE(python(folder, R"(
import h5py, numpy as np, sys
f = h5py.File(sys.argv[1], 'w')
f.create_dataset('gzip', data=np.arange(6000, dtype='f4').reshape(60, 100), chunks=(7, 50), compression='gzip', shuffle=True)
f.create_dataset('zeros', data=np.zeros((4000, 1000), 'f8'), chunks=(400, 1000), compression='gzip', compression_opts=9)
f['half'] = np.float16([1, -2, 65504])
f['big'] = np.array([1, -2], '>i4')
f['bigfloat'] = np.array([1.5, -2], '>f4')
f['flags'] = np.array([True, False])
f['words'] = ['x', 'yy']
f['fixed'] = np.array([b'ab', b'c'], 'S4')
f['complex'] = np.array([1j])
f.attrs['fixed'] = np.bytes_(b'abc')
f.attrs['int32'] = np.int32(3)
f.attrs['nothing'] = h5py.Empty('f4')
)",
                 folder / "py.h5") == 0);
  const Hdf5Reader file(folder / "py.h5");
  std::vector<float> ramp(6000);
  std::iota(ramp.begin(), ramp.end(), 0.0f);
  CHECK(file.read<float>("gzip") == ramp);
  CHECK(file.read_rows<float>("gzip", 10, 20) == std::vector<float>(ramp.begin() + 1000, ramp.begin() + 3000));
  CHECK(file.read<double>("zeros") == std::vector<double>(4000000, 0.0));  // the densest deflate makes
  CHECK(file.info("half").type == DType::f16);
  CHECK(file.read<float>("half") == std::vector<float>{1, -2, 65504});
  std::vector<std::uint16_t> raw(3);
  file.read_bytes("half", DType::f16, std::as_writable_bytes(std::span(raw)));
  CHECK(raw == std::vector<std::uint16_t>{0x3c00, 0xc000, 0x7bff});
  CHECK(file.read<std::int32_t>("big") == std::vector<std::int32_t>{1, -2});
  CHECK(file.read<double>("bigfloat") == std::vector<double>{1.5, -2});
  CHECK(file.read<std::uint8_t>("flags") == std::vector<std::uint8_t>{1, 0});
  CHECK(file.read_texts("words") == std::vector<std::string>{"x", "yy"});
  CHECK(file.read_texts("fixed") == std::vector<std::string>{"ab", "c"});
  CHECK_FALSE(file.info("complex").type);
  CHECK_THROWS_WITH(file.read<double>("complex"), ContainsSubstring("holds no numbers"));
  CHECK(file.attribute<std::string>("/", "fixed") == "abc");
  CHECK(file.attribute<std::int64_t>("/", "int32") == 3);
  CHECK_THROWS_AS(file.attribute<float>("/", "nothing"), ptq::Error);
}

TEST_CASE("the same content gives the same bytes, in another process and second", "[hdf5]") {
  const TemporaryFolder folder("hdf5");
  example().save(folder / "a.h5");
  const auto bulk = [](const std::filesystem::path& path) {
    Hdf5Bulk file(path, {{"x", DType::f32, {50, 30}}, {"deep/y", DType::bf16, {3}}}, [](Hdf5Writer& rest) { rest.attribute("x", "n", 1); });
    const std::vector<float> rows(50 * 30, 2.5f);
    file.write(1, 0, std::as_bytes(std::span(halves).first(3)));
    file.write(0, 0, std::as_bytes(std::span(rows)));
    file.commit();
  };
  bulk(folder / "bulk.h5");
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  REQUIRE(in_child([&] {
            std::vector<std::vector<char>> noise;  // so that fresh memory is not zero
            for (std::size_t size = 16; size < (1U << 21U); size *= 2) noise.emplace_back(size, '\xa5');
            noise.clear();
            const std::vector<char> more(1U << 22U, '\x5a');
            example().save(folder / "b.h5");
            bulk(folder / "bulk2.h5");
            return more.front() == '\x5a' ? 0 : 1;
          }) == 0);
  CHECK(ptq::sha256_file(folder / "a.h5") == ptq::sha256_file(folder / "b.h5"));
  CHECK(ptq::sha256_file(folder / "bulk.h5") == ptq::sha256_file(folder / "bulk2.h5"));
  CHECK(contents(folder / "a.h5").size() > 2000);
}

TEST_CASE("a bulk file is filled row by row and reads as any other", "[hdf5]") {
  const TemporaryFolder folder("hdf5");
  std::vector<double> rows(40 * 9);
  std::iota(rows.begin(), rows.end(), 0.0);
  const auto slice = [&](std::size_t first, std::size_t count) { return std::as_bytes(std::span(rows).subspan(first * 9, count * 9)); };
  {
    Hdf5Bulk file(folder / "b.h5", {{"a/x", DType::f64, {40, 3, 3}}, {"n", DType::i64, {1}}, {"empty", DType::f32, {0, 5}}},
                  [](Hdf5Writer& rest) {
                    rest.dataset("small", std::vector<int>{1, 2, 3});
                    rest.attribute("a", "note", "hello");
                  });
    file.write(0, 25, slice(25, 15));
    file.write(0, 0, slice(0, 25));
    std::vector<double> back(9);
    file.read(0, 30, std::as_writable_bytes(std::span(back)));
    CHECK(back == std::vector<double>(rows.begin() + 270, rows.begin() + 279));
    CHECK_THROWS_WITH(file.write(0, 39, slice(0, 2)), ContainsSubstring("b.h5: a/x: 144 bytes are no rows from 39 of 40"));
    CHECK_THROWS_WITH(file.write(0, 0, slice(0, 1).first(8)), ContainsSubstring("no rows"));
    file.write(2, 0, {});
    CHECK_THROWS_WITH(file.commit(), ContainsSubstring("8 of 2888 bytes were never written"));
    CHECK(std::filesystem::is_empty(folder.path) == false);
    const std::int64_t n = 11;
    file.write(1, 0, std::as_bytes(std::span(&n, 1)));
    file.commit();
  }
  CHECK(folder.names() == std::set<std::string>{"b.h5"});
  {
    const Hdf5Reader file(folder / "b.h5");
    CHECK(file.read<double>("a/x") == rows);
    CHECK(file.read<std::int64_t>("n") == std::vector<std::int64_t>{11});
    CHECK(file.read<int>("small") == std::vector<int>{1, 2, 3});
    CHECK(file.info("empty").shape == std::vector<std::int64_t>{0, 5});
    CHECK(file.attribute<std::string>("a", "note") == "hello");
  }
  const hid_t plain = H5Fopen((folder / "b.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), x = H5Dopen2(plain, "a/x", H5P_DEFAULT);
  std::vector<double> read(rows.size());
  REQUIRE(H5Dread(x, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, read.data()) >= 0);
  CHECK(read == rows);
  H5Dclose(x), H5Fclose(plain);
  if (!have_h5py()) SKIP_TEST("no python3 with h5py");
  CHECK(python(folder,
               "import h5py, sys, numpy as np\nx = h5py.File(sys.argv[1])['a/x']\nassert np.array_equal(x[:].ravel(), np.arange(360.))",
               folder / "b.h5") == 0);
}

TEST_CASE("absurd bulk shapes are refused before anything is made", "[hdf5]") {
  const TemporaryFolder folder("hdf5");
  CHECK_THROWS_WITH(Hdf5Bulk(folder / "b.h5", {{"x", DType::f32, {INT64_MAX, 8}}}), ContainsSubstring("b.h5: x: its shape is absurd"));
  CHECK_THROWS_WITH(Hdf5Bulk(folder / "b.h5", {{"x", DType::f32, {-1}}}), ContainsSubstring("absurd"));
  CHECK_THROWS_WITH(Hdf5Bulk(folder / "b.h5", {{"x", DType::f32, {std::int64_t{1} << 50}}}),
                    ContainsSubstring("b.h5: no room for it: 4503599627378688 bytes"));
  CHECK(folder.names().empty());
}

TEST_CASE("a writer killed at any moment leaves the old file", "[hdf5]") {
  const TemporaryFolder folder("hdf5");
  const std::filesystem::path small = folder / "small.h5", large = folder / "large.h5";
  const std::vector<float> rows(100000, 1.0f);
  const auto write = [&](float value) {
    Hdf5Writer writer;
    writer.dataset("x", std::vector<float>(50000, value));
    writer.save(small);
    Hdf5Bulk bulk(large, {{"x", DType::f32, {100000}}}, [&](Hdf5Writer& rest) { rest.attribute("/", "value", value); });
    for (std::int64_t i = 0; i < 10; ++i) bulk.write(0, i * 10000, std::as_bytes(std::span(rows).first(10000)));
    bulk.commit();
  };
  write(1);
  const std::string old_small = contents(small), old_large = contents(large);
  write(2);
  const std::string new_small = contents(small), new_large = contents(large);
  REQUIRE((old_small != new_small && old_large != new_large));
  std::mt19937 random(3);
  std::size_t leftovers = 0;
  for (int round = 0; round < 20; ++round) {
    kill_during([&] { write(1), write(2); }, std::uniform_int_distribution<useconds_t>(1000, 40000)(random));
    const std::string found_small = contents(small), found_large = contents(large);
    CHECK((found_small == old_small || found_small == new_small));
    CHECK((found_large == old_large || found_large == new_large));
    leftovers += folder.names().size() - 2;
  }
  CHECK(leftovers > 0);  // else no kill came in the middle of a write
  write(1);
  CHECK(folder.names() == std::set<std::string>{"large.h5", "small.h5"});
}

TEST_CASE("a full disk is an error, leaves no file and does not crash at exit", "[hdf5]") {
  const TemporaryFolder folder("hdf5");
  const auto work = [&](bool bulk, bool announced) {
    try {
      const std::vector<double> values(100000, 1.0);
      if (bulk) {
        Hdf5Bulk file(folder / "full.h5", {{"x", DType::f64, {announced ? 100000 : 10}}}, [&](Hdf5Writer& rest) {
          if (!announced) rest.dataset("small", values);
        });
        file.write(0, 0, std::as_bytes(std::span(values)));
        file.commit();
      } else {
        Hdf5Writer writer;
        writer.dataset("x", values);
        writer.save(folder / "full.h5");
      }
    } catch (const ptq::Error& error) {
      const std::string what = error.what();
      if (what.find("full.h5: no room for it") == std::string::npos) return 1;
      return std::filesystem::is_empty(folder.path) ? 0 : 2;
    }
    return 3;
  };
  for (const bool bulk : {false, true}) {
    CHECK(in_child([&] { return limit_file_size(100 << 10) ? work(bulk, true) : could_not_try; }) == 0);
    for (const bool announced : {false, true}) {
      const int status = in_child([&] { return mount_small_disk(folder.path, "200k") ? work(bulk, announced) : could_not_try; });
      if (status == could_not_try) SKIP_TEST("this user may not mount a small disk");
      CHECK(status == 0);
    }
  }
}

TEST_CASE("files that are no HDF5, or cut off, are errors", "[hdf5]") {
  const TemporaryFolder folder("hdf5");
  CHECK_THROWS_WITH(Hdf5Reader(folder / "absent.h5"), ContainsSubstring("absent.h5: cannot be opened: No such file"));
  CHECK_THROWS_WITH(Hdf5Reader(folder.path), ContainsSubstring("cannot be opened"));
  for (const std::string& text : {std::string(), std::string("{}"), std::string(5000, 'x'), std::string("\x89HDF\r\n\x1a", 7)}) {
    std::ofstream(folder / "text.h5", std::ios::binary) << text;
    CHECK_THROWS_WITH(Hdf5Reader(folder / "text.h5"), ContainsSubstring("text.h5: is not an HDF5 file"));
  }
  for (const char* size : {"00000000000000000000", "99999999999999999999", "00000000000000000001", "x"}) {
    std::ofstream(folder / "text.h5", std::ios::binary) << std::string(100, '0') << "ptq-seal 1 " << size << "\n";
    CHECK_THROWS_WITH(Hdf5Reader(folder / "text.h5"), ContainsSubstring("text.h5: is "));
  }
  example().save(folder / "a.h5");
  const std::string whole = contents(folder / "a.h5");
  for (std::size_t size = 0; size < whole.size() - 97; size += 97) {  // 97: the seal alone
    std::ofstream(folder / "cut.h5", std::ios::binary) << whole.substr(0, size);
    CHECK_THROWS_WITH(Hdf5Reader(folder / "cut.h5"), ContainsSubstring("cut.h5: "));
  }
}

TEST_CASE("claims that the file cannot hold are refused before allocation", "[hdf5]") {
  const TemporaryFolder folder("hdf5");
  ptq::io::hdf5::start();
  const auto refused = [&](const char* why) {
    const Hdf5Reader file(folder / "d.h5");
    CHECK_THROWS_WITH(file.info("d"), ContainsSubstring("d.h5: d: ") && ContainsSubstring(why));
    CHECK_THROWS_WITH(file.read<float>("d"), ContainsSubstring(why));
    CHECK_THROWS_WITH(file.read_rows<float>("d", 0, 1), ContainsSubstring(why));
  };
  make_plain(folder / "d.h5", H5T_IEEE_F32LE, {hsize_t{1} << 40U});  // never written: all fill values
  refused("claims 4398046511104 bytes");
  make_plain(folder / "d.h5", H5T_IEEE_F32LE, {hsize_t{1} << 40U, 16}, {16, 16});
  refused("claims 70368744177664 bytes");
  make_plain(folder / "d.h5", H5T_IEEE_F32LE, {hsize_t{1} << 40U, hsize_t{1} << 40U}, {16, 16});
  refused("absurd");
  make_plain(folder / "d.h5", H5T_IEEE_F32LE, {hsize_t{1} << 40U, hsize_t{1} << 40U, 0}, {16, 16, 16});
  refused("absurd");
  make_plain(folder / "d.h5", H5T_IEEE_F32LE, {1U << 29U}, {1U << 29U});
  refused("claims");
  make_plain(folder / "d.h5", H5T_IEEE_F32LE, {100});  // few fill values are harmless
  CHECK(Hdf5Reader(folder / "d.h5").read<float>("d") == std::vector<float>(100, 0.0f));
}

TEST_CASE("a stored size that was enlarged is caught", "[hdf5]") {
  const TemporaryFolder folder("hdf5");
  make_plain(folder / "old.h5", H5T_IEEE_F64LE, {77});  // in the oldest format, which has no checksums
  const hid_t file = H5Fopen((folder / "old.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT), made = H5Dopen2(file, "d", H5P_DEFAULT);
  const std::vector<double> ones(77, 1.0);
  H5Dwrite(made, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, ones.data());
  H5Dclose(made), H5Fclose(file);
  std::vector<std::byte> old = bytes_of(contents(folder / "old.h5"));
  std::size_t changed = 0;
  for (std::size_t i = 0; i + 8 <= old.size(); ++i) {
    const auto value = ptq::io::load_raw<std::uint64_t>(old.data() + i);
    if (value != 77 && value != 616) continue;
    old[i + 5] = std::byte{1};
    ++changed;
  }
  REQUIRE(changed >= 2);
  ptq::io::write_atomically(folder / "old.h5", old);
  const Hdf5Reader reader(folder / "old.h5");
  CHECK_THROWS_WITH(reader.read<double>("d"), ContainsSubstring("old.h5: d: "));
}

TEST_CASE("a sealed file whose bytes were changed is refused before the library reads it", "[hdf5]") {
  const TemporaryFolder folder("hdf5");
  const auto changed = folder / "changed.h5";
  example().save(folder / "a.h5");
  const std::string whole = contents(folder / "a.h5");
  CHECK_NOTHROW(Hdf5Reader(folder / "a.h5", ptq::io::Hdf5Origin::ours));
  const std::size_t tail = 32 + 65;  // the seal of a file without bulk datasets: its own bytes guard nothing
  for (std::size_t i = 0; i < whole.size() - tail; i += 61) {
    std::string bytes = whole;
    bytes[i] = static_cast<char>(bytes[i] ^ 0x10);
    std::ofstream(changed, std::ios::binary) << bytes;
    CHECK_THROWS_WITH(Hdf5Reader(changed), ContainsSubstring("changed.h5: is damaged"));
  }
  for (std::size_t i = whole.size() - tail; i < whole.size(); ++i) {
    std::string bytes = whole;
    bytes[i] = static_cast<char>(bytes[i] ^ 0x01);
    std::ofstream(changed, std::ios::binary) << bytes;
    CHECK_THROWS_AS(Hdf5Reader(changed, ptq::io::Hdf5Origin::ours), ptq::Error);
  }
  std::ofstream(changed, std::ios::binary) << whole.substr(0, whole.size() - tail);
  CHECK(Hdf5Reader(changed).read<double>("z/one") == std::vector<double>{7});
  CHECK_THROWS_WITH(Hdf5Reader(changed, ptq::io::Hdf5Origin::ours), ContainsSubstring("was not written by ptq, or was changed since"));

  const std::vector<float> rows(100, 1.0f);
  Hdf5Bulk bulk(folder / "b.h5", {{"x", DType::f32, {4, 25}}, {"none", DType::f32, {0}}, {"y", DType::f32, {100}}});
  bulk.write(0, 0, std::as_bytes(std::span(rows)));
  bulk.write(2, 0, std::as_bytes(std::span(rows)));
  bulk.commit();
  const std::string large = contents(folder / "b.h5");
  std::size_t refused = 0, tried = 0;
  for (std::size_t i = 0; i < large.size(); i += 8) {
    ++tried;
    std::string bytes = large;
    bytes[i] = static_cast<char>(bytes[i] ^ 0x10);
    std::ofstream(changed, std::ios::binary) << bytes;
    try {
      (void)Hdf5Reader(changed, ptq::io::Hdf5Origin::ours);
    } catch (const ptq::Error&) {
      ++refused;
    }
  }
  CHECK(tried - refused == 100);  // 800 of 8 apart: the elements, which lie at multiples of 8
}
