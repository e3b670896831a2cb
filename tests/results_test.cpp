// torch: no
// Results: what was saved is read back, by us and by h5py; collections grow and never lose a run; tables and JSON say what the runs hold.
#include <ptq/results.hpp>
#include <ptq/results/json.hpp>
#include <ptq/results/linears.hpp>

#include <cstdlib>
#include <limits>
#include <memory>

#include "catch.hpp"
#include "temporary_folder.hpp"

namespace {

using Catch::Matchers::ContainsSubstring;
using namespace ptq::results;

Run reference() {
  Run run;
  run.digest = "00aa";
  run.label = "full precision";
  run.recipe = "none";
  run.full_precision = true;
  run.started = "2025-01-01T00:00:00Z";
  run.model_bits_per_parameter = 32;
  run.evaluations.push_back({"wikitext2", "gptq", 2, 512, 1024, 30.6403, 1.25, std::nullopt, std::nullopt, {3.4, 3.45}});
  run.seconds = 12.34;
  return run;
}

/// Every field holds something that is not its default.
Run quantized() {
  Run run;
  run.digest = "beef01";
  run.label = "gptq int4:g64";
  run.recipe = "gptq(damp=0.02)";
  run.seed = -3;
  run.started = "2025-01-01T00:01:00Z";
  run.revision = "0123abc";
  run.description = {{"solver.damp", "0.02"}, {"solver.order", "natural"}, {"loss.reduce", ""}};
  run.precision = {{"weights", "int4:g64:asym"}, {"blocks.0.*", "int8:channel"}, {"head", "none"}};
  run.settings = {{"calibrate", "books_valid:16x512"}, {"first token", "none"}};
  run.versions = {{"ptq", "0.1"}, {"hdf5", "1.10.8"}};
  run.machine = {{"cpu", "Prozessor Größe 3"}, {"threads", "2"}};
  run.model = {{"path", "/models/a b/c.gguf"}, {"digest", "ff"}};
  run.evaluations.push_back({"wikitext2", "gptq", 2, 512, 1024, 32.0, 1.5, 1.3597, 0.125, {3.4, 3.5}});
  run.evaluations.push_back({"books_test", "tail", 1, 256, 256, 123456.0, std::nullopt, 7.0, std::nullopt, {11.7}});
  run.blocks.push_back(
      {0,
       0.001,
       {{"self_attn.q_proj", 0.01, 0.5, 0.25, {{"damp", 0.02}, {"loss", 7.5}}}, {"mlp.up_proj", 0.02, std::nullopt, 0.5, {}}},
       {}});
  run.blocks.push_back({1, std::nullopt, {{"self_attn.q_proj", 0.03, 0.75, std::nullopt, {{"loss", 8.5}}}}, {3.0, 2.0, 1.5}});
  run.stages = {{"calibrate", 1.5}, {"solve", 2.5}};
  run.bits_per_weight = 4.5625;
  run.model_bits_per_parameter = 9.25;
  run.seconds = 61.05;
  run.peak_memory_bytes = 123456789012;
  return run;
}

void save_plain(const std::filesystem::path& path, const Run& run) {
  ptq::io::Hdf5Writer file;
  put_run(file, run);
  file.save(path);
}

std::vector<std::string> labels(const std::filesystem::path& path) {
  std::vector<std::string> all;
  for (const Run& run : load(path)) all.push_back(run.label);
  return all;
}

int run_python(const TemporaryFolder& folder, const std::string& program, const std::string& argument) {
  std::ofstream(folder / "program.py") << program;
  return std::system(("python3 " + (folder / "program.py").string() + " " + argument).c_str());
}

}  // namespace

TEST_CASE("a run is read back as it was", "[results]") {
  const TemporaryFolder folder("results");
  for (const Run& run : {Run{.digest = "0", .label = "empty"}, reference(), quantized()}) {
    save_plain(folder / "run.h5", run);
    const std::vector<Run> back = load(folder / "run.h5");
    REQUIRE(back.size() == 1);
    CHECK(back[0] == run);
  }
  Run changed = quantized();
  changed.blocks[1].linears[0].numbers[0].second += 1;
  CHECK_FALSE(load(folder / "run.h5")[0] == changed);  // equality sees the last detail
}

