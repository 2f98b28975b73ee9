"""ROxford5k, RParis6k and the million distractors (Radenović et al., CVPR 2018): ground truth → `Benchmark`."""

import dataclasses
import hashlib
import io
import os
import pickle
import pickletools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from operator import index
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse.csgraph import connected_components

from ssr_lib.benchmark import LISTS, Benchmark
from ssr_lib.datasets.folder import EXTENSIONS, find_files
from ssr_lib.files import one_line
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
    path: Path | str, images: Path | str | None = None, *, subset=False, names: Names | None = None, whole=True
) -> Benchmark:
    """The ground truth in `path` (.pkl with imlist, qimlist, gnd: easy, hard, junk, bbx) as a `Benchmark`.

    `images`: the folder of the pictures, or the one above their folder jpg; None leaves the files unchecked, for
    rankings that are already there. `subset`: the file need not be one of the two published ones; "ok" and "junk", as
    the benchmarks had them before, count as easy and junk. Groups are those of `same_landmark`. `names` (`read_names`):
    queries and database images with other names are left out, of all lists too, and need not be there. A box is scaled
    to the picture at hand where that is not as wide as the original file.
    Raises `ValueError` for a file that is no such ground truth, contradicts itself or is not the published one, and
    for a query whose box lies outside its picture; else as `find_files`, as is what is left out where not `whole`.
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
        root, found = find_files(path, [Path(images), Path(images, "jpg")], spellings, whole)
        names = {name: names[name] for name in found}
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
    if not len(benchmark):
        raise ValueError(f"{path} has {len(qimlist)} queries, of which none is asked for; one or more are wanted")
    pairs = zip(benchmark.positives, benchmark.junk, strict=True)
    first = same_landmark([right if len(right) else junk for right, junk in pairs])
    groups, boxes = [benchmark.groups[i] for i in first], benchmark.boxes
    if images is not None:
        asked = zip(benchmark.queries, benchmark.groups, boxes, strict=True)
        boxes = [_fitted(root / file, box, names[name]) for file, name, box in asked]
    return dataclasses.replace(benchmark, boxes=boxes, groups=groups)


def _fitted(path: Path, box: tuple | None, width: int | None) -> tuple | None:
    """The box of an original file `width` px wide in a copy of it; `ValueError` where the picture does not hold it."""
    if box is None:
        return None
    with one_line(str(path)), suppress(OSError), Image.open(path) as picture:  # a damaged one is named when described
        if width is not None:
            box = tuple(side * picture.width / width for side in box)
        if picture.getexif().get(ORIENTATION, 1) < 5:  # else it may be of the picture upright or on its side
            crop(np.broadcast_to(np.uint8(0), (picture.height, picture.width, 3)), box)
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
    names = listing.read_text(encoding="utf-8", errors="surrogateescape").split()  # as the names of files are read
    if not names or not all(map(stays_inside, names)):
        raise ValueError(f"{listing} is empty, or names a file outside of its folder; fetch it again")
    return [f"jpg/{name}" for name in names]


def with_distractors(benchmark: Benchmark, files: Sequence[str], root: Path | str) -> Benchmark:
    """The benchmark with database images that are wrong for every query behind its own: `files` relative to `root`."""
    way = os.path.relpath(Path(root).resolve(), benchmark.root.resolve())
    database = [*benchmark.database, *(Path(way, file).as_posix() for file in files)]
    return dataclasses.replace(benchmark, name=f"{benchmark.name}+{len(files)}", database=database)


# The pickled ground truth. A pickle can run any program, and the state of a NumPy array can point anywhere in memory.
# So nothing that it names is looked up: the few names that lists, arrays and text need lead to what stands here.


class _Kind:
    """Stands for numpy.dtype: numbers and text only."""

    def __init__(self, code: str | bytes, *_: Any):
        self.dtype = np.dtype(_text(code))
        if self.dtype.kind not in "iufSU":
            raise pickle.UnpicklingError(f"it holds an array of {self.dtype!s:.40}; only numbers and text are read")

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(_text(state[1]))


class _Array(list):
    """Stands for numpy.ndarray: a list, filled from plain bytes whatever its shape."""

    def __init__(self, *_: Any):
        super().__init__()

    def __setstate__(self, state: tuple) -> None:
        *_, kind, _, data = state
        self[:] = _frombuffer(data, kind)


def _frombuffer(data: bytes, kind: _Kind, *_: Any) -> list:
    return np.frombuffer(data, kind.dtype).tolist()


def _scalar(kind: _Kind, data: bytes) -> Any:
    return _frombuffer(data, kind)[0]


def _bytes(text: str = "", codec: str = "") -> bytes:
    return text.encode("latin1")  # protocols 0 to 2 spell them _codecs.encode(text, "latin1"), and none bytes()


_READ_AS = {"ndarray": _Array, "_reconstruct": _Array, "_frombuffer": _frombuffer, "dtype": _Kind, "scalar": _scalar,
            "encode": _bytes, "bytes": _bytes, "set": set, "frozenset": frozenset, "OrderedDict": dict}  # fmt: skip


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _READ_AS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _READ_AS[name]


def _text(value: Any) -> Any:
    """Text of Python 2, which comes as bytes: UTF-8, or else Latin-1; all else as it is."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin1")


def stays_inside(name: str) -> bool:
    """Whether a file's name lies below the folder that it is relative to, on every system."""
    path = PureWindowsPath(name)  # which knows the ways out of all of them: /, \, C: and ..
    return not path.anchor and ".." not in path.parts


def read_record(data: bytes, path: Path) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    """imlist, qimlist and gnd (see `_truth`) of a pickled ground truth; `ValueError` naming its `path` for all else."""
    wanted = "wanted is a pickle of imlist, qimlist, gnd (easy, hard, junk, bbx), whole and not compressed"
    with one_line(f"{path} is refused; {wanted}"):
        for opcode, argument, _ in pickletools.genops(data):
            if "PUT" in opcode.name and int(argument) > len(data):
                raise pickle.UnpicklingError(f"it claims {int(argument):,} entries of memory")
        record = _named(_Unpickler(io.BytesIO(data), encoding="bytes").load())
        imlist, qimlist = ([_text(name) for name in record[key]] for key in ("imlist", "qimlist"))
        for name in (*imlist, *qimlist):
            if not stays_inside(name):
                raise ValueError(f"{name!r} is not the name of a picture inside its folder")
        return imlist, qimlist, [_truth(_named(entry)) for entry in record["gnd"]]


def _named(fields: dict) -> dict[str, Any]:
    return {_text(key): value for key, value in fields.items()}


def _truth(fields: dict[str, Any]) -> dict[str, Any]:
    """Ids of a query's database images in easy, hard and junk, int64, ascending, and its box in pixels, or None."""
    if "ok" in fields:  # the benchmarks before they were revisited
        fields = {"easy": fields["ok"], "hard": [], **fields}
    truth: dict[str, Any] = {key: np.array(sorted(map(index, fields[key])), dtype=np.int64) for key in LISTS}
    box = fields.get("bbx")
    return truth | {"boxes": None if box is None else tuple(map(float, box))}
