"""Speed of drawing the benchmark of drawn landmarks: images a second with two processes and with one (see search.py).

    python benchmarks/drawing.py [landmarks]

Starting the interpreters is included; on a busy machine only the processor's own milliseconds for each image mean
something.
"""

import os
import sys
import tempfile
import time

from search import report

from drawn_landmarks import SyntheticSpec, draw_benchmark


def benchmark_seconds(landmarks: int, processes: int) -> tuple[float, float, int]:
    """Seconds, and processor seconds, to draw a small benchmark from nothing, and how many files it has."""
    with tempfile.TemporaryDirectory() as folder:
        spec = SyntheticSpec("speed", 1, landmarks=landmarks, distractors=2 * landmarks)
        start, used = time.perf_counter(), sum(os.times()[:4])
        drawn = draw_benchmark(spec, folder, processes=processes, progress=False)
        seconds, used = time.perf_counter() - start, sum(os.times()[:4]) - used
    return seconds, used, len(drawn["ordinary"].database) + len(drawn) * len(drawn["ordinary"])


def main(landmarks=60):
    (one, used, files), (two, *_) = (benchmark_seconds(landmarks, processes) for processes in (1, 2))
    rates = f"{files / two:.0f} images a second; {1e3 * used / files:.1f} ms of one processor each"
    report(f"drawing {files} files, 2 processes", two, one, rates, "1 process")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
