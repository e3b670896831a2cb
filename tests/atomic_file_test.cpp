// torch: no
// Files that exist whole or not at all, through kills, full disks and second writers.
#include <ptq/io/atomic_file.hpp>
#include <ptq/io/file_lock.hpp>

#include <random>

#include "catch.hpp"
#include "temporary_folder.hpp"

namespace {

namespace fs = std::filesystem;
using Catch::Matchers::ContainsSubstring;

/// 0 when the write fails as a full disk should: named, in bytes, nothing left; else which expectation failed.
int fails_for_room(const fs::path& folder, std::size_t size, bool announced) {
  const fs::path file = folder / "big";
  try {
    ptq::io::AtomicFile writer(file, announced ? size : 0);
    const std::string piece(4096, 'x');
    for (std::size_t written = 0; written < size; written += piece.size()) writer.write(piece);
    writer.commit();
  } catch (const ptq::Error& error) {
    const std::string what = error.what();
    if (what.find("big: no room") == std::string::npos) return 1;
    if (announced && what.find(std::to_string(size) + " bytes are needed") == std::string::npos) return 2;
    return fs::is_empty(folder) ? 0 : 3;
  }
  return 4;
}

}  // namespace

TEST_CASE("a file appears at commit, with its bytes, and nothing else remains", "[atomic_file]") {
  const TemporaryFolder folder("atomic");
  {
    ptq::io::AtomicFile file(folder / "a", 8);
    file.write("01234567");
    file.write("89");
    file.write_at(12, std::as_bytes(std::span("zz", 2)));
    std::array<std::byte, 2> back{};
    file.read_at(4, back);
    CHECK(back[0] == std::byte{'4'});
    CHECK_THROWS_WITH(file.read_at(13, back), ContainsSubstring("/a: cannot read back"));
    CHECK_FALSE(fs::exists(folder / "a"));
    file.commit();
    CHECK_THROWS_AS(file.commit(), ptq::Error);
  }
  CHECK(contents(folder / "a") == std::string("0123456789\0\0zz", 14));
  ptq::io::write_atomically(folder / "a", "new");
  CHECK(contents(folder / "a") == "new");
  ptq::io::write_atomically(folder / "empty", "");
  CHECK(fs::file_size(folder / "empty") == 0);
  CHECK(folder.names() == std::set<std::string>{"a", "empty"});
}

TEST_CASE("reserved room that was not used is given back", "[atomic_file]") {
  const TemporaryFolder folder("atomic");
  ptq::io::AtomicFile file(folder / "a", 1U << 20U);
  file.write("short");
  file.commit();
  struct stat status {};
  REQUIRE(::stat((folder / "a").c_str(), &status) == 0);
  CHECK(status.st_size == 5);
  CHECK(status.st_blocks * 512 < 1 << 17);
}

TEST_CASE("an abandoned file leaves the old one", "[atomic_file]") {
  const TemporaryFolder folder("atomic");
  ptq::io::write_atomically(folder / "a", "old");
  { ptq::io::AtomicFile(folder / "a").write("half of the n"); }
  CHECK(contents(folder / "a") == "old");
  CHECK(folder.names() == std::set<std::string>{"a"});
}

TEST_CASE("a link to a file stays a link", "[atomic_file]") {
  const TemporaryFolder folder("atomic");
  fs::create_directory(folder / "far");
  ptq::io::write_atomically(folder / "far/a", "old");
  fs::create_symlink(folder / "far/a", folder / "link");
  ptq::io::write_atomically(folder / "link", "new");
  CHECK(fs::is_symlink(folder / "link"));
  CHECK(contents(folder / "far/a") == "new");
}

TEST_CASE("places that cannot be written are named", "[atomic_file]") {
  const TemporaryFolder folder("atomic");
  CHECK_THROWS_WITH(ptq::io::write_atomically(folder / "absent/a", "x"), ContainsSubstring("absent/a: cannot be written"));
  CHECK_THROWS_WITH(ptq::io::write_atomically(folder.path, "x"), ContainsSubstring("is a folder"));
  CHECK_THROWS_WITH(ptq::io::write_atomically("/dev/null", "x"), ContainsSubstring("no regular file"));
  CHECK_THROWS_WITH(ptq::io::write_atomically("/proc/a", "x"), ContainsSubstring("/proc/a: cannot be written in /proc"));
  CHECK(in_child([&] {
          if (::getuid() == 0 && (::setgid(65534) != 0 || ::setuid(65534) != 0)) return could_not_try;
          try {
            ptq::io::write_atomically(folder / "a", "x");
          } catch (const ptq::Error& error) {
            return std::string(error.what()).find("Permission denied") == std::string::npos ? 1 : 0;
          }
          return ::getuid() == 65534 ? 2 : 0;
        }) == 0);
  CHECK(folder.names().empty());
}

