// The program: ceilings into the context, then every family.

#include <benchmark/benchmark.h>

#include <ptq/kernels/isa.hpp>
#include <string>

#include "roof.hpp"

int main(int argc, char** argv) {
  const roof::Ceilings& c = roof::ceilings();
  benchmark::AddCustomContext("isa", text(ptq::kernels::isa()));
  benchmark::AddCustomContext("threads", std::to_string(roof::threads()));
  benchmark::AddCustomContext("copy_GB_s", std::to_string(c.copy * 1e-9));
  benchmark::AddCustomContext("fma_GFLOP_s", std::to_string(c.fma * 1e-9));
  register_quantize_benchmarks();
  register_columns_benchmarks();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
