// The program bench-reference: see reference.cpp.
#include "reference.hpp"

int main(int argc, char** argv) { return elastic::bench_reference(argc, argv); }
