# Choices of this tree when it is built by itself; a project that embeds it keeps its own.

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Release, Debug or RelWithDebInfo" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")  # kernels ask for more where it pays

# No -march anywhere: kernels dispatch at run time, and the binaries run on any machine of the architecture.
add_link_options("-Wl,--as-needed")
find_program(PTQ_MOLD mold)
if(PTQ_MOLD)
  include(CheckCXXSourceCompiles)
  set(CMAKE_REQUIRED_LINK_OPTIONS -fuse-ld=mold)
  check_cxx_source_compiles("int main() {}" PTQ_LINKS_WITH_MOLD)
  unset(CMAKE_REQUIRED_LINK_OPTIONS)
  if(PTQ_LINKS_WITH_MOLD)
    add_link_options(-fuse-ld=mold)
  endif()
endif()
find_program(PTQ_CCACHE ccache)
if(PTQ_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env "CCACHE_SLOPPINESS=pch_defines,time_macros" "${PTQ_CCACHE}")
endif()
if(PTQ_SANITIZE)  # whose code confuses the warning about uninitialised values
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${PTQ_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all;-Wno-maybe-uninitialized>")
  add_link_options("-fsanitize=${PTQ_SANITIZE}")
endif()
