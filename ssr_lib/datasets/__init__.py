"""Data sets as `Benchmark` or `LabelledImages`: your own photographs, the revisited benchmarks, GLDv2, what is public."""
