"""A folder of photographs as an index that follows it: new pictures are described, the others are not again."""

from __future__ import annotations

import errno
import hashlib
import inspect
import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from torch import nn
from tqdm import tqdm

from ssr_lib.datasets.folder import file_identity, list_pictures
from ssr_lib.decode import ImageError, may_pass
from ssr_lib.extract import described
from ssr_lib.files import FolderBusyError, digest, locked
from ssr_lib.images import Preprocess
from ssr_lib.network import weights_digest
from ssr_lib.search import Prepared, knn
from ssr_lib.store import file_stamp, load_array, remove, save_arrays, sound_record

INDEX_FOLDER = ".ssr-index"  # inside the gallery, unless another place is named
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

    def prepared(self, part: ModuleType, database: Prepared, parameters: dict) -> object | None:
        """What a re-ranker makes of the `descriptors` alone; None where there is no such thing.

        The neighbours of each picture, which cost most of it, are kept beside the index for the next search.
        """
        if not hasattr(part, "prepare"):
            return None
        if "neighbours" not in inspect.signature(part.prepare).parameters:
            return part.prepare(database, **parameters)
        return part.prepare(database, neighbours=self._neighbours(database, parameters["k"]), **parameters)

    def _neighbours(self, database: Prepared, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and ids (N, k or more) of each picture's nearest others."""
        stem, of = self.place / "neighbours", hashlib.sha256(self.descriptors).hexdigest()
        record = sound_record(stem)
        if record is not None and record["of"] == of and record["k"] >= k:
            return load_array(stem, "scores"), load_array(stem, "ids")
        scores, ids = knn(database, database, k, exclude=np.arange(len(self.files)))
        with suppress(OSError, FolderBusyError), locked(self.place):  # kept where that can be
            save_arrays(stem, {"scores": scores, "ids": ids}, {"of": of, "k": k})
        return scores, ids


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
                known = _read(place)  # another run may have described some meanwhile
                names = sorted(_unknown(stamps, known), key=_bucket)
                found = described(net, [folder / name for name in names], preprocess, **options)
                bar = tqdm(found, total=len(names), unit="image", disable=not progress)
                _save_as_found(place, known, stamps, names, bar)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            told = f"{index} cannot be written ({error.strerror}); name another folder for the index (--index)"
            raise PermissionError(told) from error
    rows = {name: known[name][1] for name in stamps if not isinstance(known[name][1], str)}
    unreadable = {name: f"{folder / name}: {os.strerror(errno.EACCES)}" for name in closed}
    unreadable |= {name: known[name][1] for name in stamps if name not in rows}
    descriptors = np.stack(list(rows.values())) if rows else np.empty((0, net.descriptor_dim), np.float32)
    n_new = sum(name in rows for name in new)
    return Gallery(folder, list(rows), descriptors, dict(sorted(unreadable.items())), skipped, n_new, place)


def _bucket(name: str) -> str:
    """The part of an index in which a picture is kept: one of 256, so that a new picture leaves most files alone."""
    return digest(name)[:2]


def _unknown(stamps: dict[str, list], known: Known) -> list[str]:
    return [name for name, stamp in stamps.items() if name not in known or known[name][0] != stamp]


def _read(place: Path) -> Known:
    known: Known = {}
    for sidecar in place.glob("??.json"):
        record = sound_record(sidecar.with_suffix(""))
        if record is not None:
            rows = iter(load_array(sidecar.with_suffix(""), "rows"))
            for name, (stamp, reason) in record["files"].items():
                known[name] = stamp, next(rows) if reason is None else reason
    return known


def _save_as_found(place: Path, known: Known, stamps: dict, names: list[str], found: Iterable) -> None:
    """Add to `known` what comes of each picture of `names`, and save each bucket as soon as it is complete."""
    remove(place, ".*.part")
    waiting = Counter(_bucket(name) for name in names)
    members: dict[str, list[str]] = {bucket: [] for bucket in waiting}
    for name in stamps:
        if _bucket(name) in members:
            members[_bucket(name)].append(name)
    for i, row in found:
        known[names[i]] = stamps[names[i]], str(row) if isinstance(row, ImageError) else row
        bucket = _bucket(names[i])
        waiting[bucket] -= 1
        if waiting[bucket] == 0:
            _save(place / bucket, {name: known[name] for name in members[bucket]})


def _save(stem: Path, entries: Known) -> None:
    """Save pictures with their rows; why one has none only where another try would not help."""
    rows = [row for _, row in entries.values() if not isinstance(row, str)]
    files = {}
    for name, (stamp, row) in entries.items():
        if not isinstance(row, str) or not may_pass(row):
            files[name] = stamp, row if isinstance(row, str) else None
    save_arrays(stem, {"rows": np.stack(rows) if rows else np.empty((0, 0), np.float32)}, {"files": files})
