"""Data sets as `Benchmark` or `LabelledImages`: own photographs, the revisited benchmarks, public training sets."""
