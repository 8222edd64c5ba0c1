# Native tests of the spill and of the compatibility facts: ../build/spill-test and ../build/facts-test, with
# address and undefined-behaviour sanitizers in ../build/san, and (by hand) ../build/tsan/spill-test with the
# thread sanitizer: `make -f spillfacts.mk tsan`.
CXX ?= g++
FLAGS := -std=c++20 -Wall -Wextra -Werror -g -pthread -MMD -MP
SPILL := spill spill_work spill_file spill_slots privileges util
FACTS := facts facts_probe facts_trace facts_memory program_check
spill-test_PARTS := $(SPILL) spill_test spill_model_test
facts-test_PARTS := $(SPILL) $(FACTS) facts_test

all: ../build/spill-test ../build/facts-test
san: ../build/san/spill-test ../build/san/facts-test
tsan: ../build/tsan/spill-test

vpath %.cpp . ../src

# variant(directory, flags, program): one program built one way. Each has object files of its own, so that two may
# be built at once.
define variant
../build/$(1)$(3): $$($(3)_PARTS:%=../build/$(1)$(3)-obj/%.o)
	$$(CXX) $$(FLAGS) $(2) -o $$@.new $$^ && mv $$@.new $$@
../build/$(1)$(3)-obj/%.o: %.cpp
	@mkdir -p $$(@D)
	$$(CXX) $$(FLAGS) $(2) -c -o $$@ $$<
-include $$(wildcard ../build/$(1)$(3)-obj/*.d)
endef
SANITIZE := -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined
$(foreach program,spill-test facts-test,$(eval $(call variant,,-O2,$(program))))
$(foreach program,spill-test facts-test,$(eval $(call variant,san/,$$(SANITIZE),$(program))))
$(eval $(call variant,tsan/,-O1 -fsanitize=thread,spill-test))

.PHONY: all san tsan
