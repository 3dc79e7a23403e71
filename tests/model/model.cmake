# interleaving_test: the sources of core with words that a model checker schedules (tests/model/word.h), and mutants of them.
# A mutant is one source with one change that breaks the protocol; its test passes if the checker finds the harm.
# x86-64 and no sanitizers: the checker moves stacks.

if(TALLY_SANITIZE OR NOT CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
  return()
endif()

set(model_sources slots.cc slots_cluster.cc slots_sketch.cc limiter.cc limiter_fleet.cc)
list(TRANSFORM model_sources PREPEND ${PROJECT_SOURCE_DIR}/src/core/ OUTPUT_VARIABLE model_paths)

add_library(model_settings INTERFACE)
target_compile_definitions(model_settings INTERFACE TALLY_MODEL)
target_include_directories(model_settings INTERFACE tests ${XXHASH_INCLUDE})
target_link_libraries(model_settings INTERFACE tally_base)

add_library(model_checker OBJECT tests/interleaving_test.cc tests/model/explorer.cc)
target_link_libraries(model_checker PRIVATE model_settings)
add_library(model_core STATIC ${model_paths} src/core/calendar.cc src/core/matcher.cc src/core/overrides.cc src/core/patterns.cc src/core/rules.cc)
target_link_libraries(model_core PUBLIC model_settings)

add_executable(interleaving_test $<TARGET_OBJECTS:model_checker>)
target_link_libraries(interleaving_test PRIVATE model_core)
add_test(NAME interleaving_test COMMAND interleaving_test)

# tally_mutant(NAME FILE OLD NEW SCENARIOS...): FILE of core with NEW in place of OLD must fail one of the SCENARIOS.
function(tally_mutant name file old new)
  set(original ${PROJECT_SOURCE_DIR}/src/core/${file})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${original})
  file(READ ${original} text)
  string(REPLACE "${old}" "${new}" mutated "${text}")
  if(mutated STREQUAL text)
    message(FATAL_ERROR "mutant ${name}: core/${file} does not contain \"${old}\"")
  endif()
  set(folder ${PROJECT_BINARY_DIR}/mutants/${name})
  file(CONFIGURE OUTPUT ${folder}/core/${file} CONTENT "${mutated}" @ONLY)
  if(file MATCHES "\\.h$") # everything that might include it
    set(sources ${model_paths})
  else() # the linker takes this one and leaves the original in the library
    set(sources ${folder}/core/${file})
  endif()
  set(target mutant_${name})
  add_executable(${target} ${sources} $<TARGET_OBJECTS:model_checker>)
  target_include_directories(${target} BEFORE PRIVATE ${folder})
  target_compile_options(${target} PRIVATE -w)
  target_link_libraries(${target} PRIVATE model_core)
  add_test(NAME ${target} COMMAND ${target} must-fail ${ARGN})
endfunction()

tally_mutant(return_lowers_ceiling slots_cluster.cc
  "if (cell.value >= target) return 0;"
  "if (cell.value >= target) return 0;
    held.slot->ceiling[window & 1].store(Cell{window, cell.value + leave}.word());
    return target - cell.value;"
  return-and-spend)
tally_mutant(key_not_read_again limiter.cc
  "return held.still();" "return true;"
  taken-while-evicted taken-while-replaced)
tally_mutant(ceilings_alike slots_layout.h
  "Cell{1 - cell, generation}" "Cell{1 - cell, 0}"
  granted-while-evicted)
tally_mutant(leases_alike slots_layout.h
  "LeaseCell{0, generation}.word() : static_cast<uint64_t>(INT64_MIN) + generation"
  "LeaseCell{0, 0}.word() : static_cast<uint64_t>(INT64_MIN)"
  leased-while-evicted)
tally_mutant(no_pins slots_cluster.cc
  "while (!held.slot->life.compare_exchange_weak(life, life + kOnePin))" "while (false)"
  given-while-evicted given-while-evicted-bucket)
tally_mutant(begun_without_pin limiter.cc
  "if (!slots_.pin(held)) return;" ""
  begun-while-evicted)
tally_mutant(commit_without_looking slots.cc
  "if (commit.compare_exchange_strong(last, mine))" "commit.store(mine);
    if (true)"
  insertion-2)
tally_mutant(return_overtakes_drain slots.cc
  "if ((held.key & kStateBits) == kDying) drain(held, now);" ""
  taken-while-drained)
tally_mutant(past_forgotten limiter.cc
  "if (v.first) v.count = " "if (false) v.count = "
  taken-while-evicted comes-back-in-an-older-window)
tally_mutant(sliding_looks_once limiter.cc
  "if (word == previous_word)" "if (true)"
  sliding-boundary)
tally_mutant(lease_count_last slots_cluster.cc
  "uint64_t count = slot.count[1].load();
  do {" "uint64_t count = slot.count[1].load();
  slot.ceiling[0].compare_exchange_strong(old_ceiling, LeaseCell{LeaseCell::of(count).tag, LeaseCell::of(amount).amount}.word());
  do {"
  leases-2 leases-3)
