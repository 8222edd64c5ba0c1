# The native tests of the ownership engine, of lanes that are cut, of the page table, and of contexts:
# ../build/engine-test, ../build/resume-test, ../build/table-test, ../build/context-test, and the same with sanitizers
# in ../build/san.
CXX ?= g++
FLAGS := -std=c++20 -Wall -Wextra -Werror -g -fno-omit-frame-pointer -pthread -MMD -MP
SANITIZE := -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined
LIBRARIES := -lssl -lcrypto -pthread

ENGINE := $(filter-out %_lockstep.cpp,$(wildcard ../src/engine*.cpp ../src/lane*.cpp ../src/spill*.cpp)) \
	$(addprefix ../src/,loop.cpp table.cpp hints.cpp owned_summary.cpp page_set.cpp regions.cpp memory.cpp prefetch.cpp uffd.cpp injector.cpp tracee.cpp \
	stats.cpp frame_check.cpp privileges.cpp proc_text.cpp util.cpp)
ENGINE_TEST := $(ENGINE) engine_test.cpp engine_copies_test.cpp engine_limit_test.cpp engine_overdue_test.cpp engine_hints_test.cpp
RESUME_TEST := $(ENGINE) lanes_resume_test.cpp
TABLE_TEST := table.cpp page_summary.cpp owned_summary.cpp util.cpp table_test.cpp
CONTEXT_TEST := tracee.cpp proc_text.cpp util.cpp context_test.cpp

object = $(patsubst %.cpp,../build/$(1)/%.o,$(notdir $(2)))

../build/engine-test: $(call object,engine-obj,$(ENGINE_TEST))
	$(CXX) -o $@.new $^ $(LIBRARIES) && mv $@.new $@
../build/san/engine-test: $(call object,san/engine-obj,$(ENGINE_TEST))
	$(CXX) $(SANITIZE) -o $@.new $^ $(LIBRARIES) && mv $@.new $@
../build/resume-test: $(call object,engine-obj,$(RESUME_TEST))
	$(CXX) -o $@.new $^ $(LIBRARIES) && mv $@.new $@
../build/san/resume-test: $(call object,san/engine-obj,$(RESUME_TEST))
	$(CXX) $(SANITIZE) -o $@.new $^ $(LIBRARIES) && mv $@.new $@
../build/table-test: $(call object,engine-obj,$(TABLE_TEST))
	$(CXX) -o $@.new $^ && mv $@.new $@
../build/san/table-test: $(call object,san/engine-obj,$(TABLE_TEST))
	$(CXX) $(SANITIZE) -o $@.new $^ && mv $@.new $@
../build/context-test: $(call object,engine-obj,$(CONTEXT_TEST))
	$(CXX) -o $@.new $^ && mv $@.new $@
../build/san/context-test: $(call object,san/engine-obj,$(CONTEXT_TEST))
	$(CXX) $(SANITIZE) -o $@.new $^ && mv $@.new $@

vpath %.cpp . ../src
../build/engine-obj/%.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) -O1 -c -o $@ $<
../build/san/engine-obj/%.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) $(SANITIZE) -c -o $@ $<

-include $(wildcard ../build/engine-obj/*.d ../build/san/engine-obj/*.d)
