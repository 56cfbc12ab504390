# SPDX-License-Identifier: Apache-2.0
# cachalot_precompile(TARGET [TEST]): with CACHALOT_PCH the target shares one precompiled header, with
# GoogleTest in it if it is a test. For the sanitizers' builds, which are the longest of a check.
if(CACHALOT_PCH)
  file(WRITE ${PROJECT_BINARY_DIR}/empty.cc "")
  add_library(cachalot_pch OBJECT ${PROJECT_BINARY_DIR}/empty.cc)
  target_link_libraries(cachalot_pch PRIVATE fmt::fmt nlohmann_json::nlohmann_json)
  target_precompile_headers(cachalot_pch PRIVATE ${PROJECT_SOURCE_DIR}/cmake/precompiled.h)
  if(CACHALOT_TESTS)
    add_library(cachalot_test_pch OBJECT ${PROJECT_BINARY_DIR}/empty.cc)
    target_link_libraries(cachalot_test_pch PRIVATE fmt::fmt nlohmann_json::nlohmann_json GTest::gtest rapidcheck)
    target_precompile_headers(cachalot_test_pch PRIVATE ${PROJECT_SOURCE_DIR}/cmake/precompiled.h
                              <gtest/gtest.h> <rapidcheck.h>)
    # As executables are compiled: clang refuses a header that was precompiled otherwise.
    set_target_properties(cachalot_test_pch PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(cachalot_test_pch PRIVATE -fPIE)
  endif()
endif()

function(cachalot_precompile target)
  if(NOT CACHALOT_PCH)
    return()
  endif()
  if("TEST" IN_LIST ARGN)
    target_precompile_headers(${target} REUSE_FROM cachalot_test_pch)
  else()
    target_precompile_headers(${target} REUSE_FROM cachalot_pch)
  endif()
endfunction()

# cachalot_add_tests(BINARY PREFIX LABEL [SHARDS]): each test case to CTest, or, with
# CACHALOT_WHOLE_TESTS, the binary as a whole in so many parts: a thousand starts of a process cost
# more than some of the tests.
function(cachalot_add_tests binary prefix label)
  if(NOT CACHALOT_WHOLE_TESTS)
    gtest_discover_tests(${binary} TEST_PREFIX "${prefix}." PROPERTIES LABELS ${label}
                         DISCOVERY_TIMEOUT 60)
    return()
  endif()
  set(shards 1)
  if(ARGC GREATER 3)
    set(shards ${ARGV3})
  endif()
  foreach(shard RANGE 1 ${shards})
    math(EXPR index "${shard} - 1")
    add_test(NAME ${prefix}.${shard} COMMAND ${binary} --gtest_brief=1)
    set_tests_properties(${prefix}.${shard} PROPERTIES LABELS ${label}
      ENVIRONMENT "GTEST_TOTAL_SHARDS=${shards};GTEST_SHARD_INDEX=${index}")
  endforeach()
endfunction()
