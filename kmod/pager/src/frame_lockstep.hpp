// Test mode of the frame codec; the line format is in frame_lockstep.cpp.
#pragma once

namespace elastic {

int frame_lockstep(int argc, char** argv);  // reads standard input to its end; returns 0

}  // namespace elastic