TEST_CASE("a file size limit is an error, not a signal, and leaves nothing", "[atomic_file]") {
  const TemporaryFolder folder("atomic");
  for (const bool announced : {false, true}) {
    CHECK(in_child([&] { return limit_file_size(64 << 10) ? fails_for_room(folder.path, 128 << 10, announced) : could_not_try; }) == 0);
  }
}

TEST_CASE("a full disk is an error and leaves nothing", "[atomic_file]") {
  const TemporaryFolder folder("atomic");
  for (const bool announced : {false, true}) {
    const int status = in_child([&] {
      if (!mount_small_disk(folder.path, "64k")) return could_not_try;
      return fails_for_room(folder.path, 128 << 10, announced);
    });
    if (status == could_not_try) SKIP_TEST("this user may not mount a small disk");
    CHECK(status == 0);
  }
}

TEST_CASE("a writer killed at any moment leaves the old file or the new one, and the next writer sweeps up", "[atomic_file]") {
  const TemporaryFolder folder("atomic");
  const fs::path file = folder / "a";
  const std::string first(300000, 'a'), second(200000, 'b');
  ptq::io::write_atomically(file, first);
  std::mt19937 random(7);
  std::size_t leftovers = 0;
  for (int round = 0; round < 25; ++round) {
    const auto alternate = [&] {
      ptq::io::write_atomically(file, second);
      ptq::io::write_atomically(file, first);
    };
    kill_during(alternate, std::uniform_int_distribution<useconds_t>(500, 20000)(random));
    const std::string found = contents(file);
    CHECK((found == first || found == second));
    leftovers += folder.names().size() - 1;
  }
  CHECK(leftovers > 0);  // else no kill came in the middle of a write and nothing was tested
  ptq::io::write_atomically(file, first);
  CHECK(folder.names() == std::set<std::string>{"a"});
}

TEST_CASE("a living writer's temporary file is not swept, nor a stranger's file", "[atomic_file]") {
  const TemporaryFolder folder("atomic");
  std::ofstream(folder / "a.1-x.part") << "mine";
  ptq::io::AtomicFile slow(folder / "a");
  slow.write("slow");
  ptq::io::write_atomically(folder / "a", "quick");
  slow.commit();
  CHECK(contents(folder / "a") == "slow");
  CHECK(folder.names() == std::set<std::string>{"a", "a.1-x.part"});
}

TEST_CASE("a second writer is told who holds the lock, and a kill releases it", "[file_lock]") {
  const TemporaryFolder folder("atomic");
  const fs::path file = folder / "results.h5";
  {
    const ptq::io::FileLock lock(file);
    const std::string holder = "results.h5: is being written by process " + std::to_string(::getpid());
    CHECK_THROWS_WITH(ptq::io::FileLock(file), ContainsSubstring(holder));
    CHECK(in_child([&] {
            try {
              const ptq::io::FileLock second(file);
            } catch (const ptq::Error& error) {
              return std::string(error.what()).find(holder) == std::string::npos ? 1 : 0;
            }
            return 2;
          }) == 0);
  }
  CHECK_NOTHROW(ptq::io::FileLock(file));
  CHECK(in_child([&] {
          const ptq::io::FileLock lock(file);
          ::raise(SIGKILL);
          return 0;
        }) == -SIGKILL);
  CHECK_NOTHROW(ptq::io::FileLock(file));
  CHECK_THROWS_WITH(ptq::io::FileLock(folder / "absent/r.h5"), ContainsSubstring("r.h5.lock cannot be made"));
}

TEST_CASE("a patient writer waits for the lock", "[file_lock]") {
  const TemporaryFolder folder("atomic");
  const fs::path file = folder / "r.h5";
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const ptq::io::FileLock lock(file);
    if (::write(ready[1], "x", 1) != 1) ::_exit(1);
    ::usleep(100000);
    ::_exit(0);
  }
  char byte = 0;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  CHECK_THROWS_AS(ptq::io::FileLock(file), ptq::Error);
  CHECK_NOTHROW(ptq::io::FileLock(file, std::chrono::seconds(10)));
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
}
