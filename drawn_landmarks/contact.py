"""Contact sheets: pictures of a set side by side, for figures."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from ssr_lib.benchmark import Benchmark
from ssr_lib.files import write_atomic

from .dataset import LabelledImages, draw_benchmark, draw_training
from .spec import SyntheticSpec

COLUMNS = ("query", "easy", "hard", "junk", "twin", "double")


def _read(path, side: int) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path} is not a readable picture; draw the set again")
    return cv2.resize(image[..., ::-1], (side, side), interpolation=cv2.INTER_AREA)


def contact_sheet(
    images: Benchmark | LabelledImages, *, rows: int = 6, columns: int = 8, side: int = 160, seed: int = 0
) -> np.ndarray:
    """Pictures of a benchmark or training set as one (h, w, 3) uint8 RGB array.

    A benchmark: each row a query with its box, then a database picture of every difficulty, a twin and a double (grey
    where there is none). Training pictures: each row `columns` views of one landmark. `side`: pixels of one picture.
    """
    rng = np.random.default_rng(seed)
    if isinstance(images, LabelledImages):
        chosen = rng.permutation(np.unique(images.labels))[:rows]
        table = [
            [images.root / images.files[i] for i in np.flatnonzero(images.labels == label)[:columns]]
            for label in sorted(chosen)
        ]
        cells = [[_read(path, side) for path in row] for row in table]
        return _tile(cells, side, columns)
    wanted = sorted(rng.permutation(len(images))[:rows])
    cells = []
    for q in wanted:
        lists = {
            "easy": images.easy[q],
            "hard": images.hard[q],
            "junk": np.setdiff1d(images.junk[q], images.extra["doubles"][q])
            if "doubles" in images.extra
            else images.junk[q],
            "twin": images.extra.get("twins", [[]] * len(images))[q],
            "double": images.extra.get("doubles", [[]] * len(images))[q],
        }
        query = _boxed(images, q, side)
        row = [query]
        for key in COLUMNS[1:]:
            ids = lists[key]
            row.append(
                _read(images.root / images.database[ids[rng.integers(len(ids))]], side)
                if len(ids)
                else np.full((side, side, 3), 235, np.uint8)
            )
        cells.append(row)
    return np.concatenate([_header(COLUMNS, side), _tile(cells, side, len(COLUMNS))])


def variant_sheet(benchmarks: dict[str, Benchmark], *, rows: int = 4, side: int = 160, seed: int = 0) -> np.ndarray:
    """The same queries in every variant of a drawn benchmark, one column each: (h, w, 3) uint8 RGB."""
    first = next(iter(benchmarks.values()))
    wanted = sorted(np.random.default_rng(seed).permutation(len(first))[:rows])
    cells = [[_read(b.root / b.queries[q], side) for b in benchmarks.values()] for q in wanted]
    return np.concatenate([_header(tuple(benchmarks), side), _tile(cells, side, len(benchmarks))])


def _boxed(images: Benchmark, q: int, side: int) -> np.ndarray:
    path = images.root / images.queries[q]
    original = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if original is None:
        raise ValueError(f"{path} is not a readable picture; draw the set again")
    picture = _read(path, side)
    if images.boxes[q] is not None:
        scale = np.array([side / original.shape[1], side / original.shape[0]] * 2)
        x0, y0, x1, y1 = np.round(np.array(images.boxes[q]) * scale).astype(int)
        picture = cv2.rectangle(np.ascontiguousarray(picture), (x0, y0), (x1 - 1, y1 - 1), (255, 210, 0), 1)
    return picture


def _header(names, side: int) -> np.ndarray:
    strip = np.full((22, len(names) * (side + 3) + 3, 3), 255, np.uint8)
    for i, name in enumerate(names):
        cv2.putText(strip, name, (6 + i * (side + 3), 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
    return strip


def _tile(cells: list[list[np.ndarray]], side: int, columns: int) -> np.ndarray:
    sheet = np.full((len(cells) * (side + 3) + 3, columns * (side + 3) + 3, 3), 255, np.uint8)
    for r, row in enumerate(cells):
        for c, picture in enumerate(row):
            y, x = 3 + r * (side + 3), 3 + c * (side + 3)
            sheet[y : y + side, x : x + side] = picture
    return sheet


def draw_card(folder: Path | str) -> None:
    """Draw the pictures of the data card into `folder`: a benchmark, the forms of its queries, both kinds of training set."""
    with tempfile.TemporaryDirectory(prefix="ssr-card-") as drawn:
        forms = draw_benchmark(
            SyntheticSpec("card", seed=1, landmarks=12, fixed_views=12, distractors=8), f"{drawn}/benchmark"
        )
        sheets = {"benchmark": contact_sheet(forms["ordinary"], side=128), "variants": variant_sheet(forms, side=128)}
        for name, regime in (("training", "ordinary"), ("reskinned", "reskinned")):
            views = draw_training(
                SyntheticSpec("card-training", seed=1, landmarks=5), f"{drawn}/{name}", views=8, regime=regime
            )
            sheets[name] = contact_sheet(views, side=112)
    for name, sheet in sheets.items():
        data = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
        write_atomic(Path(folder) / f"{name}.jpg", data)


if __name__ == "__main__":
    draw_card(sys.argv[1])