TEST_CASE("h5py reads runs by the schema of docs/formats.md", "[results]") {
  if (std::system("python3 -c 'import h5py' 2>/dev/null") != 0) SKIP_TEST("no python3 with h5py");
  const TemporaryFolder folder("results");
  save(folder / "r.h5", reference());
  save(folder / "r.h5", quantized());
  CHECK(run_python(folder, R"(
import h5py, numpy as np, sys
f = h5py.File(sys.argv[1], 'r')
assert list(f['runs']) == ['0000', '0001']
full, run = f['runs/0000'], f['runs/0001']
assert full.attrs['full_precision'] and 'bits_per_weight' not in full.attrs
a = dict(run.attrs)
assert a['schema'] == 1 and a['label'] == 'gptq int4:g64' and a['recipe'] == 'gptq(damp=0.02)' and a['digest'] == 'beef01'
assert a['seed'] == -3 and a['bits_per_weight'] == 4.5625 and a['model_bits_per_parameter'] == 9.25
assert a['seconds'] == 61.05 and a['peak_memory_bytes'] == 123456789012 and not a['full_precision'] and a['revision'] == '0123abc'
assert dict(run['description'].attrs) == {'solver.damp': '0.02', 'solver.order': 'natural', 'loss.reduce': ''}
assert run['machine'].attrs['cpu'] == 'Prozessor Größe 3' and run['precision'].attrs['blocks.0.*'] == 'int8:channel'
assert run['stages'].attrs['solve'] == 2.5 and run['model'].attrs['path'] == '/models/a b/c.gguf'
e = run['evaluations/0000']
assert dict(e.attrs) == dict(text='wikitext2', protocol='gptq', windows=2, window=512, tokens=1024, perplexity=32.0,
                             standard_error=1.5, difference=1.3597, difference_standard_error=0.125)
assert list(e['nll'][:]) == [3.4, 3.5] and 'standard_error' not in run['evaluations/0001'].attrs
l = run['linears']
assert list(l['name'].asstr()[:]) == ['self_attn.q_proj', 'mlp.up_proj', 'self_attn.q_proj'] and list(l['block'][:]) == [0, 0, 1]
assert list(l['relative_error'][:]) == [0.01, 0.02, 0.03] and np.isnan(l['relative_to_rtn'][1])
assert list(l['numbers/loss'][[0, 2]]) == [7.5, 8.5] and np.isnan(l['numbers/loss'][1])
assert run['blocks/error'][0] == 0.001 and np.isnan(run['blocks/error'][1]) and list(run['losses/0001'][:]) == [3.0, 2.0, 1.5]
)",
                   (folder / "r.h5").string()) == 0);
}

TEST_CASE("a collection keeps all runs, full precision first, and a run done again takes its old place", "[results]") {
  const TemporaryFolder folder("results");
  const auto results = folder / "r.h5";
  Run first = quantized(), second = quantized();
  first.digest = "zz1", first.label = "first", first.started = "2025-01-03T00:00:00Z";
  second.digest = "aa2", second.label = "second", second.started = "2025-01-02T00:00:00Z";
  save(results, first);
  save(results, second);
  CHECK(labels(results) == std::vector<std::string>{"first", "second"});
  save(results, reference());
  CHECK(labels(results) == std::vector<std::string>{"full precision", "first", "second"});
  first.label = "first again";
  save(results, first);
  CHECK(labels(results) == std::vector<std::string>{"full precision", "first again", "second"});
  CHECK(load(run_file(results, "aa2")).front() == second);

  std::filesystem::remove(results);  // the collection can be made anew: then by start
  collect(results, ptq::io::FileLock(results));
  CHECK(labels(results) == std::vector<std::string>{"full precision", "second", "first again"});
  CHECK(folder.names() == std::set<std::string>{"r.h5", "r.h5.d", "r.h5.lock"});
}

TEST_CASE("a run evaluated again on another text keeps what it found on the first", "[results]") {
  const TemporaryFolder folder("results");
  const auto results = folder / "r.h5";
  save(results, quantized());
  Run again = quantized();
  again.evaluations = {again.evaluations[0]};
  again.evaluations[0].perplexity = 33;
  again.evaluations.push_back({"ptb", "gptq", 1, 512, 512, 50.0, std::nullopt, std::nullopt, std::nullopt, {3.9}});
  save(results, again);
  const Run both = load(results).front();
  REQUIRE(both.evaluations.size() == 3);
  CHECK(both.evaluations[0] == again.evaluations[0]);
  CHECK(both.evaluations[1] == quantized().evaluations[1]);
  CHECK(both.evaluations[2] == again.evaluations[1]);
  std::ofstream(run_file(results, "beef01")) << "damaged";  // replaced, since the run is at hand
  save(results, again);
  CHECK(load(results).front() == again);
}

