"""Google Landmarks v2 clean, the training set of the field: 81,313 landmarks (Weyand et al., CVPR 2020).

`train_clean.csv` has a row for each landmark: `landmark_id`, and `images`, the ids of its pictures with spaces between.
A picture with id 0123456789abcdef lies in 0/1/2/0123456789abcdef.jpg (github.com/cvdfoundation/google-landmark).
"""

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from ssr_lib.datasets.folder import read_records
from ssr_lib.files import one_line


def read_clean(csv_file: Path | str, *, leave_out: Collection[int] = ()) -> tuple[list[str], np.ndarray]:
    """Files (N), relative to the folder of the pictures, and the landmark id of each, (N,) int64.

    `leave_out`: landmarks that are not used, as those that Oxford and Paris are tested on, which move the ranking of
    methods (Song et al., CVPR 2024; ids: github.com/dealicious-inc/RGLDv2-clean). Raises `ValueError` naming the line.
    """
    files, labels, known = [], [], set()
    for line, record in read_records(csv_file, ("landmark_id", "images")):
        name, images = record["landmark_id"], record["images"].split()
        if not re.fullmatch(r"\d{1,18}", name) or not all(re.fullmatch(r"\w{3,64}", i) for i in images):
            found = f"{name!r:.40}, {record['images']!r:.40}"
            raise ValueError(f"{csv_file}, line {line}: {found}; a landmark's number and its pictures' ids are wanted")
        known.add(int(name))
        if int(name) not in leave_out:
            files += [f"{i[0]}/{i[1]}/{i[2]}/{i}.jpg" for i in images]
            labels += [int(name)] * len(images)
    if unknown := sorted(set(leave_out) - known):
        raise ValueError(f"{csv_file} has no landmark {unknown[0]} to leave out ({len(unknown)} such ids)")
    return files, np.asarray(labels, dtype=np.int64)


def read_ids(path: Path | str) -> set[int]:
    """Landmark ids from a text file, one a line; empty lines and what follows a # are passed over."""
    with one_line(f"{path}: one landmark id a line is wanted"):
        lines = [line.partition("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
        return {int(line) for line in lines if line}
