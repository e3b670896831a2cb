// Errors of a program become one line and an exit status: 2 arguments, 1 everything else.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>

#include <ptq/core/tensor.hpp>

namespace ptq::driver {

template <class Work>
int guarded(const Work& work) {
  try {
    return work();
  } catch (const Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return e.blame() == Blame::arguments ? 2 : 1;
  } catch (const c10::Error& e) {
    std::fprintf(stderr, "error: libtorch: %s\n", e.what_without_backtrace());
    return 1;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "error: out of memory; --cache-stream last, fewer calibration samples or a smaller model need less\n");
    return 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
}

/// Help exits 0; what CLI11 refuses becomes an Error about arguments.
inline void read_arguments(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& e) {
    std::exit(app.exit(e));
  } catch (const CLI::ParseError& e) {
    throw Error(std::string(e.what()) + " (--help lists the options)", Blame::arguments);
  }
}

}  // namespace ptq::driver
