"""ROxford5k, RParis6k and the million distractors (Radenovic et al., CVPR 2018): ground truth → `Benchmark`."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.sparse.csgraph import connected_components

from ssr_lib.benchmark import LISTS, Benchmark
from ssr_lib.datasets.folder import EXTENSIONS, find_files
from ssr_lib.datasets.ground_truth import read_record, stays_inside
from ssr_lib.decode import ImageError
from ssr_lib.images import crop

MAX_BYTES = 64 * 2**20  # of a pickle; the published ones have 0.3 MB
ORIENTATION = 0x0112  # of EXIF: from 5 on the picture lies on its side in the file
OFFICIAL = {  # SHA-256 of the published ground truth
    "roxford5k": "ba7967754bd2d7d2210a5799f9c45ad5835e269a80ef9d3eba44caa35816c471",
    "rparis6k": "d2e729a5293dda7dda8a15c8383424a42e4964a2c4cfea2f32fa85d11d2df499",
}
Names = Mapping[str, int | None]  # of pictures, each with the width of its original file in px


def read_names(path: Path | str) -> Names:
    """The names in a list of a part of a benchmark, one a line, and widths where they stand there; # begins a note."""
    lines = (line.partition("#")[0].split() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return {words[0]: int(words[1]) if len(words) > 1 else None for words in lines if words}


def read_ground_truth(
    path: Path | str, images: Path | str | None = None, *, subset: bool = False, names: Names | None = None
) -> Benchmark:
    """The ground truth in `path` (.pkl with imlist, qimlist, gnd: easy, hard, junk, bbx) as a `Benchmark`.

    `images`: the folder of the pictures, or the one above their folder jpg; None leaves the files unchecked, for
    rankings that are already there. `subset`: the file need not be one of the two published ones; "ok" and "junk", as
    the benchmarks had them before, count as easy and junk. Groups are those of `same_landmark`. `names` (`read_names`):
    queries and database images with other names are left out, of all lists too, and need not be there. A box is scaled
    to the picture at hand where that is not as wide as the original file.
    Raises `ValueError` for a file that is no such ground truth, contradicts itself or is not the published one, and
    for a query whose box lies outside its picture; else as `find_files`.
    """
    path = Path(path)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES:,} bytes: it is no ground truth")
    data = path.read_bytes()
    published = {checksum: name for name, checksum in OFFICIAL.items()}.get(hashlib.sha256(data).hexdigest())
    if published is None and not subset:
        wanted = "fetch it again, or say that it is another one (subset=True; in a profile: another name)"
        raise ValueError(f"{path} is not the published gnd_roxford5k.pkl or gnd_rparis6k.pkl (by SHA-256); {wanted}")
    imlist, qimlist, gnd = read_record(data, path)
    listed = [*imlist, *qimlist]
    names = dict.fromkeys(listed) if names is None else names
    files = {name: name if name.lower().endswith(EXTENSIONS) else f"{name}.jpg" for name in listed}
    root = Path(".")
    if images is not None:
        spellings = {name: [name, *(name + ending for ending in EXTENSIONS)] for name in names}
        root, found = find_files(path, [Path(images), Path(images, "jpg")], spellings)
        files |= found
    database, queries = ([files[name] for name in part] for part in (imlist, qimlist))
    ids = {file: i for i, file in enumerate(database)}
    own = [ids.get(file, -1) for file in queries]
    title = published or f"{path.stem.removeprefix('gnd_')} (cut down)"
    lists = {key: [truth[key] for truth in gnd] for key in (*LISTS, "boxes")}
    benchmark = Benchmark(title, root, database, queries, groups=qimlist, query_ids=own, **lists)
    for i, positives in enumerate(benchmark.positives):
        if own[i] in positives:
            raise ValueError(f"{path}, query {i}: {qimlist[i]} is a positive of itself; wanted among its junk")
    benchmark = benchmark.select_queries([i for i, name in enumerate(qimlist) if name in names])
    benchmark = benchmark.select_images([i for i, name in enumerate(imlist) if name in names])
    pairs = zip(benchmark.positives, benchmark.junk, strict=True)
    first = same_landmark([right if len(right) else junk for right, junk in pairs])
    groups = [benchmark.groups[i] for i in first]
    boxes = benchmark.boxes
    if images is not None:
        asked = zip(benchmark.queries, benchmark.groups, boxes, strict=True)
        boxes = [_fitted(root / file, box, names[name]) for file, name, box in asked]
    return dataclasses.replace(benchmark, boxes=boxes, groups=groups)


def _fitted(path: Path, box: tuple | None, width: int | None) -> tuple | None:
    """The box of an original file `width` px wide in a copy of it; `ValueError` where the picture does not hold it."""
    if box is None:
        return None
    try:
        with Image.open(path) as picture:
            if width is not None:
                box = tuple(side * picture.width / width for side in box)
            if picture.getexif().get(ORIENTATION, 1) < 5:  # else it may be of the picture upright or on its side
                crop(np.broadcast_to(np.uint8(0), (picture.height, picture.width, 3)), box)
    except ImageError as error:
        raise ValueError(f"{path}: {error}") from error
    except OSError:  # a damaged picture is named when it is described
        pass
    return box


def one_landmark(benchmark: Benchmark) -> tuple[np.ndarray, list[str]]:
    """The database images (N,) that are right for queries of one landmark only, ascending, and the landmark of each."""
    landmarks: dict[int, set[str]] = {}
    for group, ids in zip(benchmark.groups, benchmark.positives, strict=True):
        for i in ids.tolist():
            landmarks.setdefault(i, set()).add(group)
    found = sorted((i, *groups) for i, groups in landmarks.items() if len(groups) == 1)
    return np.array([i for i, _ in found], dtype=np.int64), [group for _, group in found]


def same_landmark(positives: Sequence[Iterable[int]]) -> list[int]:
    """For each query the first query of its landmark, (Q,): those whose positives have a Jaccard index of 0.3 or more.

    A single shared positive joins nothing: panoramas show several landmarks. A query without positives, which no mean
    counts, is placed by whatever else it lists.
    """
    sets = [set(ids) for ids in positives]
    joined = [[10 * len(a & b) >= 3 * max(1, len(a | b)) for b in sets] for a in sets]
    _, landmarks = connected_components(np.array(joined))
    _, first = np.unique(landmarks, return_index=True)
    return first[landmarks].tolist()


def read_distractors(folder: Path | str) -> list[str]:
    """Names of the million distractors, relative to `folder`: those of revisitop1m.txt, which lie in `folder`/jpg.

    Raises `FileNotFoundError` where the list is not there, `ValueError` for one that leaves the folder.
    """
    listing = Path(folder) / "revisitop1m.txt"
    names = listing.read_text(encoding="utf-8").split()
    if not names or not all(map(stays_inside, names)):
        raise ValueError(f"{listing} is empty, or names a file outside of its folder; fetch it again")
    return [f"jpg/{name}" for name in names]


def with_distractors(benchmark: Benchmark, files: Sequence[str], root: Path | str) -> Benchmark:
    """The benchmark with database images that are wrong for every query behind its own: `files` relative to `root`."""
    way = os.path.relpath(Path(root).resolve(), benchmark.root.resolve())
    database = [*benchmark.database, *(Path(way, file).as_posix() for file in files)]
    return dataclasses.replace(benchmark, name=f"{benchmark.name}+{len(files)}", database=database)
