# SPDX-License-Identifier: Apache-2.0
# What a cross build of the numeric modules needs, without packages of the other architecture (a
# second architecture in dpkg would tie every library of the host to the version of its twin):
# headers of the host's header-only libraries, and GoogleTest from the source Debian ships beside it.
find_package(Threads REQUIRED)

# The host's /usr/include would bring the host's C library along, so only what is needed is linked in.
set(cross_include ${PROJECT_BINARY_DIR}/cross_include)
file(MAKE_DIRECTORY ${cross_include})
foreach(name fmt hwy nlohmann)
  if(NOT EXISTS /usr/include/${name})
    message(FATAL_ERROR "/usr/include/${name} is missing: run tools/setup.sh build test")
  endif()
  file(CREATE_LINK /usr/include/${name} ${cross_include}/${name} SYMBOLIC)
endforeach()
foreach(name fmt::fmt hwy_headers nlohmann_json::nlohmann_json)
  add_library(${name} INTERFACE IMPORTED)
  target_include_directories(${name} SYSTEM INTERFACE ${cross_include})
endforeach()
target_compile_definitions(fmt::fmt INTERFACE FMT_HEADER_ONLY=1)

if(CACHALOT_TESTS)
  enable_testing()
  include(GoogleTest)
  add_library(cross_gtest STATIC EXCLUDE_FROM_ALL
    /usr/src/googletest/googletest/src/gtest-all.cc /usr/src/googletest/googletest/src/gtest_main.cc)
  target_include_directories(cross_gtest SYSTEM PUBLIC /usr/src/googletest/googletest/include
                             PRIVATE /usr/src/googletest/googletest)
  target_compile_options(cross_gtest PRIVATE -w)
  target_link_libraries(cross_gtest PUBLIC Threads::Threads)
  add_library(GTest::gtest_main ALIAS cross_gtest)
  # No test of these modules uses it, and Debian ships no source.
  add_library(rapidcheck INTERFACE IMPORTED)
endif()
