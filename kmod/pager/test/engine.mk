# The native test of the ownership engine: ../build/engine-test, and the same with sanitizers in ../build/san.
CXX ?= g++
FLAGS := -std=c++20 -Wall -Wextra -Werror -g -fno-omit-frame-pointer -pthread -MMD -MP
SANITIZE := -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined
LIBRARIES := -lssl -lcrypto -pthread

ENGINE_TEST := $(wildcard ../src/engine*.cpp ../src/lane*.cpp ../src/spill*.cpp) \
	$(addprefix ../src/,loop.cpp table.cpp regions.cpp memory.cpp prefetch.cpp uffd.cpp injector.cpp tracee.cpp \
	stats.cpp frame_check.cpp util.cpp) engine_test.cpp

object = $(patsubst %.cpp,../build/$(1)/%.o,$(notdir $(2)))

../build/engine-test: $(call object,engine-obj,$(ENGINE_TEST))
	$(CXX) -o $@.new $^ $(LIBRARIES) && mv $@.new $@
../build/san/engine-test: $(call object,san/engine-obj,$(ENGINE_TEST))
	$(CXX) $(SANITIZE) -o $@.new $^ $(LIBRARIES) && mv $@.new $@

vpath %.cpp . ../src
../build/engine-obj/%.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) -O1 -c -o $@ $<
../build/san/engine-obj/%.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) $(SANITIZE) -c -o $@ $<

-include $(wildcard ../build/engine-obj/*.d ../build/san/engine-obj/*.d)
