// torch: no
// SHA-256 against the examples of FIPS 180-4 (abc, two blocks, a million a's) and against itself only where laws are meant.
#include <ptq/core/digest.hpp>

#include <unistd.h>

#include <fstream>

#include "catch.hpp"

namespace {
const std::string abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const std::string million_a = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
}  // namespace

TEST_CASE("SHA-256 gives the standard's examples", "[digest]") {
  CHECK(ptq::sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(ptq::sha256("abc") == abc);
  CHECK(ptq::sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  ptq::Sha256 pieces;
  for (int i = 0; i < 1000; ++i) pieces.update(std::string(1000, 'a'));
  CHECK(pieces.hex() == million_a);
}

TEST_CASE("a digest can be read in the middle and go on", "[digest]") {
  ptq::Sha256 digest;
  digest.update("ab");
  (void)digest.hex();
  CHECK(digest.update("c").hex() == abc);
}

TEST_CASE("fields are told apart by name, type and length", "[digest]") {
  const auto key = [](auto&& fill) {
    ptq::Sha256 digest;
    fill(digest);
    return digest.hex();
  };
  const std::string one = key([](auto& d) { d.field("a", 1); });
  CHECK(one == key([](auto& d) { d.field("a", std::int64_t{1}); }));
  CHECK(one == key([](auto& d) { d.field("a", short{1}); }));
  CHECK(one != key([](auto& d) { d.field("b", 1); }));
  CHECK(one != key([](auto& d) { d.field("a", 1U); }));
  CHECK(one != key([](auto& d) { d.field("a", 1.0); }));
  CHECK(one != key([](auto& d) { d.field("a", true); }));
  CHECK(one != key([](auto& d) { d.field("a", "1"); }));
  CHECK(key([](auto& d) { d.field("a", "bc"); }) != key([](auto& d) { d.field("ab", "c"); }));
  CHECK(key([](auto& d) { d.field("a", "b").field("c", "d"); }) != key([](auto& d) { d.field("a", "bc").field("", "d"); }));
  CHECK(key([](auto& d) { d.field("a", 0.0); }) != key([](auto& d) { d.field("a", -0.0); }));
  // The layout is part of the caches' names: length, name, type, length, value, little-endian, as hashed by hand here.
  const std::string layout("\1\0\0\0\0\0\0\0ai\x8\0\0\0\0\0\0\0\xfe\xff\xff\xff\xff\xff\xff\xff", 26);
  CHECK(key([](auto& d) { d.field("a", -2); }) == ptq::sha256(layout));
}

TEST_CASE("a file's digest is that of its bytes, and a missing file is named", "[digest]") {
  const auto path = std::filesystem::temp_directory_path() / ("ptq_digest_" + std::to_string(::getpid()));
  std::ofstream(path, std::ios::binary) << std::string(1000000, 'a');
  CHECK(ptq::sha256_file(path) == million_a);
  std::filesystem::remove(path);
  CHECK_THROWS_WITH(ptq::sha256_file(path),
                    Catch::Matchers::ContainsSubstring("ptq_digest_") && Catch::Matchers::ContainsSubstring("No such file"));
  CHECK_THROWS_AS(ptq::sha256_file(std::filesystem::temp_directory_path()), ptq::Error);  // a folder
}