TEST_CASE("the same runs give the same collection, byte for byte", "[results]") {
  const TemporaryFolder folder("results");
  for (const char* name : {"a.h5", "b.h5"}) {
    save(folder / name, reference());
    save(folder / name, quantized());
  }
  CHECK((contents(folder / "a.h5") == contents(folder / "b.h5")));
}

TEST_CASE("two programs that save at once lose nothing", "[results]") {
  const TemporaryFolder folder("results");
  const auto results = folder / "r.h5";
  std::vector<pid_t> children;
  for (int child = 0; child < 3; ++child) {
    children.push_back(::fork());
    if (children.back() != 0) continue;
    int status = 0;
    try {
      for (int i = 0; i < 5; ++i) {
        Run run = quantized();
        run.digest = "run" + std::to_string(child) + "-" + std::to_string(i);
        save(results, run);
      }
    } catch (...) {
      status = 1;
    }
    ::_exit(status);
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK(status == 0);
  }
  CHECK(load(results).size() == 15);
}

TEST_CASE("places and names that cannot hold results are refused before work", "[results]") {
  const TemporaryFolder folder("results");
  CHECK_THROWS_WITH(require_writable(folder / "absent/r.h5"), ContainsSubstring("absent/r.h5: cannot be written"));
  CHECK_THROWS_WITH(require_writable(folder.path), ContainsSubstring("is a folder"));
  CHECK_THROWS_WITH(require_writable("/proc/r.h5"), ContainsSubstring("/proc/r.h5"));
  std::ofstream(folder / "diary.txt") << "dear diary";
  CHECK_THROWS_WITH(require_writable(folder / "diary.txt"), ContainsSubstring("diary.txt: exists and is not replaced"));
  ptq::io::Hdf5Writer other;
  other.dataset("x", std::vector<int>{1});
  other.save(folder / "other.h5");
  CHECK_THROWS_WITH(require_writable(folder / "other.h5"), ContainsSubstring("is no result of ptq"));
  std::ofstream(folder / "r.h5.d") << "a file where the folder should be";
  CHECK_THROWS_AS(require_writable(folder / "r.h5"), ptq::Error);
  CHECK(folder.names() == std::set<std::string>{"diary.txt", "other.h5", "r.h5.d"});
  require_writable(folder / "good.h5");
  CHECK_FALSE(std::filesystem::exists(folder / "good.h5"));
  save(folder / "good.h5", reference());
  CHECK_NOTHROW(require_writable(folder / "good.h5"));
  Run run = reference();
  run.digest = "../../up";
  CHECK_THROWS_WITH(save(folder / "good.h5", run), ContainsSubstring("cannot name a file"));
  const ptq::io::FileLock lock(folder / "elsewhere");
  CHECK_THROWS_WITH(save(folder / "good.h5", reference(), lock), ContainsSubstring("elsewhere"));
}

TEST_CASE("a full disk leaves the collection as it was", "[results]") {
  const TemporaryFolder folder("results");
  const auto results = folder / "r.h5";
  save(results, reference());
  const std::string before = contents(results);
  CHECK(in_child([&] {
          if (!limit_file_size(20 << 10)) return could_not_try;
          Run big = quantized();
          big.evaluations[0].nll.assign(10000, 1.0);
          try {
            save(results, big);
          } catch (const ptq::Error& error) {
            return std::string(error.what()).find("beef01.h5: no room for it") == std::string::npos ? 1 : 0;
          }
          return 2;
        }) == 0);
  CHECK((contents(results) == before));
  CHECK(labels(results) == std::vector<std::string>{"full precision"});
}

TEST_CASE("files that break the schema are named", "[results]") {
  const TemporaryFolder folder("results");
  {
    ptq::io::Hdf5Writer file;
    file.attribute("/", "schema", 99);
    file.attribute("/", "label", "from the future");
    file.save(folder / "new.h5");
  }
  CHECK_THROWS_WITH(load(folder / "new.h5"), ContainsSubstring("new.h5: /: has schema 99"));
  {
    ptq::io::Hdf5Writer file;
    file.attribute("/", "schema", schema);
    file.attribute("/", "label", 7);
    file.attribute("/", "digest", "d");
    file.save(folder / "wrong.h5");
  }
  CHECK_THROWS_WITH(load(folder / "wrong.h5"), ContainsSubstring("wrong.h5: /, attribute label: is no text"));
  std::filesystem::create_directories(runs_folder(folder / "r.h5"));
  std::ofstream(run_file(folder / "r.h5", "bad")) << "not HDF5";
  CHECK_THROWS_WITH(save(folder / "r.h5", reference()), ContainsSubstring("bad.h5: is not an HDF5 file"));
  CHECK(load(run_file(folder / "r.h5", "00aa")).front() == reference());  // the new run is safe all the same
}

