// Test mode of the ownership engine; the line format is in engine_lockstep.cpp.
#pragma once

namespace elastic {

// argv: a directory for spill files. Reads standard input to its end. Exit status 0, or 2 for a line that is
// not understood.
int engine_lockstep(int argc, char** argv);

}  // namespace elastic
