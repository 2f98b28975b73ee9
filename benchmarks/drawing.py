"""Speed of the embedded benchmark's drawing: images a second, and as ratios within the same process (see search.py).

    python benchmarks/drawing.py [landmarks]

Plain: the building's textures are drawn anew for every view, as they would be without `build` once for each landmark.
Two processes against one shows what a second core brings, starting the interpreters included; on a busy machine only
the processor's own milliseconds for each image mean something.
"""

import os
import sys
import tempfile
import time

import cv2
import numpy as np
from search import best_seconds, report

from drawn_landmarks import SyntheticSpec, draw_benchmark
from drawn_landmarks.building import build
from drawn_landmarks.scene import draw_view
from drawn_landmarks.structures import draw_structure
from drawn_landmarks.styles import draw_style
from drawn_landmarks.surroundings import Neighbourhood

VIEWS = 14  # of one landmark, the mean of the benchmark


def one_landmark(town: Neighbourhood, seed: int, anew: bool) -> np.ndarray:
    """The views of one landmark, stacked (VIEWS, 224, 224, 3)."""
    rng = np.random.default_rng(seed)
    structure, style = draw_structure(rng), draw_style(rng)
    blocks, views = build(structure, style, np.random.default_rng(seed)), []
    for view in range(VIEWS):
        if anew:
            blocks = build(structure, style, np.random.default_rng(seed))
        views.append(draw_view((seed, view), structure, blocks, town, 224).image)
    return np.stack(views)


def benchmark_seconds(landmarks: int, processes: int) -> tuple[float, float, int]:
    """Seconds, and processor seconds, to draw a small benchmark from nothing, and how many files it has."""
    with tempfile.TemporaryDirectory() as folder:
        spec = SyntheticSpec("speed", 1, landmarks=landmarks, distractors=2 * landmarks)
        start, used = time.perf_counter(), sum(os.times()[:4])
        drawn = draw_benchmark(spec, folder, processes=processes, progress=False)
        seconds, used = time.perf_counter() - start, sum(os.times()[:4]) - used
    return seconds, used, len(drawn["ordinary"].database) + len(drawn) * len(drawn["ordinary"])


def main():
    landmarks = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    cv2.setNumThreads(1)
    town = Neighbourhood.draw((0,))
    one_landmark(town, 0, anew=False)  # fills the stores of trees, clouds and materials
    agree = "equal" if (one_landmark(town, 1, False) == one_landmark(town, 1, True)).all() else "DIFFERENT"
    once, anew = (lambda anew=anew: [one_landmark(town, seed, anew) for seed in range(2, 6)] for anew in (False, True))
    report(f"{4 * VIEWS} views of 4 landmarks", *best_seconds(once, anew), agree)
    (one, used, files), (two, *_) = (benchmark_seconds(landmarks, processes) for processes in (1, 2))
    rates = f"{files / two:.0f} images a second, {files / one:.0f} with one process"
    report(f"{files} files, 2 processes", two, one, f"{rates}; {1e3 * used / files:.1f} ms of one processor each")


if __name__ == "__main__":
    main()
