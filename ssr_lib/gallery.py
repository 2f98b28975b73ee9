"""A folder of photographs as an index that follows it: new pictures are described, the others are not again."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn
from tqdm import tqdm

from ssr_lib.datasets.folder import file_identity, list_pictures
from ssr_lib.decode import ImageError, may_pass
from ssr_lib.extract import described
from ssr_lib.files import digest, locked
from ssr_lib.images import Preprocess
from ssr_lib.network import weights_digest
from ssr_lib.store import file_stamp, load_array, remove, save_arrays, sound_record

INDEX_FOLDER = ".ssr-index"  # inside the gallery, unless another place is named
CHUNK = 256  # pictures that are saved together: the most that a killed run repeats
Known = dict[str, tuple[list, "np.ndarray | str"]]  # a picture's `file_stamp`, and its row (D,) or why it has none


@dataclass(frozen=True)
class Gallery:
    """N described pictures: `files` relative to `folder`, `descriptors` (N, D) float32, one row for each.

    `unreadable`: the pictures that could not be described, and why. `skipped`: how many files are left out for which
    reason. `n_new`: how many pictures were described just now. `place`: the part of the index that they are in.
    """

    folder: Path
    files: list[str]
    descriptors: np.ndarray
    unreadable: dict[str, str]
    skipped: dict[str, int]
    n_new: int
    place: Path

    def find(self, photo: Path | str) -> int | None:
        """The number of the picture that is this very file, under whatever name; None where it is none of them."""
        wanted = file_identity(photo)
        return next((i for i, name in enumerate(self.files) if file_identity(self.folder / name) == wanted), None)


def index_folder(
    net: nn.Module,
    folder: Path | str,
    preprocess: Preprocess,
    index: Path | str | None = None,
    progress=True,
    **options,
) -> Gallery:
    """Describe the pictures below `folder` that `index` does not know yet, and return all that are there now.

    `index`: a folder, by default `.ssr-index` in the gallery; each gallery, model and preprocessing has its own part of
    it. A picture counts as known by its `file_stamp`; one that could not be read for a reason outside it, such as its
    permissions, is tried again every time. An interrupted run goes on where it stopped.
    `options`: of `extract.described`. Raises as `list_pictures`, and `PermissionError` where the index cannot be written.
    """
    folder = Path(folder)
    index = folder / INDEX_FOLDER if index is None else Path(index)
    made_by = [net.config, weights_digest(net), preprocess.to_dict(), options.get("dtype"), os.path.realpath(folder)]
    place = index / digest(made_by)[:16]
    files, skipped = list_pictures(folder)
    closed = {name for name in files if not os.access(folder / name, os.R_OK)}
    stamps = {name: file_stamp(folder / name) for name in files if name not in closed}
    known = _read(place)
    new = _unknown(stamps, known)
    if new:
        try:
            with locked(place):
                remove(place, ".*.part")
                known = _read(place)  # another run may have described some meanwhile
                names = _unknown(stamps, known)
                found = described(net, [folder / name for name in names], preprocess, **options)
                bar = tqdm(found, total=len(names), unit="image", disable=not progress)
                _save_by_chunks(place, _noted(known, names, stamps, bar))
                _tidy(place, {name: known[name] for name in stamps})
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise PermissionError(
                    f"{index} cannot be written ({error.strerror}); name another folder for the index (--index)"
                ) from error
            raise
    rows = {name: known[name][1] for name in stamps if not isinstance(known[name][1], str)}
    unreadable = {name: f"{folder / name}: {os.strerror(errno.EACCES)}" for name in closed}
    unreadable |= {name: known[name][1] for name in stamps if name not in rows}
    descriptors = np.stack(list(rows.values())) if rows else np.empty((0, net.descriptor_dim), np.float32)
    n_new = sum(name in rows for name in new)
    return Gallery(folder, list(rows), descriptors, dict(sorted(unreadable.items())), skipped, n_new, place)


def _unknown(stamps: dict[str, list], known: Known) -> list[str]:
    return [name for name, stamp in stamps.items() if name not in known or known[name][0] != stamp]


def _noted(known: Known, names: list[str], stamps: dict[str, list], found: Iterable) -> Iterator[tuple[str, tuple]]:
    """Add to `known` what comes of each picture, and pass it on."""
    for i, row in found:
        known[names[i]] = stamps[names[i]], str(row) if isinstance(row, ImageError) else row
        yield names[i], known[names[i]]


def _read(place: Path) -> Known:
    """What the sound chunks of an index know; the later ones count."""
    known: Known = {}
    for sidecar in sorted(place.glob("chunk-*.json")):
        record = sound_record(sidecar.with_suffix(""))
        if record is not None:
            rows = load_array(sidecar.with_suffix(""), "rows")
            known |= zip(record["files"], zip(record["stamps"], rows, strict=True), strict=True)
            known |= {name: (stamp, reason) for name, (stamp, reason) in record["unusable"].items()}
    return known


def _save_by_chunks(place: Path, entries: Iterable[tuple[str, tuple]]) -> None:
    """Save what is known of each picture, `CHUNK` of them at a time; what another try may bring is not saved."""
    chunk: Known = {}
    for name, (stamp, row) in entries:
        if not isinstance(row, str) or not may_pass(row):
            chunk[name] = stamp, row
        if len(chunk) == CHUNK:
            _save(place, chunk)
            chunk = {}
    if chunk:
        _save(place, chunk)


def _save(place: Path, chunk: Known) -> None:
    rows = {name: row for name, (_, row) in chunk.items() if not isinstance(row, str)}
    record = {
        "files": list(rows),
        "stamps": [chunk[name][0] for name in rows],
        "unusable": {name: entry for name, entry in chunk.items() if name not in rows},
    }
    number = 1 + max((int(sidecar.stem[6:]) for sidecar in place.glob("chunk-*.json")), default=-1)
    array = np.stack(list(rows.values())) if rows else np.empty((0, 0), np.float32)
    save_arrays(place / f"chunk-{number:05d}", {"rows": array}, record)


def _tidy(place: Path, known: Known) -> None:
    """Save an index of many small or outdated chunks anew."""
    old = [sidecar.stem for sidecar in place.glob("chunk-*.json")]
    if len(old) > 8 + 2 * len(known) // CHUNK:
        _save_by_chunks(place, known.items())
        for chunk in old:
            remove(place, f"{chunk}.json")  # first: what has no record is not there
            remove(place, f"{chunk}.*")
