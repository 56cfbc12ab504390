# SPDX-License-Identifier: Apache-2.0
# Every third-party library, found once. Reasons and licenses: docs/dependencies.md.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(hwy REQUIRED)
# Its headers only: the library's own dispatch is not used. [kernels/context.cc]
add_library(hwy_headers INTERFACE)
target_include_directories(hwy_headers SYSTEM INTERFACE
                           $<TARGET_PROPERTY:hwy::hwy,INTERFACE_INCLUDE_DIRECTORIES>)
target_compile_definitions(hwy_headers INTERFACE
                           $<TARGET_PROPERTY:hwy::hwy,INTERFACE_COMPILE_DEFINITIONS>)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(Boost 1.81 REQUIRED)  # headers only: Asio and Beast
find_package(OpenSSL 3 REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)  # the core only: registry and text format
pkg_check_modules(pcre2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(hwloc REQUIRED IMPORTED_TARGET hwloc)
pkg_check_modules(tomlplusplus REQUIRED tomlplusplus)  # used header-only, see train/recipe.cc
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(liburing REQUIRED IMPORTED_TARGET liburing)
pkg_check_modules(sqlite3 REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(libedit REQUIRED IMPORTED_TARGET libedit)
# Optional: training on several ranks. C, since the C++ bindings are gone from the standard.
enable_language(C)
find_package(MPI COMPONENTS C)
if(CACHALOT_TESTS)
  find_package(GTest REQUIRED)
  find_package(rapidcheck REQUIRED)
  enable_testing()
  include(GoogleTest)
endif()
if(CACHALOT_BENCHMARKS)
  find_package(benchmark REQUIRED)
endif()
