"""The other systems that benchmarks compare with, and what drives them. Each contestant runs in a process of its own."""
