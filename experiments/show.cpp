// show results.h5 [--format table|markdown|csv] [--linears]: the runs of a results file, or of the file of one run.
#include <exception>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include <ptq/results.hpp>
#include <ptq/results/linears.hpp>

namespace {

constexpr const char* usage =
    "usage: show RESULTS.h5... [--format table|markdown|csv] [--linears]\n"
    "Prints label, bits per weight, perplexity and difference to full precision with their standard errors, and seconds, of each run;\n"
    "with --linears errors, seconds and what the solver reports (loss, damp, bits) of every linear.\n";

int show(const std::vector<std::string>& arguments) {
  std::vector<std::filesystem::path> files;
  ptq::results::Format format = ptq::results::Format::text;
  bool linears = false;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--help" || argument == "-h") {
      std::cout << usage;
      return 0;
    }
    if (argument == "--linears") {
      linears = true;
    } else if (argument == "--format") {
      if (i + 1 == arguments.size()) ptq::refuse("--format: give table, markdown or csv");
      format = ptq::results::parse_format(arguments[++i]);
    } else if (argument.starts_with("--format=")) {
      format = ptq::results::parse_format(argument.substr(9));
    } else if (argument.starts_with("-")) {
      ptq::refuse(argument, ": is no option of show\n", usage);
    } else {
      files.emplace_back(argument);
    }
  }
  if (files.empty()) ptq::refuse("name a results file\n", usage);
  for (const auto& file : files)
    if (!std::filesystem::exists(file)) ptq::refuse(file.string(), ": there is no such file");
  std::vector<ptq::results::Run> runs;
  for (const auto& file : files)
    for (ptq::results::Run& run : ptq::results::load(file)) runs.push_back(std::move(run));
  std::cout << (linears ? ptq::results::linear_table(runs, format) : ptq::results::table(runs, format)) << std::flush;
  if (!std::cout) ptq::fail("the table could not be written to standard output");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return show({argv + 1, argv + argc});
  } catch (const ptq::Error& error) {
    std::cerr << "show: " << error.what() << '\n';
    return error.blame() == ptq::Blame::arguments ? 2 : 1;
  } catch (const std::exception& error) {
    std::cerr << "show: " << error.what() << '\n';
    return 1;
  }
}
