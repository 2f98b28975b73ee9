"""ROxford5k, RParis6k and the million distractors (Radenovic et al., CVPR 2018): ground truth → `Benchmark`."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ssr_lib.benchmark import LISTS, Benchmark
from ssr_lib.datasets.folder import EXTENSIONS, find_files, listed
from ssr_lib.datasets.ground_truth import GroundTruth, read_record, stays_inside
from ssr_lib.decode import ImageError
from ssr_lib.images import crop

MAX_BYTES = 64 * 2**20  # of a pickle; the published ones have 0.3 MB
ORIENTATION = 0x0112  # of EXIF: from 5 on the picture lies on its side in the file
OFFICIAL = {  # SHA-256 of the published ground truth
    "roxford5k": "ba7967754bd2d7d2210a5799f9c45ad5835e269a80ef9d3eba44caa35816c471",
    "rparis6k": "d2e729a5293dda7dda8a15c8383424a42e4964a2c4cfea2f32fa85d11d2df499",
}


def read_names(path: Path | str) -> dict[str, int | None]:
    """The names in a list of a part of a benchmark, one a line, each with the width of a query's original file in px.

    None where no width stands behind the name; what follows a # is passed over. Raises `ValueError` naming the line.
    """
    names = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        match line.partition("#")[0].split():
            case []:
                continue
            case [name] if name not in names:
                names[name] = None
            case [name, width] if name not in names and width.isdecimal() and int(width) > 0:
                names[name] = int(width)
            case _:
                raise ValueError(
                    f"{path}, line {number}: {line!r:.80}; a name, listed once, is wanted, or name and width"
                )
    return names


def read_ground_truth(
    path: Path | str,
    images: Path | str | None = None,
    *,
    subset: bool = False,
    names: Mapping[str, int | None] | None = None,
) -> Benchmark:
    """The ground truth in `path` (.pkl with imlist, qimlist, gnd: easy, hard, junk, bbx) as a `Benchmark`.

    `images`: the folder of the pictures, or the one above their folder jpg; None leaves the files unchecked, for
    rankings that are already there. `subset`: the file need not be one of the two published ones; "ok" and "junk", as
    the benchmarks had them before, count as easy and junk. Groups are those of `same_landmark`. `names` (`read_names`):
    queries and database images with other names are left out, of all lists too, and need not be there. A box is scaled
    to the picture at hand where that is not as wide as the original file.
    Raises `ValueError` for a file that is no such ground truth, contradicts itself, is not the published one or lacks
    one of `names`, and naming the queries whose box lies outside their picture; else as `find_files`.
    """
    path = Path(path)
    size = path.stat().st_size
    if not 1 <= size <= MAX_BYTES:
        raise ValueError(f"{path} has {size:,} bytes; 1 to {MAX_BYTES:,} are wanted of a ground truth")
    data = path.read_bytes()
    published = {checksum: name for name, checksum in OFFICIAL.items()}.get(hashlib.sha256(data).hexdigest())
    if published is None and not subset:
        wanted = "fetch it again, or say that it is another one (subset=True; in a profile: another name)"
        raise ValueError(f"{path} is not the published gnd_roxford5k.pkl or gnd_rparis6k.pkl (by SHA-256); {wanted}")
    record = read_record(data, path)
    if names is not None:
        record = _restricted(record, names, path)
    database, queries = record.imlist, record.qimlist
    listed_names = [*database, *queries]
    endings = {name: ["", *EXTENSIONS] if name.lower().endswith(EXTENSIONS) else EXTENSIONS for name in listed_names}
    spellings = {name: [name + ending for ending in endings[name]] for name in listed_names}
    root, files = Path("."), {name: spelled[0] for name, spelled in spellings.items()}
    if images is not None:
        root, files = find_files(path, [Path(images), Path(images, "jpg")], spellings)
    ids = {files[name]: i for i, name in enumerate(database)}
    query_ids = [ids.get(files[name], -1) for name in queries]
    positives = [{*truth.easy, *truth.hard} for truth in record.gnd]
    for i, name in enumerate(queries):
        if query_ids[i] in positives[i]:
            raise ValueError(f"{path}, query {i}: {name} is a positive of itself; wanted among its junk")
    boxes = [truth.bbx for truth in record.gnd]
    if images is not None and names is not None:
        boxes = [_as_wide(root / files[name], box, names[name]) for name, box in zip(queries, boxes, strict=True)]
    groups = same_landmark([found or truth.junk for found, truth in zip(positives, record.gnd, strict=True)])
    benchmark = Benchmark(
        published or f"{path.stem.removeprefix('gnd_')} (cut down)",
        root,
        [files[name] for name in database],
        [files[name] for name in queries],
        boxes=boxes,
        groups=[queries[first] for first in groups],
        query_ids=query_ids,
        **{key: [np.sort(getattr(truth, key)) for truth in record.gnd] for key in LISTS},
    )
    if images is not None:
        _check_boxes(benchmark, path)
    return benchmark


def _restricted(record: GroundTruth, names: Collection[str], path: Path) -> GroundTruth:
    """What a ground truth says of the pictures called `names`."""
    if unknown := sorted({*names} - {*record.imlist, *record.qimlist}):
        raise ValueError(f"{path} has none of {listed(unknown, 'names that are wanted of it')}")
    database = [i for i, name in enumerate(record.imlist) if name in names]
    queries = [i for i, name in enumerate(record.qimlist) if name in names]
    place = {old: new for new, old in enumerate(database)}
    kept = []
    for truth in (record.gnd[i] for i in queries):
        ids = {key: [place[i] for i in getattr(truth, key) if i in place] for key in LISTS}
        kept.append(truth.model_copy(update=ids))
    imlist, qimlist = [record.imlist[i] for i in database], [record.qimlist[i] for i in queries]
    return record.model_copy(update={"imlist": imlist, "qimlist": qimlist, "gnd": kept})


def _as_wide(path: Path, box: tuple | None, width: int | None) -> tuple | None:
    """The box of an original file `width` px wide, as it lies in the picture at hand, which may be a smaller copy."""
    if box is None or width is None:
        return box
    try:
        with Image.open(path) as picture:
            return tuple(side * picture.width / width for side in box)
    except OSError:  # a damaged picture is named when it is described
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
                if picture.getexif().get(ORIENTATION, 1) >= 5:  # it may be of the picture as it lies there, or upright
                    width = height = max(picture.size)
            crop(np.broadcast_to(np.uint8(0), (height, width, 3)), box or (0, 0, width, height))
        except ImageError as error:
            wrong.append(f"{name}: {error}")
        except OSError:  # a damaged picture is named when it is described
            continue
    if wrong:
        raise ValueError(f"{path}: {listed(wrong, 'queries cannot be cropped')}")


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
    """The benchmark with further database images that are wrong for every query; their ids follow the old ones.

    `files`: names relative to `root`. Descriptors of (database, distractors) can thus be extracted apart and
    concatenated in this order.
    """
    way = os.path.relpath(Path(root).resolve(), benchmark.root.resolve())
    database = [*benchmark.database, *(Path(way, file).as_posix() for file in files)]
    return dataclasses.replace(benchmark, name=f"{benchmark.name}+{len(files)}", database=database)
