# SPDX-License-Identifier: Apache-2.0
# cachalot_module(NAME DEPS other modules... LIBS third-party targets...)
#
# Collects every *.cc of the folder: sources into the library cachalot_NAME, *_test.cc into the test
# binary NAME_test, *_bench.cc into NAME_bench. DEPS are public: a module's headers include theirs.
function(cachalot_module name)
  cmake_parse_arguments(ARG "" "" "DEPS;LIBS" ${ARGN})
  set(dir ${CMAKE_CURRENT_SOURCE_DIR})
  file(GLOB sources CONFIGURE_DEPENDS ${dir}/*.cc)
  file(GLOB tests CONFIGURE_DEPENDS ${dir}/*_test.cc)
  file(GLOB benches CONFIGURE_DEPENDS ${dir}/*_bench.cc)
  list(FILTER benches EXCLUDE REGEX "/cmd_bench[.]cc$")  # the sub-command, no micro benchmark
  list(REMOVE_ITEM sources ${tests} ${benches} ${dir}/main.cc)

  list(TRANSFORM ARG_DEPS PREPEND cachalot_ OUTPUT_VARIABLE deps)
  if(sources)
    add_library(cachalot_${name} STATIC ${sources})
    set(scope PUBLIC)
    cachalot_precompile(cachalot_${name})
  else()
    add_library(cachalot_${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(cachalot_${name} ${scope} ${PROJECT_SOURCE_DIR})
  target_link_libraries(cachalot_${name} ${scope} ${deps} ${ARG_LIBS})

  if(CACHALOT_TESTS AND tests)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE cachalot_${name} GTest::gtest_main rapidcheck)
    target_compile_definitions(${name}_test PRIVATE CACHALOT_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    cachalot_precompile(${name}_test TEST)
    cachalot_add_tests(${name}_test ${name} unit)
  endif()
  if(CACHALOT_BENCHMARKS AND benches)
    add_executable(${name}_bench ${benches})
    target_link_libraries(${name}_bench PRIVATE cachalot_${name} benchmark::benchmark_main)
  endif()
endfunction()
