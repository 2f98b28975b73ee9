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

KINDS = {  # of database pictures on a benchmark's sheet
    "easy": "easy",
    "hard": "hard",
    "junk": "junk",
    "same_style": "same style",
    "same_building": "same building",
}
GAP = 3  # pixels between pictures
EMPTY = 235  # grey of a cell without a picture


def benchmark_sheet(benchmark: Benchmark, *, rows: int = 6, side: int = 160, seed: int = 0) -> np.ndarray:
    """Queries with their boxes, each beside a random database picture of every kind: (h, w, 3) uint8 RGB."""
    rng = np.random.default_rng(seed)
    chosen = sorted(rng.permutation(len(benchmark))[:rows])
    cells = []
    for q in chosen:
        lists = {"easy": benchmark.easy[q], "hard": benchmark.hard[q]}
        lists["junk"] = np.setdiff1d(benchmark.junk[q], benchmark.extra["same_building"][q])
        lists |= {key: benchmark.extra[key][q] for key in ("same_style", "same_building")}
        row = [_boxed(benchmark, q, side)]
        for ids in lists.values():
            if len(ids):
                row.append(_read(benchmark.root / benchmark.database[ids[rng.integers(len(ids))]], side))
            else:
                row.append(np.full((side, side, 3), EMPTY, np.uint8))
        cells.append(row)
    return np.concatenate([_header(["query", *KINDS.values()], side), _tile(cells)])


def form_sheet(forms: dict[str, Benchmark], *, rows: int = 4, side: int = 160, seed: int = 0) -> np.ndarray:
    """The same queries in every form of a drawn benchmark, one column each: (h, w, 3) uint8 RGB."""
    first = next(iter(forms.values()))
    chosen = sorted(np.random.default_rng(seed).permutation(len(first))[:rows])
    cells = [[_read(form.root / form.queries[q], side) for form in forms.values()] for q in chosen]
    return np.concatenate([_header(list(forms), side), _tile(cells)])


def training_sheet(images: LabelledImages, *, side: int = 160) -> np.ndarray:
    """All views of a training set, a row for each landmark: (h, w, 3) uint8 RGB."""
    cells = []
    for label in np.unique(images.labels):
        mine = np.flatnonzero(images.labels == label)
        cells.append([_read(images.root / images.files[i], side) for i in mine])
    return _tile(cells)


def _read(path: Path, side: int) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path} is not a readable picture; draw the set again")
    return cv2.resize(image[..., ::-1], (side, side), interpolation=cv2.INTER_AREA)


def _boxed(benchmark: Benchmark, q: int, side: int) -> np.ndarray:
    path = benchmark.root / benchmark.queries[q]
    height, width = cv2.imread(str(path)).shape[:2]
    scale = np.array([side / width, side / height] * 2)
    x0, y0, x1, y1 = np.round(np.array(benchmark.boxes[q]) * scale).astype(int)
    return cv2.rectangle(np.ascontiguousarray(_read(path, side)), (x0, y0), (x1 - 1, y1 - 1), (255, 210, 0), 1)


def _header(names: list[str], side: int) -> np.ndarray:
    strip = np.full((22, len(names) * (side + GAP) + GAP, 3), 255, np.uint8)
    for i, name in enumerate(names):
        place = (6 + i * (side + GAP), 16)
        cv2.putText(strip, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
    return strip


def _tile(cells: list[list[np.ndarray]]) -> np.ndarray:
    side, columns = len(cells[0][0]) + GAP, max(map(len, cells))
    sheet = np.full((len(cells) * side + GAP, columns * side + GAP, 3), 255, np.uint8)
    for r, row in enumerate(cells):
        for c, picture in enumerate(row):
            y, x = GAP + r * side, GAP + c * side
            sheet[y : y + len(picture), x : x + len(picture)] = picture
    return sheet


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
    for name, sheet in sheets.items():
        cv2.imwrite(str(Path(folder) / f"{name}.jpg"), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    draw_card(sys.argv[1])
