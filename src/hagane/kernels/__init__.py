"""Kernels where a library lacks them. C++ for CPUs, compiled on the machine that runs it; each has a written-out form in `model` to fall back on."""
