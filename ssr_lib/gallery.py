"""A folder of photographs as an index that follows it: new pictures are described, the others are not again."""

from __future__ import annotations

import errno
import hashlib
import inspect
import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ssr_lib.datasets.folder import file_identity, list_pictures
from ssr_lib.decode import ImageError
from ssr_lib.extract import described
from ssr_lib.files import digest
from ssr_lib.images import Preprocess
from ssr_lib.network import weights_digest
from ssr_lib.search import Prepared, knn
from ssr_lib.store import file_stamp, load_array, save_arrays, sound_record

INDEX_FOLDER = ".ssr-index"  # inside the gallery, unless another place is named


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
        takes = inspect.signature(part.prepare).parameters
        if "neighbours" in takes or "parameters" in takes:
            parameters = {**parameters, "neighbours": self._neighbours(database, parameters["k"])}
        return part.prepare(database, **parameters)

    def _neighbours(self, database: Prepared, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and ids (N, k or more) of each picture's nearest others."""
        stem, of = self.place / "neighbours", hashlib.sha256(self.descriptors).hexdigest()
        record = sound_record(stem)
        if record is not None and record["of"] == of and record["k"] >= k:
            return load_array(stem, "scores"), load_array(stem, "ids")
        scores, ids = knn(database, database, k, exclude=np.arange(len(self.files)))
        with suppress(OSError):  # kept where that can be
            save_arrays(stem, {"scores": scores, "ids": ids}, {"of": of, "k": k})
        return scores, ids


def index_folder(
    net: nn.Module, folder: Path | str, preprocess: Preprocess, index=None, progress=True, **options
) -> Gallery:
    """Describe the pictures below `folder` that `index` does not know yet, and return all that are there now.

    `index`: a folder, by default `.ssr-index` in the gallery; each gallery, model and preprocessing has its own part of
    it. A picture counts as known by its `file_stamp`; one that could not be described is tried again every time. An
    interrupted run goes on where it stopped.
    `options`: of `extract.described`. Raises as `list_pictures`, and `PermissionError` for an index it cannot write.
    """
    folder = Path(folder)
    index = folder / INDEX_FOLDER if index is None else Path(index)
    dtype = options.get("dtype", torch.float32)
    made_by = [net.config, weights_digest(net), preprocess.to_dict(), dtype, os.path.realpath(folder)]
    place = index / digest(made_by)[:16]
    files, skipped = list_pictures(folder)
    stamps, known = {name: file_stamp(folder / name) for name in files}, _read(place)
    rows = {name: known[name][1] for name in files if name in known and known[name][0] == stamps[name]}
    buckets: dict[str, list[str]] = {}
    for name in files:
        buckets.setdefault(_bucket(name), []).append(name)
    new = sorted((name for name in files if name not in rows), key=_bucket)
    waiting, fresh, unreadable = Counter(map(_bucket, new)), set(), {}
    found = described(net, [folder / name for name in new], preprocess, **options)
    for i, row in tqdm(found, total=len(new), unit="image", disable=not progress):
        bucket = _bucket(new[i])
        waiting[bucket] -= 1
        if isinstance(row, ImageError):
            unreadable[new[i]] = str(row)
        else:
            rows[new[i]] = row
            fresh.add(bucket)
        if waiting[bucket] == 0 and bucket in fresh:
            _save(place / bucket, {name: (stamps[name], rows[name]) for name in buckets[bucket] if name in rows})
    files = [name for name in files if name in rows]
    descriptors = np.stack([rows[name] for name in files]) if files else np.empty((0, net.descriptor_dim), np.float32)
    n_new = len(new) - len(unreadable)
    return Gallery(folder, files, descriptors, dict(sorted(unreadable.items())), skipped, n_new, place)


def _bucket(name: str) -> str:
    """The part of an index that keeps a picture: one of 256, so that a new picture leaves most files alone."""
    return digest(name)[:2]


def _read(place: Path) -> dict[str, tuple[list, np.ndarray]]:
    """Stamp and row of each picture that an index knows."""
    known = {}
    for sidecar in place.glob("??.json"):
        record = sound_record(sidecar.with_suffix(""))
        if record is not None:
            entries = zip(record["stamps"], load_array(sidecar.with_suffix(""), "rows"), strict=True)
            known |= zip(record["files"], entries, strict=True)
    return known


def _save(stem: Path, entries: dict[str, tuple[list, np.ndarray]]) -> None:
    stamps, rows = zip(*entries.values(), strict=True)
    try:
        save_arrays(stem, {"rows": np.stack(rows)}, {"files": list(entries), "stamps": stamps})
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        told = f"{stem.parent} cannot be written ({error.strerror}); name another folder for the index (--index)"
        raise PermissionError(told) from error
