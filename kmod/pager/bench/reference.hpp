// Reference figures of the lane, measured between two processes over loopback. See reference.cpp.
#pragma once

namespace elastic {

// `bench-reference [--only NAME] [--cpus 1|2] [--samples N] [--seconds S]`; returns the exit status.
int bench_reference(int argc, char** argv);

// reference_bulk.cpp
struct Options;
void measure_bulk_tls(const Options& options);
void measure_bulk_cpu(const Options& options);

}  // namespace elastic
