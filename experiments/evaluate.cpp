// evaluate: a committed run, or a model folder, on further texts, without quantizing again.
#include <cstdio>
#include <filesystem>

#include <ptq/quantized_head.hpp>
#include <ptq/results/json.hpp>
#include <ptq/run/store.hpp>

#include "inputs.hpp"
#include "program.hpp"
#include "progress.hpp"

namespace ptq::driver {

extern const char* const revision;

namespace {

namespace fs = std::filesystem;

std::string entry(const results::Texts& texts, const std::string& name) {
  for (const auto& [key, value] : texts)
    if (key == name) return value;
  return {};
}

/// A run is named by its folder of blocks or by its results file; both lie side by side. The file of a run that adapts to the text it is
/// scored on names the folder of another, whose blocks are its own.
struct Committed {
  results::Run run;
  fs::path folder;
  bool adapted = false;  ///< what is scored here are the committed blocks, which have seen no text
};

Committed open_run(const fs::path& path) {
  Committed c;
  c.folder = path.extension() == ".h5" ? fs::path(path).replace_extension() : path;
  const fs::path file = c.folder.string() + ".h5";
  if (!fs::exists(file)) fail(file.string(), ": is not there; a run is complete when its results file lies beside its folder of blocks");
  const auto runs = results::load(file);
  if (runs.size() != 1) refuse(file.string(), ": holds ", runs.size(), " runs; name one of ", results::runs_folder(file).string(), "/*.h5");
  c.run = runs.front();
  if (const std::string blocks = entry(c.run.settings, "blocks"); !blocks.empty()) {
    if (fs::path(blocks).filename() != blocks) fail(file.string(), ": names blocks in another folder: ", blocks);
    c.adapted = true, c.folder = c.folder.parent_path() / blocks;
    c.run.label += ", as committed", c.run.digest = blocks;
    std::erase_if(c.run.settings, [](const auto& each) { return each.first == "blocks" || each.first.starts_with("adaptation."); });
  }
  if (!fs::is_directory(c.folder)) fail(c.folder.string(), ": the blocks of the run are not there");
  return c;
}

int evaluate(int argc, char** argv) {
  std::string path, model_path, protocol = "gptq", threads = "0", bos;
  std::vector<std::string> wanted;
  fs::path json;
  bool quiet = false, allow_overlap = false;
  CLI::App app("A committed run or a model folder on further texts");
  app.add_option("RUN|DIR", path, "RESULTS.d/<digest>, or a model: a Hugging Face folder or a .gguf file")->required();
  app.add_option("--evaluate", wanted, "NAME|FILE[:NxL]; repeatable (wikitext2)")->allow_extra_args(false);
  app.add_option("--protocol", protocol, "gptq | tail | lqer-shards");
  app.add_option("--bos", bos, "default | none: what the tokenizer puts before a text (as the run did; default)");
  app.add_flag("--allow-overlap", allow_overlap, "evaluate on the run's calibration text");
  app.add_option("--model", model_path, "the run's model, if it has moved");
  app.add_option("--threads", threads, "0: all cores");
  app.add_option("--json", json, "also write the figures as JSON");
  app.add_flag("--quiet", quiet, "nothing but the table");
  read_arguments(app, argc, argv);
  if (const int n = parse_integer<int>(threads, "--threads", 0, 4096); n > 0) at::set_num_threads(n);
  if (wanted.empty()) wanted = {"wikitext2"};
  const auto rule = io::protocol_of(protocol);
  if (!fs::exists(path) && !fs::exists(path + ".h5")) refuse(path, ": there is no such run or model");
  if (!json.empty()) (void)io::AtomicFile(json);  // fails now rather than at the end

  const bool is_model = path.ends_with(".gguf") || fs::exists(fs::path(path) / "config.json");
  std::optional<Committed> committed;
  if (!is_model) committed = open_run(path);
  const std::string dtype = committed ? entry(committed->run.settings, "dtype") : "f32";
  const Model m = open_model(is_model ? path : model_path.empty() ? entry(committed->run.model, "path") : model_path, parse_dtype(dtype));
  if (committed && m.digest != entry(committed->run.model, "digest"))
    fail(m.files->path(), ": is not the model this run quantized (its digest differs); --model names it");
  const Transformer& model = *m.transformer;

  if (bos.empty()) bos = committed ? entry(committed->run.settings, "bos") : "default";
  Progress progress(quiet, model.blocks());
  std::vector<EvaluationText> texts;
  for (const std::string& text : wanted) {
    const io::TextSpec spec = io::parse_text_spec(text);
    const io::Text read = io::load_text(spec.source, io::TextRole::evaluation, places_of_texts());
    if (committed && !allow_overlap && read.digest == entry(committed->run.settings, "calibration.text_digest"))
      refuse("--evaluate ", text, ": the run was calibrated on this text; choose another, or --allow-overlap");
    const int64_t window = spec.length.value_or(usual_window(model.config()));
    check_window("--evaluate", window, model.config(), [&](const std::string& line) { progress.say(line); });
    texts.push_back(cut(read, m.tokenizer, rule, window, spec.count.value_or(0), parse_bos(bos)));
  }
  results::Run reference;
  reference.label = (is_model ? fs::absolute(path).lexically_normal().filename().string() : "full precision") + bos_suffix(bos);
  reference.full_precision = true;
  reference.recipe = "none", reference.revision = revision, reference.started = results::utc_now();
  reference.model = {
      {"path", fs::absolute(m.files->path()).string()}, {"digest", m.digest}, {"family", std::string(name(model.config().family))}};
  reference.settings = {
      {"dtype", dtype}, {"bos", bos}, {"tokenizer", m.tokenizer.description()}, {"tokenizer.digest", m.tokenizer.digest()}};
  for (const EvaluationText& t : texts)
    reference.settings.insert(reference.settings.end(),
                              {{"evaluation." + t.name + ".bos", t.bos}, {"evaluation." + t.name + ".text_digest", t.digest}});
  reference.versions = versions(), reference.machine = machine();
  std::vector<Perplexity> plain;
  const auto timed = [&](results::Run& run, const std::function<Perplexity(const EvaluationText&, const PerplexityOptions&)>& compute,
                         bool paired) {
    const auto begun = std::chrono::steady_clock::now();
    for (size_t i = 0; i < texts.size(); ++i) {
      progress.begin(run.label + ", " + texts[i].name);
      PerplexityOptions options;
      options.on_block = [&](int64_t b) { progress.at(b, "evaluate"); };
      Perplexity p = compute(texts[i], options);
      run.evaluations.push_back(to_result(texts[i], p, paired ? &plain[i] : nullptr));
      if (!paired) plain.push_back(std::move(p));
      progress.end(cat("perplexity ", results::detail::decimal(run.evaluations.back().perplexity, 4)));
    }
    run.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    run.peak_memory_bytes = results::peak_memory_bytes();
  };
  timed(
      reference,
      [&](const EvaluationText& t, const PerplexityOptions& o) {
        return perplexity(model, model.load_head(), t.windows, float_operators(model), o);
      },
      false);
  std::vector<results::Run> runs{reference};
  if (committed) {
    results::Run run = committed->run;
    run.evaluations.clear();
    if (committed->adapted)
      progress.say(run.label + ": its blocks before any adaptation; only the driver that wrote the run adapts them to a text");
    const RunStore store(committed->folder, model.layout(), model.blocks(), RunStore::Access::read);
    if (store.committed() < model.blocks())
      fail(committed->folder.string(), ": ", store.committed(), " of ", model.blocks(),
           " blocks are there; run the same command again to complete it");
    Head head = model.load_head();
    if (const std::string format = entry(run.precision, "override.head"); !format.empty())
      quantize_head(head, Scheme::parse(format, "head", Role::weight));
    const bool single = store.block(0).formats.per_call();
    timed(
        run,
        [&](const EvaluationText& t, PerplexityOptions o) {
          o.batch = single ? 1 : 0;
          return perplexity(
              model, head, t.windows, [&](int64_t b) { return std::make_unique<QuantizedOperators>(model.config(), store.block(b)); }, o);
        },
        true);
    runs.push_back(run);
  }
  std::fputs(results::table(runs).c_str(), stdout);
  if (!json.empty()) results::write_json(json, runs);
  return 0;
}

}  // namespace
}  // namespace ptq::driver

int main(int argc, char** argv) {
  return ptq::driver::guarded([&] { return ptq::driver::evaluate(argc, argv); });
}
