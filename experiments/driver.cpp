// From arguments to a table: loads, shares what rows share, runs every row, reports.
#include "driver.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <set>

#include <ptq/calibration/cache.hpp>
#include <ptq/evaluate/full_precision.hpp>
#include <ptq/io/corpus/overlap.hpp>
#include <ptq/quantized_head.hpp>
#include <ptq/results/json.hpp>
#include <ptq/run/store.hpp>

#include "adapted_row.hpp"
#include "command_line.hpp"
#include "export_row.hpp"
#include "inputs.hpp"
#include "jobs.hpp"
#include "program.hpp"
#include "progress.hpp"

namespace ptq::driver {

extern const char* const revision;

namespace {

constexpr int64_t batch_tokens = 4096;  ///< of one forward while quantizing
constexpr int64_t generation = 2;       ///< raised where the same recipe comes to give other bytes; last: LRQ's U

/// Where streams live. The cache is the place for what is large, and `--cache` names it.
StreamMemory stream_memory(const Options& o) { return o.mapped ? StreamMemory::mapped(o.cache) : StreamMemory(); }

/// What all rows share.
struct Shared {
  Model model;
  Tensor tokens;  // (N, T) calibration
  results::Texts settings;
  std::string calibration;  ///< digest of the sample
  std::vector<EvaluationText> texts;
  std::vector<Perplexity> reference;  ///< full precision, by text
};

std::pair<io::Text, io::TextSpec> calibration_text(const Options& o, const Experiment& experiment, Progress& progress) {
  io::TextSpec spec = io::parse_text_spec(o.calibrate);
  const auto places = places_of_texts();
  try {
    return {io::load_text(spec.source, io::TextRole::calibration, places), spec};
  } catch (const Error& why) {
    if (o.calibrate != experiment.calibrate) throw;
    progress.say(cat("books_valid is used for calibration (--calibrate names another): ", why.what()));
    spec.source = "books_valid";
    return {io::load_text(spec.source, io::TextRole::calibration, places), spec};
  }
}

void read_texts(Shared& s, const Options& o, const Experiment& experiment, Progress& progress) {
  const ModelConfig& config = s.model.transformer->config();
  auto [text, spec] = calibration_text(o, experiment, progress);
  int64_t count = spec.count.value_or(128), length = spec.length.value_or(usual_window(config));
  if (o.calibrate == experiment.calibrate) {
    length = std::min(length, usual_window(config));
    if (o.quick) count = std::min<int64_t>(count, 16), length = std::min<int64_t>(length, 512);
  }
  const auto say = [&](const std::string& line) { progress.say(line); };
  check_window("--calibrate", length, config, say);
  const io::TokenSample sample = io::sample_tokens(text, s.model.tokenizer, o.sampling, count, length, o.seed, parse_bos(o.bos));
  s.tokens = to_tensor(sample.rows, 0, sample.rows.count());
  s.calibration = sample.digest();
  s.settings = {{"calibration.text", text.name},
                {"calibration.samples", std::to_string(count)},
                {"calibration.length", std::to_string(length)},
                {"calibration.sampling", std::string(io::name_of(o.sampling))},
                {"bos", o.bos},
                {"calibration.bos", sample.bos},
                {"calibration.text_digest", text.digest},
                {"tokenizer", s.model.tokenizer.description()},
                {"tokenizer.digest", s.model.tokenizer.digest()},
                {"dtype", o.dtype}};
  if (!text.remark.empty()) progress.say(text.name + ": " + text.remark);
  for (const std::string& wanted : o.evaluate) {
    const io::TextSpec e = io::parse_text_spec(wanted);
    const io::Text t = io::load_text(e.source, io::TextRole::evaluation, places_of_texts());
    if (!o.allow_overlap)
      if (const auto same = io::overlap(text, t)) refuse("--evaluate ", wanted, ": ", *same, "; choose another text, or --allow-overlap");
    int64_t n = e.count.value_or(0), window = e.length.value_or(usual_window(config));
    if (o.quick && wanted == experiment.evaluate) n = n == 0 ? 8 : std::min<int64_t>(n, 8), window = std::min<int64_t>(window, 512);
    check_window("--evaluate", window, config, say);
    s.texts.push_back(cut(t, s.model.tokenizer, o.protocol, window, n, parse_bos(o.bos)));
    s.settings.emplace_back("evaluation." + t.name + ".bos", s.texts.back().bos);
    s.settings.emplace_back("evaluation." + t.name + ".text_digest", t.digest);
  }
}

std::string run_digest(const Job& job, const Shared& s, const Options& o, bool adaptation) {
  Sha256 d;
  d.field("schema", ptq::detail::block_schema)
      .field("generation", generation)
      .field("model", s.model.digest)
      .field("calibration", s.calibration);
  d.field("seed", o.seed).field("dtype", o.dtype).field("bos", o.bos).field("arithmetic", arithmetic()).field("batch", batch_tokens);
  for (const auto& [name, text] : job.stages.description)
    if (adaptation || !name.starts_with("adaptation")) d.field(name, text);
  for (const auto& [name, text] : job.precision.slots()) d.field(name, text);
  return d.hex().substr(0, 24);
}

results::Run blank_run(const Shared& s, const Options& o) {
  results::Run r;
  r.seed = static_cast<int64_t>(o.seed), r.started = results::utc_now(), r.revision = revision;
  r.settings = s.settings, r.versions = versions(), r.machine = machine();
  r.model = {{"path", std::filesystem::absolute(s.model.files->path()).string()},
             {"digest", s.model.digest},
             {"family", std::string(name(s.model.transformer->config().family))}};
  return r;
}

results::Block to_result(const BlockReport& report) {
  results::Block b;
  b.index = report.index, b.error = report.error, b.losses = report.losses, b.tracked = report.tracked;
  for (const LinearReport& l : report.linears) b.linears.push_back({l.name, l.relative_error, l.relative_to_rtn, l.seconds, l.numbers});
  return b;
}

/// Bits of everything: quantized linears as stored, all else 16 bits.
double bits_per_parameter(const Model& model, const BitCount& linears, const BitCount& head) {
  double parameters = 0;
  for (const io::StoredTensor& t : model.files->tensors()) {
    double n = 1;
    for (const int64_t size : t.shape) n *= static_cast<double>(size);
    parameters += n;
  }
  const auto quantized = static_cast<double>(linears.weights + head.weights);
  const double extra =
      model.transformer->config().tied ? static_cast<double>(head.weights) : 0;  // a tied head is stored beside the embedding
  return (linears.total() + head.total() + 16 * (parameters + extra - quantized)) / (parameters + extra);
}

results::Run full_precision(Shared& s, const Options& o, Progress& progress) {
  results::Run run = blank_run(s, o);
  run.label = "full precision" + bos_suffix(o.bos), run.recipe = "none", run.full_precision = true;
  run.bits_per_weight = run.model_bits_per_parameter = 16;
  Sha256 d;
  d.field("full precision", s.model.digest).field("dtype", o.dtype).field("bos", o.bos).field("arithmetic", arithmetic());
  const auto begun = std::chrono::steady_clock::now();
  for (const EvaluationText& text : s.texts) {
    progress.begin("full precision, " + text.name);
    const FullPrecisionKey key{
        s.model.digest, s.model.tokenizer.digest(), text.digest, text.protocol, o.dtype, text.ids, arithmetic(), text.length, text.count};
    bool found = false;
    s.reference.push_back(cached_full_precision(o.cache, key, found, [&] {
      PerplexityOptions options;
      options.on_block = [&](int64_t b) {
        stop_if_interrupted("while full precision was evaluated");
        progress.at(b, "evaluate");
      };
      return perplexity(*s.model.transformer, s.model.transformer->load_head(), text.windows, float_operators(*s.model.transformer),
                        options);
    }));
    run.evaluations.push_back(to_result(text, s.reference.back(), nullptr));
    progress.end(cat("perplexity ", results::detail::decimal(run.evaluations.back().perplexity, 4), found ? ", from the cache" : ""));
  }
  run.digest = d.hex().substr(0, 24);
  run.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  run.peak_memory_bytes = results::peak_memory_bytes();
  return run;
}

results::Run run_row(const Job& job, Shared& s, ReferenceStream& reference, RunStore& store, const Options& o, Progress& progress) {
  const Transformer& model = *s.model.transformer;
  results::Run run = blank_run(s, o);
  run.label = job.label + bos_suffix(o.bos), run.recipe = job.stages.label, run.digest = job.digest;
  run.description = job.stages.description, run.precision = job.precision.slots();
  if (job.digest != job.blocks) run.settings.emplace_back("blocks", job.blocks);  // adapted anew to every text
  const int64_t before = store.committed();
  if (before > 0)
    progress.say(cat(job.label, ": ", before == model.blocks() ? "all" : std::to_string(before), " of ", model.blocks(),
                     " blocks were committed earlier"));

  progress.begin(job.label, before);
  Walk walk;
  walk.precision = job.precision, walk.seed = o.seed, walk.batch_tokens = batch_tokens, walk.streams = stream_memory(o);
  walk.progress = [&](int64_t block, const std::string& stage) { progress.at(block, stage); };
  walk.interrupted = [] { return interrupted != 0; };
  const int64_t done = quantize(job.stages, model, s.tokens, reference, store, walk);
  if (done < model.blocks()) stop_if_interrupted(cat("after ", done, " of ", model.blocks(), " blocks of ", job.label, " were committed"));
  BitCount bits;
  for (int64_t b = 0; b < done; ++b) {
    const BlockReport report = store.report(b);
    bits += report.bits;
    for (const auto& [stage, seconds] : report.seconds) {
      const auto found = std::find_if(run.stages.begin(), run.stages.end(), [&](const auto& p) { return p.first == stage; });
      if (found == run.stages.end())
        run.stages.emplace_back(stage, seconds);
      else
        found->second += seconds;
    }
    run.blocks.push_back(to_result(report));
  }
  Head head = model.load_head();
  const BitCount head_bits = quantize_head(head, job.precision.weight("head"));
  const auto begun = std::chrono::steady_clock::now();
  for (size_t i = 0; i < s.texts.size(); ++i) {
    PerplexityOptions options;
    options.batch = formats_of(job.precision, model.layout(), 0).per_call() ? 1 : 0;
    options.on_block = [&](int64_t b) {
      stop_if_interrupted(cat("while ", job.label, ", all of whose blocks are committed, was evaluated"));
      progress.at(b, "evaluate " + s.texts[i].name);
    };
    const Perplexity p = evaluate_row(job.stages, model, head, s.texts[i], s.tokens, results::find(s.settings, "calibration.text"), store,
                                      walk, options, run.settings, progress);
    run.evaluations.push_back(to_result(s.texts[i], p, &s.reference[i]));
  }
  run.stages.emplace_back("evaluate", std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());
  for (const auto& [stage, seconds] : run.stages) run.seconds += seconds;
  if (bits.weights > 0) run.bits_per_weight = bits.per_weight();
  run.model_bits_per_parameter = bits_per_parameter(s.model, bits, head_bits);
  run.peak_memory_bytes = results::peak_memory_bytes();
  const results::Evaluation& e = run.evaluations.front();
  progress.end(cat("perplexity ", results::detail::decimal(e.perplexity, 4), " on ", e.text));
  return run;
}

void print_plan(const std::vector<Job>& jobs, const Shared& s, const Options& o) {
  const Transformer& model = *s.model.transformer;
  const int64_t element = o.dtype == "f64" ? 8 : 4;
  const auto bytes = [&](int64_t a, int64_t b) { return static_cast<double>(element) * static_cast<double>(a) * static_cast<double>(b); };
  const double cache = cache_bytes(model.config(), s.tokens.size(0), s.tokens.size(1), element);
  double block = 0, hessians = 0, windows = 0;
  for (const Site& site : model.layout().sites) block += bytes(site.out, site.in);
  for (const InputGroup& g : model.layout().groups) hessians += 2 * bytes(g.width, g.width);
  for (const EvaluationText& t : s.texts) windows = std::max(windows, bytes(t.count * t.length, model.config().hidden));
  const bool own =
      std::any_of(jobs.begin(), jobs.end(), [](const Job& j) { return j.stages.learns() && j.stages.loss->reads_own_target(); });
  const int count =
      (o.mapped && o.cache_all ? 2 : 4) + (own ? 1 : 0);  // before and after a block, those of the cache mapped where they are
  const double streams = count * bytes(s.tokens.numel(), model.config().hidden);
  const double tables = 2 * bytes(model.config().vocab, model.config().embedding_dim);
  const double batch = 4 * bytes(batch_tokens, model.config().hidden);
  const double held = o.mapped ? std::min(streams, batch) : streams;
  const double peak = 3 * block + std::max(held + hessians, windows) + tables + 0.6e9;  // the heap has holes, too
  const auto gb = [](double b) { return results::detail::decimal(b / 1e9, 3); };
  std::printf("model        %s: %s, %ld blocks, hidden %ld\n", s.model.files->path().c_str(),
              std::string(name(model.config().family)).c_str(), static_cast<long>(model.blocks()),
              static_cast<long>(model.config().hidden));
  std::printf("calibration  %ld x %ld tokens of %s\n", static_cast<long>(s.tokens.size(0)), static_cast<long>(s.tokens.size(1)),
              s.settings.front().second.c_str());
  for (const EvaluationText& t : s.texts)
    std::printf("evaluation   %ld windows of %ld tokens of %s, protocol %s\n", static_cast<long>(t.count), static_cast<long>(t.length),
                t.name.c_str(), t.protocol.c_str());
  std::printf("cache        %s GB on disk in %s: %s\n", o.cache_all ? gb(cache).c_str() : "0.000", o.cache.c_str(),
              o.cache_all ? "inputs of all blocks" : "inputs of blocks are computed along the way");
  if (o.mapped) std::printf("streams      %s GB in temporary files in %s\n", gb(streams).c_str(), o.cache.c_str());
  std::printf(
      "memory       at most %s GB: weights of one block %s (three times), streams %s and Hessians %s, or windows of evaluation %s, "
      "embedding and head %s, 0.6 for the rest\n",
      gb(peak).c_str(), gb(block).c_str(), gb(held).c_str(), gb(hessians).c_str(), gb(windows).c_str(), gb(tables).c_str());
  for (const Job& job : jobs) {
    std::printf("row          %s: smooth%s, observe%s, solve, advance,%s evaluate\n", job.label.c_str(),
                job.stages.learns() ? ", learn" : "", job.stages.solver->needs().any() ? "" : " nothing",
                job.stages.adaptation->steps() > 0 ? " adapt," : "");
  }
}

void finish(const Options& o, const std::vector<results::Run>& runs, const std::string& exported) {
  std::fputs(results::table(runs).c_str(), stdout);
  std::printf("\nresults: %s\n", std::filesystem::absolute(o.results).c_str());
  if (!exported.empty()) std::printf("exported: %s\n", exported.c_str());
  if (!o.json.empty()) results::write_json(o.json, runs);
}

/// Fails now where something could not be written at the end.
void require_places(const Options& o) {
  results::require_writable(o.results);
  std::error_code error;
  std::filesystem::create_directories(o.cache, error);
  if (error) fail(o.cache.string(), ": cannot be made: ", error.message());
  const io::AtomicFile cache(o.cache / "probe.h5");
  if (!o.json.empty()) (void)io::AtomicFile(o.json);
}

int run_all(const Options& o, const Experiment& experiment) {
  if (o.threads > 0) at::set_num_threads(o.threads);
  if (!o.dry_run) require_places(o);
  Shared s{open_model(o.model, parse_dtype(o.dtype)), {}, {}, {}, {}, {}};
  const Transformer& model = *s.model.transformer;
  Progress progress(o.quiet, model.blocks());
  std::vector<Job> jobs = plan(experiment, o, model, progress);
  read_texts(s, o, experiment, progress);
  std::set<std::string> digests;
  for (Job& job : jobs) {
    job.blocks = run_digest(job, s, o, false);
    job.digest = job.stages.adaptation->steps() > 0 ? run_digest(job, s, o, true) : job.blocks;
  }
  std::erase_if(jobs, [&](const Job& job) {
    const bool again = !digests.insert(job.digest).second;
    if (again) progress.say("left out: " + job.label + ": the same run as another row");
    return again;
  });

  Options chosen = o;
  const double stream = cache_bytes(model.config(), s.tokens.size(0), s.tokens.size(1), o.dtype == "f64" ? 8 : 4);
  if (!o.cache_chosen) chosen.cache_all = stream < 8e9;
  if (o.dry_run) {
    print_plan(jobs, s, chosen);
    return 0;
  }
  if (!o.exported.empty()) check_export(chosen, s.model);
  if (o.resume) {
    const auto begun = [&](const Job& job) {
      return std::filesystem::exists(results::runs_folder(o.results) / job.blocks / "block_0000.h5");
    };
    if (std::none_of(jobs.begin(), jobs.end(), begun))
      refuse("--resume: beside ", o.results.string(), " no run with these arguments has committed a block; without --resume it starts");
  }
  catch_interrupt();

  std::map<std::string, std::unique_ptr<RunStore>> stores;  // locked now: a second writer hears of it before anything is computed
  for (const Job& job : jobs)
    if (auto& store = stores[job.blocks]; !store)
      store = std::make_unique<RunStore>(results::runs_folder(o.results) / job.blocks, model.layout(), model.blocks(),
                                         RunStore::Access::write, stream_memory(o));

  std::vector<results::Run> runs{full_precision(s, chosen, progress)};
  results::save(o.results, runs.front());
  std::unique_ptr<ReferenceStream> reference;
  progress.begin("reference stream");
  if (chosen.cache_all) {
    const CacheKey key{s.model.digest, s.model.tokenizer.digest(), s.calibration, o.dtype, arithmetic()};
    const auto told = [&](int64_t b) {
      stop_if_interrupted("while the reference stream was computed");
      progress.at(b, "float");
    };
    auto cached = std::make_unique<CachedReference>(chosen.cache, key, model, s.tokens, batch_tokens, told, stream_memory(o));
    progress.end(cached->found() ? "from the cache" : "computed");
    reference = std::move(cached);
  } else {
    reference = std::make_unique<ComputedReference>(model, s.tokens, batch_tokens, stream_memory(o));
  }
  std::string exported;
  for (size_t i = 0; i < jobs.size(); ++i) {
    const Job& job = jobs[i];
    RunStore& store = *stores.at(job.blocks);
    stop_if_interrupted("before " + job.label);
    runs.push_back(run_row(job, s, *reference, store, chosen, progress));
    results::save(o.results, runs.back());
    if (!o.exported.empty() && (job.exported || jobs.size() == 1))
      exported = export_row(chosen, s.model, job.label, job.precision, store, s.texts, progress);
  }
  finish(chosen, runs, exported);
  return 0;
}

}  // namespace

int run(int argc, char** argv, const Experiment& experiment) {
  return guarded([&] {
    const Options o = parse(argc, argv, experiment);
    try {
      return run_all(o, experiment);
    } catch (const Interrupted& stop) {
      std::fprintf(stderr, "\ninterrupted %s; what is done is safe in %s.d, the same command goes on from there\n", stop.place.c_str(),
                   o.results.c_str());
      return 130;
    }
  });
}

}  // namespace ptq::driver
