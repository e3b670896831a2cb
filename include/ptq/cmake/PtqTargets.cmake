# Helpers for programs: ptq_add_driver, ptq_add_test, ptq_add_benchmark. Programs that use libtorch share one precompiled header
# (ATen and Hana, the two that nearly every header reaches), so a small file compiles in about three seconds.

add_library(ptq_warnings INTERFACE)
add_library(ptq::warnings ALIAS ptq_warnings)
target_compile_options(ptq_warnings INTERFACE -Wall -Wextra -Wconversion -Wshadow)

# What every program of this tree is compiled with; the precompiled header demands identical flags.
add_library(ptq_program INTERFACE)
target_link_libraries(ptq_program INTERFACE ptq::torchless ptq_warnings)
target_compile_definitions(ptq_program INTERFACE "PTQ_DATA_DIR=\"${PTQ_SOURCE_DIR}/data\"" "PTQ_SOURCE_DIR=\"${PTQ_SOURCE_DIR}\"")

if(PTQ_TORCH)
  add_library(ptq_torch_program INTERFACE)
  target_link_libraries(ptq_torch_program INTERFACE ptq_program ptq::ptq)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(ptq_torch_program INTERFACE -fpch-preprocess)  # lets ccache work with a precompiled header
  endif()
  file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/precompiled.cpp" CONTENT "// Exists so that the precompiled header has an owner.\n")
  add_library(ptq_precompiled OBJECT "${PROJECT_BINARY_DIR}/precompiled.cpp")
  target_link_libraries(ptq_precompiled PRIVATE ptq_torch_program)
  target_precompile_headers(ptq_precompiled PRIVATE <ATen/ATen.h> <torch/csrc/autograd/custom_function.h> <boost/hana.hpp>)
endif()

# Links a program of this tree: with libtorch and the precompiled header, or, NO_TORCH, with neither.
function(ptq_program target)
  cmake_parse_arguments(arg "NO_TORCH" "" "" ${ARGN})
  if(arg_NO_TORCH)
    target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:ptq_program>)  # of the build alone, so that a library can be installed
  else()
    target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:ptq_torch_program>)
    target_precompile_headers(${target} REUSE_FROM ptq_precompiled)
  endif()
endfunction()

# ptq_add_driver(NAME [SOURCES ...]): a program over experiments/driver.hpp, build/bin/NAME; SOURCES default to NAME.cpp.
function(ptq_add_driver name)
  cmake_parse_arguments(arg "" "" "SOURCES" ${ARGN})
  if(NOT arg_SOURCES)
    set(arg_SOURCES ${name}.cpp)
  endif()
  add_executable(${name} ${arg_SOURCES})
  ptq_program(${name})
  if(TARGET ptq_driver)
    target_link_libraries(${name} PRIVATE ptq_driver)
  endif()
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
endfunction()

# ptq_add_test(NAME SOURCES ... [LABELS ...] [NO_TORCH] [TARGET T]): a Catch2 program build/tests/T, registered with CTest as NAME.
# Exit status 77 (every case skipped, see tests/catch.hpp) shows as "Skipped".
function(ptq_add_test name)
  cmake_parse_arguments(arg "NO_TORCH" "TARGET" "SOURCES;LABELS" ${ARGN})
  if(NOT arg_TARGET)
    set(arg_TARGET ${name})
  endif()
  if(NOT PTQ_TORCH AND NOT arg_NO_TORCH)
    return()
  endif()
  add_executable(${arg_TARGET} ${arg_SOURCES})
  if(arg_NO_TORCH)
    ptq_program(${arg_TARGET} NO_TORCH)
    list(APPEND arg_LABELS torchless)
  else()
    ptq_program(${arg_TARGET})
  endif()
  target_include_directories(${arg_TARGET} PRIVATE "${PTQ_SOURCE_DIR}/tests" "${PTQ_SOURCE_DIR}/experiments")
  target_link_libraries(${arg_TARGET} PRIVATE ptq_catch)
  set_target_properties(${arg_TARGET} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/tests")
  add_test(NAME ${name} COMMAND ${arg_TARGET} WORKING_DIRECTORY "${PROJECT_BINARY_DIR}/tests")
  set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}" SKIP_RETURN_CODE 77 TIMEOUT 900
    ENVIRONMENT "PTQ_DATA=${PTQ_SOURCE_DIR}/data;PTQ_BIN=${PROJECT_BINARY_DIR}/bin;OMP_WAIT_POLICY=PASSIVE")  # tests share cores: waiting must not spin
endfunction()

# ptq_add_benchmark(NAME [SOURCES ...]): a Google Benchmark program build/bin/NAME; SOURCES default to NAME.cpp.
function(ptq_add_benchmark name)
  cmake_parse_arguments(arg "" "" "SOURCES" ${ARGN})
  if(NOT arg_SOURCES)
    set(arg_SOURCES ${name}.cpp)
  endif()
  add_executable(${name} ${arg_SOURCES})
  ptq_program(${name})
  target_include_directories(${name} PRIVATE "${PTQ_SOURCE_DIR}/tests" "${PTQ_SOURCE_DIR}/experiments")
  target_link_libraries(${name} PRIVATE benchmark::benchmark)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
endfunction()
