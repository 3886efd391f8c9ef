# convoy_layer(NAME LINKS ...): the static library convoy_NAME of src/NAME, and NAME_test of the *_test.cc beside the sources.
# Files are globbed with CONFIGURE_DEPENDS, so that neither a source nor a test can be left out of the build silently.

# Half of the time to compile a file goes into these headers. One copy serves all libraries, one all tests. The asan
# preset does without, so that a file that forgets to include one is found.
function(convoy_precompile target)
  set(kind libraries)
  if(ARGN)
    set(kind tests)
  endif()
  get_property(first GLOBAL PROPERTY CONVOY_PRECOMPILED_${kind})
  if(first)
    target_precompile_headers(${target} REUSE_FROM ${first})
  else()
    target_precompile_headers(${target} PRIVATE <algorithm> <chrono> <filesystem> <functional> <map> <memory> <mutex>
                              <optional> <string> <thread> <vector> <fmt/format.h> <spdlog/spdlog.h> ${ARGN})
    set_property(GLOBAL PROPERTY CONVOY_PRECOMPILED_${kind} ${target})
  endif()
endfunction()

function(convoy_layer name)
  cmake_parse_arguments(LAYER "" "" "LINKS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.cc)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")

  add_library(convoy_${name} STATIC ${sources})
  target_link_libraries(convoy_${name} PUBLIC convoy_options ${LAYER_LINKS})
  convoy_precompile(convoy_${name})

  if(tests)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE convoy_${name} GTest::gmock_main ${RAPIDCHECK})
    # What they test is optimised; they need not be, and are compiled in two thirds of the time.
    target_compile_options(${name}_test PRIVATE -O0)
    convoy_precompile(${name}_test <gmock/gmock.h> <gtest/gtest.h>)
    set_property(GLOBAL APPEND PROPERTY CONVOY_UNIT_TESTS ${name}_test)
  endif()
endfunction()
