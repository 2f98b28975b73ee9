"""The pictures of the data card: views of drawn sets side by side. `python -m drawn_landmarks.contact FOLDER`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from ssr_lib.benchmark import Benchmark, LabelledImages

from .dataset import draw_benchmark, draw_training
from .spec import SyntheticSpec

COLUMNS = ("query", "easy", "hard", "junk", "same style", "same building")
GAP = 3  # pixels between pictures
EMPTY = 235  # grey of a cell without a picture


def benchmark_sheet(benchmark: Benchmark, *, rows: int = 6, side: int = 160, seed: int = 0) -> np.ndarray:
    """Queries with their boxes, each beside a random database picture of every kind: (h, w, 3) uint8 RGB."""
    rng = np.random.default_rng(seed)
    chosen = sorted(rng.permutation(len(benchmark))[:rows])
    cells = []
    for q in chosen:
        alike, same = (benchmark.extra[key][q] for key in ("same_style", "same_building"))
        row = [_read(benchmark.root / benchmark.queries[q], side, benchmark.boxes[q])]
        for ids in (benchmark.easy[q], benchmark.hard[q], np.setdiff1d(benchmark.junk[q], same), alike, same):
            if len(ids):
                row.append(_read(benchmark.root / benchmark.database[ids[rng.integers(len(ids))]], side))
            else:
                row.append(np.full((side, side, 3), EMPTY, np.uint8))
        cells.append(row)
    return np.concatenate([_header(COLUMNS, side), _tile(cells)])


def form_sheet(forms: dict[str, Benchmark], *, rows: int = 4, side: int = 160, seed: int = 0) -> np.ndarray:
    """The same queries in every form of a drawn benchmark, one column each: (h, w, 3) uint8 RGB."""
    first = next(iter(forms.values()))
    chosen = sorted(np.random.default_rng(seed).permutation(len(first))[:rows])
    cells = [[_read(form.root / form.queries[q], side) for form in forms.values()] for q in chosen]
    return np.concatenate([_header(forms, side), _tile(cells)])


def training_sheet(images: LabelledImages, *, side: int = 160) -> np.ndarray:
    """All views of a training set, a row for each landmark: (h, w, 3) uint8 RGB."""
    cells = []
    for label in np.unique(images.labels):
        mine = np.flatnonzero(images.labels == label)
        cells.append([_read(images.root / images.files[i], side) for i in mine])
    return _tile(cells)


def _read(path: Path, side: int, box: tuple[float, ...] | None = None) -> np.ndarray:
    """A picture, or the picture with a box in it, at another size."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path} is not a readable picture; draw the set again")
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)[..., ::-1].copy()
    if box is not None:
        x0, y0, x1, y1 = (round(edge * side / len(image)) for edge in box)
        cv2.rectangle(small, (x0, y0), (x1 - 1, y1 - 1), (255, 210, 0), 1)
    return small


def _header(names, side: int) -> np.ndarray:
    strip = np.full((22, len(names) * (side + GAP) + GAP, 3), 255, np.uint8)
    for i, name in enumerate(names):
        place = (6 + i * (side + GAP), 16)
        cv2.putText(strip, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
    return strip


def _tile(cells: list[list[np.ndarray]]) -> np.ndarray:
    margin = ((0, GAP), (0, GAP), (0, 0))
    rows = [np.concatenate([np.pad(cell, margin, constant_values=255) for cell in row], 1) for row in cells]
    return np.pad(np.concatenate(rows), ((GAP, 0), (GAP, 0), (0, 0)), constant_values=255)


def draw_card(folder: Path | str) -> None:
    """Draw the pictures of the data card into `folder`: a benchmark, its queries' forms, both kinds of training set."""
    with tempfile.TemporaryDirectory(prefix="drawn-card-") as drawn:
        spec = SyntheticSpec("card", seed=1, landmarks=12, fixed_views=12, distractors=8)
        forms = draw_benchmark(spec, f"{drawn}/benchmark")
        sheets = {"benchmark": benchmark_sheet(forms["ordinary"], side=128), "variants": form_sheet(forms, side=128)}
        for name, regime in (("training", "ordinary"), ("restyled", "restyled")):
            spec = SyntheticSpec("card-training", seed=1, landmarks=5)
            views = draw_training(spec, f"{drawn}/{name}", views=8, regime=regime)
            sheets[name] = training_sheet(views, side=112)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, sheet in sheets.items():
        cv2.imwrite(str(Path(folder) / f"{name}.jpg"), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    draw_card(sys.argv[1])
