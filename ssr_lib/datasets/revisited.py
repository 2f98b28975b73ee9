"""ROxford5k, RParis6k and the million distractors (Radenovic et al., CVPR 2018): ground truth → `Benchmark`.

The ground truth is published as a pickle, and a pickle can run any program: it is read by `unpickle`, which knows numbers,
text, lists, dictionaries, sets and NumPy arrays, and refuses everything else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ssr_lib.benchmark import LISTS, Benchmark
from ssr_lib.datasets.folder import EXTENSIONS, NAMES_SHOWN
from ssr_lib.datasets.unpickle import MAX_BYTES, Array, unpickle
from ssr_lib.images import ImageError, check_box, declared_sizes


@dataclasses.dataclass(frozen=True)
class Official:
    """What the published ground truth of a benchmark is known to hold."""

    name: str
    n_database: int
    sha256: str
    n_queries: int = 70


OFFICIAL = (
    Official("roxford5k", 4993, "ba7967754bd2d7d2210a5799f9c45ad5835e269a80ef9d3eba44caa35816c471"),
    Official("rparis6k", 6322, "d2e729a5293dda7dda8a15c8383424a42e4964a2c4cfea2f32fa85d11d2df499"),
)


def read_ground_truth(path: Path | str, images: Path | str | None = None, *, subset: bool = False) -> Benchmark:
    """The ground truth in `path` (.pkl with imlist, qimlist, gnd: easy, hard, junk, bbx) as a `Benchmark`.

    `images`: the folder of the pictures, or the one above their folder jpg; None leaves the files unchecked, for
    rankings that are already there. `subset`: the file need not be one of the two published ones. Queries that share
    an easy or hard picture, directly or through others, are one group. Boxes are checked for form and, where there
    are pictures, against the size that the query's file declares.
    Raises `ValueError` for a file that is no such ground truth, contradicts itself, or is not the published one, and
    naming the queries whose box lies outside their picture or that are no picture; `FileNotFoundError` with the names of
    the pictures that are missing.
    """
    path = Path(path)
    data = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
    if not data:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; 1 to {MAX_BYTES:,} are wanted of a ground truth")
    official = next((known for known in OFFICIAL if known.sha256 == hashlib.sha256(data).hexdigest()), None)
    if official is None and not subset:
        raise ValueError(
            f"{path} is not the published gnd_roxford5k.pkl or gnd_rparis6k.pkl (its SHA-256 differs); fetch it again, "
            "or say that it is another one on purpose (subset=True; in a profile: a dataset that has another name)"
        )
    database, queries, truths = _parse(_unpickle(data, path), path)
    if official and (len(queries), len(database)) != (official.n_queries, official.n_database):
        raise ValueError(f"{path}: {len(queries)} queries, {len(database)} images; {official} is wanted")
    root, names = Path("."), {name: name + ".jpg" for name in (*database, *queries)}
    if images is not None:
        root, names = _find_images(Path(images), list(dict.fromkeys((*database, *queries))))
    lists = {key: [truth[key] for truth in truths] for key in LISTS}
    positives = [set(easy) | set(hard) for easy, hard in zip(lists["easy"], lists["hard"], strict=True)]
    ids = {name: i for i, name in enumerate(database)}
    for i, name in enumerate(queries):
        if ids.get(name) in positives[i]:
            raise ValueError(
                f"{path}, query {i}: {name} is a database image and a positive of itself; wanted among its junk, since a "
                "query is not searched for"
            )
    benchmark = Benchmark(
        name=official.name if official else f"{path.stem.removeprefix('gnd_')} (cut down)",
        root=root,
        database=[names[name] for name in database],
        queries=[names[name] for name in queries],
        boxes=[truth["bbx"] for truth in truths],
        groups=[queries[first] for first in shared_positives(positives)],
        query_ids=[ids.get(name, -1) for name in queries],
        **lists,
    )
    if images is not None:
        _check_boxes(benchmark, path)
    return benchmark


def _check_boxes(benchmark: Benchmark, path: Path) -> None:
    """Raise `ValueError` naming the queries whose box is not inside their picture, read off the files' headers."""
    wrong = []
    for name, box in zip(benchmark.queries, benchmark.boxes, strict=True):
        if box is None:
            continue
        problems = []
        for width, height in declared_sizes(benchmark.root / name):
            try:
                check_box(box, width, height)
                break
            except ImageError as error:
                problems.append(f"{name}: {error}")
        else:
            wrong += problems[:1]
    if wrong:
        more = f"; and {len(wrong) - NAMES_SHOWN} more" if len(wrong) > NAMES_SHOWN else ""
        raise ValueError(f"{path}: {len(wrong)} queries cannot be cropped: {'; '.join(wrong[:NAMES_SHOWN])}{more}")


def _unpickle(data: bytes, path: Path) -> object:
    try:
        return unpickle(data)
    except MemoryError as error:
        raise ValueError(f"{path} is refused: it claims more memory than there is") from error
    except Exception as error:  # damaged pickles raise all kinds: EOFError, KeyError, IndexError, TypeError
        raise ValueError(f"{path} is refused: {error or type(error).__name__}") from error