TEST_CASE("tables show what the runs hold", "[results]") {
  std::vector<Run> runs{reference(), quantized()};
  runs[0].model = runs[1].model;
  CHECK(table(runs) ==
        "recipe          bits/weight   wikitext2:2x512        difference  books_test:1x256 (tail)  difference  seconds\n"
        "──────────────  ───────────  ────────────────  ────────────────  ───────────────────────  ──────────  ───────\n"
        "full precision            -  30.6403 ± 1.2500                 -                        -           -     12.3\n"
        "gptq int4:g64         4.562  32.0000 ± 1.5000  +1.3597 ± 0.1250               1.2346e+05     +7.0000     61.0\n");
  CHECK(table({}) == "recipe  bits/weight  seconds\n──────  ───────────  ───────\n");
  Run other = reference();
  other.model = {{"path", "/models/llama_books/"}, {"digest", "other"}};
  const std::vector<Run> two_models{quantized(), other};
  CHECK_THAT(table(two_models), ContainsSubstring("\nc.gguf: gptq int4:g64 ") && ContainsSubstring("\nllama_books: full precision "));
  Run third = quantized();
  third.label = "third";
  const std::string mixed = table(std::vector{quantized(), other, third});
  CHECK(mixed.find("c.gguf: third") < mixed.find("llama_books: full precision"));  // the rows of a model stand together
  Run odd = reference();
  odd.label = "a|b, \"c\"\nd";
  CHECK(table(std::vector{odd}, Format::markdown) ==
        "| recipe      | bits/weight |  wikitext2:2x512 | difference | seconds |\n"
        "| ----------- | ----------: | ---------------: | ---------: | ------: |\n"
        "| a\\|b, \"c\" d |           - | 30.6403 ± 1.2500 |          - |    12.3 |\n");
  Run plain = quantized();
  plain.model = odd.model;
  CHECK(table(std::vector{odd, plain}, Format::csv) ==
        "label,bits_per_weight,wikitext2:2x512 perplexity,wikitext2:2x512 standard_error,wikitext2:2x512 difference,"
        "wikitext2:2x512 difference_standard_error,books_test:1x256 (tail) perplexity,books_test:1x256 (tail) standard_error,"
        "books_test:1x256 (tail) difference,books_test:1x256 (tail) difference_standard_error,seconds\n"
        "\"a|b, \"\"c\"\"\nd\",,30.6403,1.25,,,,,,,12.34\n"
        "gptq int4:g64,4.5625,32,1.5,1.3597,0.125,123456,,7,,61.05\n");
  CHECK(parse_format("csv") == Format::csv);
  CHECK_THROWS_WITH(parse_format("html"), ContainsSubstring("--format: 'html' is none of table, markdown, csv"));
}

TEST_CASE("linears have a table of their own, and the paper's count of bits is a column where a solver reports it", "[results]") {
  Run run = quantized();
  CHECK(linear_table(std::vector{run}, Format::csv) ==
        "recipe,block,linear,relative_error,relative_to_rtn,seconds,damp,loss\n"
        "gptq int4:g64,0,self_attn.q_proj,0.01,0.5,0.25,0.02,7.5\n"
        "gptq int4:g64,0,mlp.up_proj,0.02,,0.5,,\n"
        "gptq int4:g64,1,self_attn.q_proj,0.03,0.75,,,8.5\n");
  CHECK(!nominal_bits(run));
  run.evaluations.clear();
  run.blocks = {
      {0,
       0.1,
       {{"a", {}, {}, {}, {{"nominal_bits", 2.5}, {"weights", 100}}}, {"b", {}, {}, {}, {{"nominal_bits", 2.0}, {"weights", 300}}}},
       {}}};
  CHECK(*nominal_bits(run) == Approx(2.125));
  CHECK(table(std::vector{run}, Format::csv) ==
        "label,bits_per_weight,nominal_bits_per_weight,seconds\ngptq int4:g64,4.5625,2.125,61.05\n");
  CHECK(ptq::io::parse_json(to_json(std::vector{run}), "JSON")["runs"][0]["nominal_bits_per_weight"] == 2.125);
}

