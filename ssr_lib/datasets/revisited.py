"""ROxford5k, RParis6k and the million distractors (Radenovic et al., CVPR 2018): ground truth → `Benchmark`.

The SHA-256 of the two published files is known; a file of that form by others is read when it is said to be one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ssr_lib.benchmark import LISTS, Benchmark
from ssr_lib.datasets.folder import EXTENSIONS, file_identity, listed
from ssr_lib.datasets.ground_truth import read_record, stays_inside
from ssr_lib.decode import ImageError
from ssr_lib.images import crop

MAX_BYTES = 64 * 2**20  # of a pickle; the published ones have 0.3 MB
ORIENTATION = 0x0112  # of EXIF: from 5 on the picture lies on its side in the file


@dataclasses.dataclass(frozen=True)
class Official:
    """A published ground truth is known by its checksum."""

    name: str
    sha256: str


OFFICIAL = (
    Official("roxford5k", "ba7967754bd2d7d2210a5799f9c45ad5835e269a80ef9d3eba44caa35816c471"),
    Official("rparis6k", "d2e729a5293dda7dda8a15c8383424a42e4964a2c4cfea2f32fa85d11d2df499"),
)


def read_ground_truth(path: Path | str, images: Path | str | None = None, *, subset: bool = False) -> Benchmark:
    """The ground truth in `path` (.pkl with imlist, qimlist, gnd: easy, hard, junk, bbx) as a `Benchmark`.

    `images`: the folder of the pictures, or the one above their folder jpg; None leaves the files unchecked, for
    rankings that are already there. `subset`: the file need not be one of the two published ones; "ok" and "junk", as
    the benchmarks had them before, count as easy and junk. Groups are those of `same_landmark`.
    Raises `ValueError` for a file that is no such ground truth, contradicts itself, or is not the published one, and
    naming the queries whose box lies outside their picture; `FileNotFoundError` with the names of missing pictures.
    """
    path = Path(path)
    size = path.stat().st_size
    if not 1 <= size <= MAX_BYTES:
        raise ValueError(f"{path} has {size:,} bytes; 1 to {MAX_BYTES:,} are wanted of a ground truth")
    data = path.read_bytes()
    official = next((known for known in OFFICIAL if known.sha256 == hashlib.sha256(data).hexdigest()), None)
    if official is None and not subset:
        raise ValueError(
            f"{path} is not the published gnd_roxford5k.pkl or gnd_rparis6k.pkl (its SHA-256 differs); fetch it again, "
            "or say that it is another one on purpose (subset=True; in a profile: a dataset that has another name)"
        )
    database, queries, truths = read_record(data, path)
    root, names = _find_images(images, [*database, *queries], path)
    ids = {names[name]: i for i, name in enumerate(database)}
    query_ids = [ids.get(names[name], -1) for name in queries]
    positives = [{*truth["easy"].tolist(), *truth["hard"].tolist()} for truth in truths]
    for i, name in enumerate(queries):
        if query_ids[i] >= 0 and query_ids[i] in positives[i]:
            raise ValueError(f"{path}, query {i}: {name} is a positive of itself; wanted among its junk")
    groups = same_landmark([found or truth["junk"].tolist() for found, truth in zip(positives, truths, strict=True)])
    benchmark = Benchmark(
        official.name if official else f"{path.stem.removeprefix('gnd_')} (cut down)",
        root,
        [names[name] for name in database],
        [names[name] for name in queries],
        boxes=[truth["bbx"] for truth in truths],
        groups=[queries[first] for first in groups],
        query_ids=query_ids,
        **{key: [truth[key] for truth in truths] for key in LISTS},
    )
    if images is not None:
        _check_boxes(benchmark, path)
    return benchmark


def same_landmark(positives: Sequence[Iterable[int]]) -> list[int]:
    """For each query the first query of its landmark, (Q,): those whose positives have a Jaccard index of 0.3 or more.

    A single shared positive joins nothing: panoramas show several landmarks. A query without positives, which no mean
    counts, is placed by whatever else it lists.
    """
    sets = [set(ids) for ids in positives]
    first = list(range(len(sets)))
    for i, j in itertools.combinations(range(len(sets)), 2):
        shared = len(sets[i] & sets[j])
        if shared and 10 * shared >= 3 * (len(sets[i]) + len(sets[j]) - shared):
            kept, joined = sorted((first[i], first[j]))
            first = [kept if landmark == joined else landmark for landmark in first]
    return first


def _check_boxes(benchmark: Benchmark, path: Path) -> None:
    """Raise `ValueError` naming the queries whose box is not inside their picture, read off the files' headers."""
    wrong = []
    for name, box in zip(benchmark.queries, benchmark.boxes, strict=True):
        try:
            with Image.open(benchmark.root / name) as picture:
                width, height = picture.size
                turned = picture.getexif().get(ORIENTATION, 1) >= 5
        except OSError:  # a damaged picture is named when it is described
            continue
        problems = []
        sizes = (
            [(height, width), (width, height)] if turned else [(height, width)]
        )  # as it lies in the file, or upright
        for size in sizes:
            try:
                crop(np.broadcast_to(np.uint8(0), (*size, 3)), box or (0, 0, *size[::-1]))
            except ImageError as error:
                problems.append(f"{name}: {error}")
        if len(problems) == len(sizes):
            wrong.append(problems[0])
    if wrong:
        raise ValueError(f"{path}: {listed(wrong, 'queries cannot be cropped')}")


