# convoy_layer(NAME LINKS ...): the static library convoy_NAME of src/NAME, and NAME_test of the *_test.cc beside the sources.
# Files are globbed with CONFIGURE_DEPENDS, so that neither a source nor a test can be left out of the build silently.
function(convoy_layer name)
  cmake_parse_arguments(LAYER "" "" "LINKS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.cc)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")

  add_library(convoy_${name} STATIC ${sources})
  target_link_libraries(convoy_${name} PUBLIC convoy_options ${LAYER_LINKS})

  if(tests)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE convoy_${name} GTest::gmock_main ${RAPIDCHECK})
    set_property(GLOBAL APPEND PROPERTY CONVOY_UNIT_TESTS ${name}_test)
  endif()
endfunction()
