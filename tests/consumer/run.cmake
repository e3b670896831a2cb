# cmake -DBUILD=... -DSOURCE=... -DCOMPILER=... -DTORCH=... -P run.cmake: install, configure the consumer against it, build, run.
set(prefix "${BUILD}/consumer/prefix")
set(work "${BUILD}/consumer/build")
file(REMOVE_RECURSE "${BUILD}/consumer")

function(step what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${what} failed (${status}):\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

step("install" "${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${prefix}")
# The package must stand alone: a path of the source tree in it would break once the tree is gone.
file(GLOB_RECURSE installed "${prefix}/*.cmake")
get_filename_component(tree "${SOURCE}/../.." ABSOLUTE)
foreach(file ${installed})
  file(STRINGS "${file}" lines)
  if(lines MATCHES "${tree}/(include|kernels|experiments|build)")
    message(FATAL_ERROR "${file} names a folder of the source tree")
  endif()
endforeach()
step("configure" "${CMAKE_COMMAND}" -S "${SOURCE}" -B "${work}" -G Ninja "-DCMAKE_PREFIX_PATH=${prefix}" -DCMAKE_BUILD_TYPE=Release
  "-DCMAKE_CXX_COMPILER=${COMPILER}")
step("build" "${CMAKE_COMMAND}" --build "${work}")
step("run" "${work}/numbers")
if(EXISTS "${work}/my_method")
  step("quantize the tiny model" "${CMAKE_COMMAND}" -E chdir "${work}" "${CMAKE_COMMAND}" -E env "PTQ_DATA=${tree}/data"
    ./my_method --model "${tree}/data/models/llama_books" --weights int4 --calibrate books_valid:2x64 --evaluate books_test:2x64)
  if(NOT output MATCHES "GPTQ|Gptq|gptq")
    message(FATAL_ERROR "my_method printed no row of its own:\n${output}")
  endif()
endif()