def _find_images(images: Path | str | None, names: Sequence[str], path: Path) -> tuple[Path, dict[str, str]]:
    """The folder that holds the pictures, and each one's file there, its extension added where the name has none."""
    spellings = {name: [name + extension for extension in EXTENSIONS] for name in names}
    for name in names:
        if name.lower().endswith(EXTENSIONS):
            spellings[name].insert(0, name)
    if images is None:
        return Path("."), {name: spelled[0] for name, spelled in spellings.items()}
    found = {}
    for root in (Path(images), Path(images) / "jpg"):
        found[root] = {}
        for name, spelled in spellings.items():
            found[root][name] = next((file for file in spelled if (root / file).is_file()), None)
    root = min(found, key=lambda root: list(found[root].values()).count(None))
    files = found[root]
    missing = [name for name, file in files.items() if file is None]
    if missing:
        raise FileNotFoundError(f"{listed(missing, f'of {len(files)} pictures')} are not in {root}")
    seen: dict[tuple, str] = {}
    for name, file in files.items():
        first = seen.setdefault(file_identity(root / file), name)
        if files[first] != file:
            raise ValueError(f"{path}: {first} and {name} are one file; list a picture under one name")
    return root, files


def read_distractors(folder: Path | str) -> list[str]:
    """Names of the million distractors, relative to `folder`: those of revisitop1m.txt, which lie in `folder`/jpg.

    Raises `FileNotFoundError` where the list is not there, `ValueError` for one that leaves the folder.
    """
    listing = Path(folder) / "revisitop1m.txt"
    names = listing.read_text(encoding="utf-8").split()
    if not names or not all(map(stays_inside, names)):
        raise ValueError(f"{listing} is empty, or names a file outside of its folder; fetch it again")
    return [f"jpg/{name}" for name in names]


def check_distractors(folder: Path | str, names: Sequence[str]) -> None:
    """Raise `FileNotFoundError` where any of `names`, as `read_distractors` gives them, is not in `folder`."""
    missing = [name for name in names if not (Path(folder) / name).is_file()]
    if missing:
        told = f"{len(missing):,} of the distractors in revisitop1m.txt"
        raise FileNotFoundError(f"{told} are not in {folder}, first {missing[0]}")


def with_distractors(benchmark: Benchmark, files: Sequence[str], root: Path | str) -> Benchmark:
    """The benchmark with further database images that are wrong for every query; their ids follow the old ones.

    `files`: names relative to `root`. Descriptors of (database, distractors) can thus be extracted apart and
    concatenated in this order.
    """
    way = os.path.relpath(Path(root).resolve(), benchmark.root.resolve())
    database = [*benchmark.database, *(Path(way, file).as_posix() for file in files)]
    return dataclasses.replace(benchmark, name=f"{benchmark.name}+{len(files)}", database=database)
