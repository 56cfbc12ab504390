# SPDX-License-Identifier: Apache-2.0
# Language level, warnings and sanitizers, the same for every target.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()

option(CACHALOT_WERROR "Treat warnings as errors" ON)
option(CACHALOT_TESTS "Build tests" ON)
option(CACHALOT_BENCHMARKS "Build micro benchmarks" OFF)
option(CACHALOT_FUZZ "Build libFuzzer targets (needs clang)" OFF)
option(CACHALOT_PCH "Precompile common headers" OFF)
option(CACHALOT_WHOLE_TESTS "Give CTest whole test binaries instead of cases" OFF)
set(CACHALOT_SANITIZE "" CACHE STRING "Sanitizers: 'address,undefined' or 'thread'")

# -ffp-contract=off everywhere: a*b+c must round twice unless the source says fma, or the
# reference would give other bits on machines with FMA than on those without.
# -Wno-missing-field-initializers: designated initializers leave out what has a default on purpose.
add_compile_options(-Wall -Wextra -Wconversion -Wshadow -Wno-missing-field-initializers
                    -ffp-contract=off -fno-math-errno)
if(CACHALOT_WERROR)
  add_compile_options(-Werror)
endif()
if(CACHALOT_SANITIZE)
  add_compile_options(-fsanitize=${CACHALOT_SANITIZE} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${CACHALOT_SANITIZE})
endif()
if(CACHALOT_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