TEST_CASE("JSON holds the same figures, full precision first, null for what is absent", "[results]") {
  Run broken = quantized();
  broken.label = "broken \xff";
  broken.evaluations[0].perplexity = std::numeric_limits<double>::infinity();
  const auto all = ptq::io::parse_json(to_json(std::vector{quantized(), reference(), broken}), "JSON");
  REQUIRE(all.at("runs").size() == 3);
  const auto &full = all["runs"][0], &run = all["runs"][1];
  CHECK(full["label"] == "full precision");
  CHECK(full["bits_per_weight"].is_null());
  CHECK(full["evaluations"][0]["difference"].is_null());
  CHECK(run["recipe"] == "gptq(damp=0.02)");
  CHECK(run["bits_per_weight"] == 4.5625);
  CHECK(run["model_bits_per_parameter"] == 9.25);
  CHECK(run["seconds"] == 61.05);
  CHECK(run["peak_memory_bytes"] == 123456789012);
  CHECK(run["description"]["solver.damp"] == "0.02");
  const auto expected = ptq::io::parse_json(
      R"({"text":"wikitext2","protocol":"gptq","windows":2,"window":512,"tokens":1024,"perplexity":32.0,"standard_error":1.5,)"
      R"("difference":1.3597,"difference_standard_error":0.125})",
      "expected");
  CHECK(run["evaluations"][0] == expected);
  CHECK(run["blocks"][0]["index"] == 0);
  CHECK(run["blocks"][0]["error"] == 0.001);
  CHECK(run["blocks"][0]["linears"][0]["name"] == "self_attn.q_proj");
  CHECK(run["blocks"][0]["linears"][0]["relative_to_rtn"] == 0.5);
  CHECK(run["blocks"][0]["linears"][1]["relative_to_rtn"].is_null());
  CHECK(run["blocks"][1]["linears"][0]["numbers"]["loss"] == 8.5);
  CHECK(all["runs"][2]["evaluations"][0]["perplexity"].is_null());
  CHECK(ptq::io::parse_json(to_json({}), "JSON") == ptq::io::parse_json(R"({"runs":[]})", "expected"));
}

TEST_CASE("the program show prints tables and tells wrong arguments from wrong files", "[results]") {
  const char* programs = std::getenv("PTQ_BIN");
  if (programs == nullptr || !std::filesystem::exists(std::filesystem::path(programs) / "show")) SKIP_TEST("the program show is not built");
  const TemporaryFolder folder("results");
  save(folder / "r.h5", reference());
  save(folder / "r.h5", quantized());
  std::ofstream(folder / "text.h5") << "no HDF5";
  const auto show = [&](const std::string& arguments) {
    const std::string command =
        std::string(programs) + "/show " + arguments + " >" + (folder / "out").string() + " 2>" + (folder / "err").string();
    const int status = std::system(command.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  };
  const std::string file = (folder / "r.h5").string();
  CHECK(show(file) == 0);
  CHECK(contents(folder / "out") == table(load(file)));
  CHECK(show(file + " --format csv") == 0);
  CHECK(contents(folder / "out") == table(load(file), Format::csv));
  CHECK(show("--format=markdown " + run_file(file, "beef01").string()) == 0);
  CHECK_THAT(contents(folder / "out"), ContainsSubstring("| gptq int4:g64 |"));
  for (const std::string& wrong : {std::string(), file + " --format html", file + " --format", file + " --fast", file + ".absent"}) {
    CHECK(show(wrong) == 2);
    CHECK(contents(folder / "out").empty());
    CHECK_FALSE(contents(folder / "err").empty());
  }
  CHECK_THAT(contents(folder / "err"), ContainsSubstring("r.h5.absent: there is no such file"));
  CHECK(show((folder / "text.h5").string()) == 1);
  CHECK_THAT(contents(folder / "err"), ContainsSubstring("text.h5: is not an HDF5 file"));
  CHECK(show("--help") == 0);
}

TEST_CASE("the peak of memory begins again at what is held when it is told to") {
  constexpr std::int64_t size = 300 << 20;
  const auto use = [] {
    const std::unique_ptr<char[]> bytes(new char[size]);
    volatile char* const stored = bytes.get();  // stores that no compiler may leave out
    for (std::int64_t i = 0; i < size; i += 4096) stored[i] = 1;
    return resident_memory().anonymous;
  };
  const std::int64_t before = resident_memory().anonymous, inside = use();
  if (before == 0) SKIP_TEST("there is no /proc");
  CHECK(inside - before > size * 9 / 10);
  const ResidentMemory after = resident_memory();
  CHECK(after.peak >= inside);
  CHECK(after.all() < after.peak - size / 2);
  if (!forget_peak_memory()) SKIP_TEST("the peak cannot be set back here");
  CHECK(resident_memory().peak < after.peak - size / 2);
}
