// torch: no
// Memory in nameless files: it holds what is written, gives pages back, leaves nothing behind, and meets a full disk before it is used.
#include <ptq/io/scratch_map.hpp>

#include <numeric>

#include <ptq/io/mapped_file.hpp>

#include "catch.hpp"
#include "pages.hpp"
#include "temporary_folder.hpp"

namespace {

using Catch::Matchers::ContainsSubstring;
using ptq::io::ScratchMap;

std::span<int> numbers(const ScratchMap& map) { return {reinterpret_cast<int*>(map.bytes().data()), map.bytes().size() / sizeof(int)}; }

/// 0 when there is no room, said by folder and bytes; else which expectation failed.
int fails_for_room(const std::filesystem::path& folder, std::size_t bytes) {
  try {
    const ScratchMap map(folder, bytes);
    return 1;
  } catch (const ptq::Error& error) {
    const std::string what = error.what();
    if (what.find(folder.string() + ": no room for a temporary file: " + std::to_string(bytes) + " bytes are needed") != 0) return 2;
    return std::filesystem::is_empty(folder) ? 0 : 3;
  }
}

}  // namespace

TEST_CASE("what is written to a scratch map stays there when its pages are given back", "[scratch_map]") {
  const TemporaryFolder folder("scratch");
  ScratchMap map(folder.path, std::size_t{8} << 20U);
  CHECK(folder.names().empty());
  const auto all = numbers(map);
  CHECK(std::accumulate(all.begin(), all.end(), 0L) == 0);
  std::iota(all.begin(), all.end(), 0);
  const long present = present_pages(map.bytes());
  ptq::io::forget_pages(map.bytes());
  if (present < 0)
    ptq::test::skipped("the pages of a process cannot be counted here");
  else
    CHECK((present > 0 && present_pages(map.bytes()) == 0));
  CHECK(all[1234567] == 1234567);
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  ptq::io::forget_pages(map.bytes().subspan(100, 3 * page));  // whole pages inside only; all values stay
  bool same = true;
  for (std::size_t i = 0; i < all.size(); ++i) same = same && all[i] == static_cast<int>(i);
  CHECK(same);
  ScratchMap moved(std::move(map));
  CHECK(map.bytes().empty());
  CHECK(numbers(moved)[77] == 77);
  CHECK(ScratchMap(folder.path, 0).bytes().empty());
}

TEST_CASE("the disk has its room back when a scratch map is gone, and a killed process leaves no file", "[scratch_map]") {
  const TemporaryFolder folder("scratch");
  const auto work = [&] {
    const ScratchMap map(folder.path, std::size_t{4} << 20U);
    std::ranges::fill(numbers(map), 7);
  };
  for (useconds_t instant = 500; instant < 20000; instant += 1500) {
    kill_during(work, instant);
    REQUIRE(folder.names().empty());
  }
  const int status = in_child([&] {
    if (!mount_small_disk(folder.path, "6m")) return could_not_try;
    for (int i = 0; i < 5; ++i) work();  // two at once would not fit
    return 0;
  });
  if (status == could_not_try) SKIP_TEST("this user may not mount a small disk");
  CHECK(status == 0);
}

TEST_CASE("where no nameless file can be made, the name goes at once", "[scratch_map]") {
  const TemporaryFolder folder("scratch");
  const int descriptor = ptq::io::detail::unlinked_file(folder.path);
  REQUIRE(descriptor >= 0);
  CHECK(folder.names().empty());
  CHECK(::write(descriptor, "abc", 3) == 3);
  ::close(descriptor);
  CHECK(ptq::io::detail::unlinked_file(folder / "absent") < 0);
}

TEST_CASE("a scratch map fails before it is used where its folder or its disk cannot hold it", "[scratch_map]") {
  const TemporaryFolder folder("scratch");
  CHECK_THROWS_WITH(ScratchMap(folder / "absent", 1), ContainsSubstring("absent: no temporary file can be made there: No such file"));
  std::ofstream(folder / "file") << "x";
  CHECK_THROWS_WITH(ScratchMap(folder / "file", 1), ContainsSubstring("file: no temporary file can be made there: Not a directory"));
  std::filesystem::remove(folder / "file");
  const std::size_t huge = std::size_t{1} << 52U;
  if (std::filesystem::space(folder.path).available < huge) CHECK(fails_for_room(folder.path, huge) == 0);
  CHECK_THROWS_WITH(ScratchMap(folder.path, SIZE_MAX), ContainsSubstring("more than a file can hold"));
  CHECK(in_child([&] { return limit_file_size(64 << 10) ? fails_for_room(folder.path, 128 << 10) : could_not_try; }) == 0);
  const int status = in_child([&] {
    if (!mount_small_disk(folder.path, "64k")) return could_not_try;
    const ScratchMap fits(folder.path, 32 << 10);
    return fails_for_room(folder.path, 48 << 10);
  });
  if (status == could_not_try) SKIP_TEST("this user may not mount a small disk");
  CHECK(status == 0);
  const int locked = in_child([&] {
    std::filesystem::permissions(folder.path, std::filesystem::perms(0555));
    if (::getuid() == 0 && (::setgid(65534) != 0 || ::setuid(65534) != 0)) return could_not_try;
    try {
      const ScratchMap map(folder.path, 1);
    } catch (const ptq::Error& error) {
      return std::string(error.what()) == folder.path.string() + ": no temporary file can be made there: Permission denied" ? 0 : 1;
    }
    return 2;
  });
  if (locked == could_not_try) SKIP_TEST("this user may write anywhere");
  CHECK(locked == 0);
}
