# Defines ptq::torch from any libtorch: the wheel of the Python package index (CUDA or not), the zip of pytorch.org, a source build.
#
# find_package(Torch) is not used: the scripts inside a CUDA wheel demand a CUDA toolkit even for programs that never touch a device.
# Searched in this order: Torch_DIR, CMAKE_PREFIX_PATH, $PTQ_DEPS/torch, the one found last time, .deps/torch of the source tree. Each may be the root of a libtorch
# (include/, lib/), the torch folder of a Python installation, or a folder that holds such a torch folder.
#
#   PTQ_TORCH_CUDA   AUTO (default): link libtorch_cuda when it is there and all libraries it needs are too; ON: demand it; OFF: never.

if(TARGET ptq::torch)
  return()
endif()

set(PTQ_TORCH_CUDA AUTO CACHE STRING "Link libtorch_cuda: AUTO, ON or OFF")

set(_ptq_roots)
foreach(variable Torch_DIR ENV{Torch_DIR})
  if(DEFINED ${variable})
    if(variable STREQUAL "Torch_DIR")
      list(APPEND _ptq_roots "${Torch_DIR}" "${Torch_DIR}/../../..")
    else()
      list(APPEND _ptq_roots "$ENV{Torch_DIR}" "$ENV{Torch_DIR}/../../..")
    endif()
  endif()
endforeach()
string(REPLACE ":" ";" _ptq_environment_prefixes "$ENV{CMAKE_PREFIX_PATH}")
list(APPEND _ptq_roots ${CMAKE_PREFIX_PATH} ${_ptq_environment_prefixes})
if(DEFINED ENV{PTQ_DEPS})
  list(APPEND _ptq_roots "$ENV{PTQ_DEPS}/torch")
endif()
list(APPEND _ptq_roots "${PTQ_TORCH_ROOT}")
if(DEFINED PTQ_SOURCE_DIR)
  list(APPEND _ptq_roots "${PTQ_SOURCE_DIR}/.deps/torch")
endif()

set(_ptq_torch_root "_ptq_torch_root-NOTFOUND")
foreach(root ${_ptq_roots})
  foreach(suffix "" /torch /libtorch)
    if(NOT _ptq_torch_root AND EXISTS "${root}${suffix}/include/ATen/ATen.h" AND EXISTS "${root}${suffix}/lib")
      get_filename_component(_ptq_torch_root "${root}${suffix}" REALPATH)
    endif()
  endforeach()
endforeach()
if(NOT _ptq_torch_root)
  list(JOIN _ptq_roots "\n  " _ptq_tried)
  set(ptq_torch_NOT_FOUND_MESSAGE "libtorch not found (ATen/ATen.h); ./quickstart deps brings it, or set CMAKE_PREFIX_PATH or Torch_DIR. Tried:\n  ${_ptq_tried}")
  message(FATAL_ERROR "${ptq_torch_NOT_FOUND_MESSAGE}")
endif()

foreach(library torch_cpu c10 torch_cuda c10_cuda)
  unset(_ptq_${library} CACHE)
  find_library(_ptq_${library} ${library} PATHS "${_ptq_torch_root}/lib" NO_DEFAULT_PATH NO_CACHE)
endforeach()
if(NOT _ptq_torch_cpu OR NOT _ptq_c10)
  message(FATAL_ERROR "${_ptq_torch_root}: headers of libtorch, but no libtorch_cpu and libc10 in lib/")
endif()

# The version, for messages and for the description of results; 2.7 is the first whose default binaries have the C++11 ABI.
set(PTQ_TORCH_VERSION "unknown")
if(EXISTS "${_ptq_torch_root}/include/torch/headeronly/version.h")
  set(_ptq_version_file "${_ptq_torch_root}/include/torch/headeronly/version.h")
else()
  set(_ptq_version_file "${_ptq_torch_root}/include/torch/csrc/api/include/torch/version.h")
endif()
if(EXISTS "${_ptq_version_file}")
  file(STRINGS "${_ptq_version_file}" _ptq_version_lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) +[0-9]+")
  string(REGEX MATCHALL "[0-9]+" _ptq_version_numbers "${_ptq_version_lines}")
  list(JOIN _ptq_version_numbers "." PTQ_TORCH_VERSION)
  if(PTQ_TORCH_VERSION VERSION_LESS 2.7)
    message(FATAL_ERROR "${_ptq_torch_root}: libtorch ${PTQ_TORCH_VERSION}; 2.7 or later is needed (./quickstart deps brings one)")
  endif()
endif()

# A wheel for CUDA may lie without the CUDA libraries it wants: then only the CPU half is linked.
set(PTQ_TORCH_HAS_CUDA FALSE)
if(_ptq_torch_cuda AND _ptq_c10_cuda AND NOT PTQ_TORCH_CUDA STREQUAL "OFF")
  execute_process(COMMAND ldd "${_ptq_torch_cuda}" OUTPUT_VARIABLE _ptq_ldd ERROR_QUIET)
  if(NOT _ptq_ldd MATCHES "not found")
    set(PTQ_TORCH_HAS_CUDA TRUE)
  endif()
endif()
if(PTQ_TORCH_CUDA STREQUAL "ON" AND NOT PTQ_TORCH_HAS_CUDA)
  message(FATAL_ERROR "PTQ_TORCH_CUDA=ON, but ${_ptq_torch_root} has no libtorch_cuda whose libraries are all found (ldd lists them)")
endif()

add_library(ptq::torch INTERFACE IMPORTED GLOBAL)
target_include_directories(ptq::torch SYSTEM INTERFACE
  "${_ptq_torch_root}/include" "${_ptq_torch_root}/include/torch/csrc/api/include")
target_compile_options(ptq::torch INTERFACE -fopenmp)  # at::parallel_for is silently serial without it
target_link_options(ptq::torch INTERFACE -fopenmp)
target_link_libraries(ptq::torch INTERFACE "${_ptq_torch_cpu}" "${_ptq_c10}")
if(PTQ_TORCH_HAS_CUDA)
  find_package(CUDAToolkit QUIET)
  target_link_libraries(ptq::torch INTERFACE
    "-Wl,--push-state,--no-as-needed" "${_ptq_torch_cuda}" "-Wl,--pop-state" "${_ptq_c10_cuda}")
  target_compile_definitions(ptq::torch INTERFACE PTQ_WITH_TORCH_CUDA=1)
  if(CUDAToolkit_FOUND)
    target_include_directories(ptq::torch SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
  endif()
endif()
# libtorch_cpu of a CUDA wheel needs libcudart and libcupti, which lie in sibling packages: tell the linker, and the program.
file(GLOB _ptq_beside "${_ptq_torch_root}/../nvidia/*/lib")
foreach(folder "${_ptq_torch_root}/lib" ${_ptq_beside})
  target_link_options(ptq::torch INTERFACE "-Wl,-rpath,${folder}" "-Wl,-rpath-link,${folder}")
endforeach()

set(PTQ_TORCH_ROOT "${_ptq_torch_root}" CACHE PATH "The libtorch found last" FORCE)
message(STATUS "libtorch ${PTQ_TORCH_VERSION} in ${_ptq_torch_root} (CUDA: ${PTQ_TORCH_HAS_CUDA})")