def _parse(record: object, path: Path) -> tuple[list[str], list[str], list[dict]]:
    """Check the form of a record, whose parts may be anything; return image and query names, each query's lists and box."""
    if not isinstance(record, Mapping) or not {"gnd", "imlist", "qimlist"} <= set(record):
        found = f"with {sorted(map(str, record))[:20]}" if isinstance(record, Mapping) else f"a {type(record).__name__}"
        raise ValueError(f"{path} is no ground truth: a dictionary of gnd, imlist, qimlist is wanted, it is {found}")
    for key in ("imlist", "qimlist"):
        if not all(isinstance(name, str) for name in _sequence(record[key], f"{path}: {key}")):
            raise ValueError(f"{path}: {key} holds something that is not a name")
    database, queries = ([str(name) for name in record[key]] for key in ("imlist", "qimlist"))
    for name in (*database, *queries):
        if name.startswith(("/", "\\")) or ".." in Path(name).parts or "\0" in name or not name:
            raise ValueError(f"{path}: {name!r} is not the name of a picture inside its folder")
    truths = list(_sequence(record["gnd"], f"{path}: gnd"))
    if not queries or len(truths) != len(queries):
        raise ValueError(f"{path}: {len(truths)} entries in gnd for {len(queries)} queries; one for each is wanted")
    return database, queries, [_parse_query(truth, f"{path}, query {i}") for i, truth in enumerate(truths)]


def _parse_query(truth: object, where: str) -> dict:
    if not isinstance(truth, Mapping) or not set(LISTS) <= set(truth):
        raise ValueError(f"{where}: easy, hard and junk are wanted; found a {type(truth).__name__}")
    parsed = {}
    for key in LISTS:
        ids = list(_sequence(truth[key], f"{where}: {key}"))
        if not all(isinstance(i, (int, np.integer)) and not isinstance(i, bool) for i in ids):
            raise ValueError(f"{where}: {key} holds something that is no whole number")
        try:
            parsed[key] = np.array(ids, dtype=np.int64)
        except OverflowError as error:
            raise ValueError(f"{where}: {key} holds a number beyond any picture's") from error
    box = truth.get("bbx")
    if box is not None:
        box = list(_sequence(box, f"{where}: bbx"))
        if len(box) != 4 or not all(isinstance(v, (int, float, np.number)) for v in box):
            kinds = ", ".join(type(v).__name__ for v in box[:5])
            raise ValueError(f"{where}: bbx has {len(box)} entries ({kinds}); four numbers are wanted")
        try:
            box = tuple(float(v) for v in box)
        except OverflowError as error:
            raise ValueError(f"{where}: bbx holds a number beyond any pixel's; four numbers are wanted") from error
    return {**parsed, "bbx": box}


def _sequence(value: object, where: str) -> Sequence:
    value = value.array if isinstance(value, Array) else value
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise ValueError(f"{where} is a {type(value).__name__}; a list is wanted")
    return value


def _find_images(folder: Path, names: list[str]) -> tuple[Path, dict[str, str]]:
    """The folder that holds the pictures, and each one's file there, its extension added where the name has none."""
    found = {}
    for root in (folder, folder / "jpg"):
        files = {name: next((f for f in _spellings(name) if (root / f).is_file()), None) for name in names}
        found[root] = {name: file for name, file in files.items() if file is not None}
        if len(found[root]) == len(names):
            return root, found[root]
    root = max(found, key=lambda r: len(found[r]))
    missing = [name for name in names if name not in found[root]]
    more = f" and {len(missing) - NAMES_SHOWN} more" if len(missing) > NAMES_SHOWN else ""
    raise FileNotFoundError(
        f"{len(missing)} of {len(names)} pictures are not in {root}: {', '.join(missing[:NAMES_SHOWN])}{more}"
    )


def _spellings(name: str) -> list[str]:
    as_it_is = [name] if name.lower().endswith(EXTENSIONS) else []
    return as_it_is + [name + extension for extension in EXTENSIONS]


def shared_positives(positives: Sequence[set[int]]) -> list[int]:
    """For each query the first query of its group: the queries that share positives, directly or through others."""
    first = list(range(len(positives)))

    def find(i: int) -> int:
        while first[i] != i:
            i = first[i]
        return i

    seen: dict[int, int] = {}
    for i, ids in enumerate(positives):
        for image in sorted(ids):
            a, b = sorted((find(i), find(seen.setdefault(image, i))))
            first[b] = a
    return [find(i) for i in range(len(positives))]


def read_distractors(folder: Path | str) -> list[str]:
    """Names of the million distractors, relative to `folder`: those of revisitop1m.txt, which lie in `folder`/jpg.

    Raises `FileNotFoundError` where the list is not there, `ValueError` for one that leaves the folder.
    """
    listing = Path(folder) / "revisitop1m.txt"
    names = listing.read_text(encoding="utf-8").split("\n")
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise ValueError(f"{listing} is empty; fetch it again")
    for name in names:
        if name.startswith(("/", "\\")) or ".." in Path(name).parts:
            raise ValueError(f"{listing}: {name!r} leaves the folder of the distractors")
    return [f"jpg/{name}" for name in names]


def check_distractors(folder: Path | str, names: Sequence[str]) -> None:
    """Raise `FileNotFoundError` where any of `names`, as `read_distractors` gives them, is not in `folder`."""
    missing = [name for name in names if not (Path(folder) / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing):,} of the distractors in revisitop1m.txt are not in {folder}, first {missing[0]}"
        )


def with_distractors(benchmark: Benchmark, files: Sequence[str], root: Path | str) -> Benchmark:
    """The benchmark with further database images that are wrong for every query; their ids follow the old ones.

    `files`: names relative to `root`. Descriptors of (database, distractors) can thus be extracted apart and
    concatenated in this order.
    """
    way = os.path.relpath(Path(root).resolve(), benchmark.root.resolve())
    database = [*benchmark.database, *(Path(way, file).as_posix() for file in files)]
    return dataclasses.replace(benchmark, name=f"{benchmark.name}+{len(files)}", database=database)
