"""A folder of photographs as an index that follows it: new pictures are described, the others are not again."""

from __future__ import annotations

import errno
import hashlib
import inspect
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn

from ssr_lib.datasets.folder import file_identity, list_pictures
from ssr_lib.decode import ImageError
from ssr_lib.extract import computed, descriptors_of
from ssr_lib.files import digest
from ssr_lib.images import Preprocess
from ssr_lib.network import weights_digest
from ssr_lib.search import Prepared, knn
from ssr_lib.store import SHARD, file_stamp, load_array, save_arrays, sound_record

INDEX_FOLDER = ".ssr-index"  # inside the gallery, unless another place is named
Rows = dict[tuple, np.ndarray]  # descriptors (D,) by the stamps of their pictures


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
        stem = self.place / "neighbours"
        of = hashlib.sha256(self.descriptors).hexdigest()
        record = sound_record(stem)
        if record is not None and record["of"] == of and record["k"] >= k:
            return np.array(load_array(stem, "scores")), np.array(load_array(stem, "ids"))
        scores, ids = knn(database, database, k, exclude=np.arange(len(self.files)))
        with suppress(OSError):  # kept where that can be
            save_arrays(stem, {"scores": scores, "ids": ids}, {"of": of, "k": k})
        return scores, ids


def index_folder(
    net: nn.Module, folder: Path | str, preprocess: Preprocess, index=None, progress=True, *, device="cpu",
    dtype=torch.float32, **options,
) -> Gallery:  # fmt: skip
    """Describe the pictures below `folder` that `index` does not know yet, and return all that are there now.

    `index`: a folder, by default `.ssr-index` in the gallery; each gallery, model and preprocessing has its own part of
    it. A picture counts as known by its `file_stamp`; one that could not be described is tried again every time. An
    interrupted run goes on where it stopped, at most `SHARD` pictures earlier. `device`, `dtype` and `options`
    (`batch_size`, `workers`): as for `extract`. Raises as `list_pictures`, and `PermissionError` for an index that it
    cannot write.
    """
    folder = Path(folder)
    made_by = ["ssr-gallery-2", net.config, weights_digest(net), preprocess.to_dict(), dtype, os.path.realpath(folder)]
    place = Path(folder / INDEX_FOLDER if index is None else index, digest(made_by)[:16])
    files, skipped = list_pictures(folder)
    stamps = {name: tuple(file_stamp(folder / name)) for name in files}
    rows, thin = _read(place, set(stamps.values()))
    new = [name for name in files if stamps[name] not in rows]
    unreadable = {}
    compute = descriptors_of(net, preprocess, device, dtype)
    found = computed(compute, [folder / name for name in new], preprocess, progress=progress, **options)
    for start, pictures in zip(range(0, len(new), SHARD), found, strict=True):
        fresh = {}
        for name, picture in zip(new[start : start + SHARD], pictures, strict=True):
            if isinstance(picture, ImageError):
                unreadable[name] = str(picture)
            else:
                fresh[stamps[name]] = picture["descriptor"]
        if fresh:
            rows |= fresh
            _save(place, fresh, thin)
            thin = {}
    files = [name for name in files if stamps[name] in rows]
    descriptors = np.array([rows[stamps[name]] for name in files], np.float32).reshape(-1, net.descriptor_dim)
    return Gallery(folder, files, descriptors, unreadable, skipped, len(new) - len(unreadable), place)


def _read(place: Path, wanted: set[tuple]) -> tuple[Rows, dict[Path, Rows]]:
    """The rows that an index has of the pictures `wanted`; and those of its parts that hold few of them, by sidecar."""
    rows, thin = {}, {}
    for sidecar in place.glob("part-*.json"):
        stem, live = sidecar.with_suffix(""), {}
        record = sound_record(stem)
        if record is not None:
            held = zip(map(tuple, record["stamps"]), np.array(load_array(stem, "rows")), strict=True)
            live = {stamp: row for stamp, row in held if stamp in wanted and stamp not in rows}
        rows |= live
        if len(live) < SHARD / 2:
            thin[sidecar] = live
    return rows, thin


def _save(place: Path, fresh: Rows, thin: dict[Path, Rows]) -> None:
    """Add a part to an index, with what is left in its `thin` ones, which then go."""
    for live in thin.values():
        fresh = fresh | live
    rows = np.stack(list(fresh.values()))
    try:
        save_arrays(place / f"part-{secrets.token_hex(8)}", {"rows": rows}, {"stamps": list(fresh)})
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        told = f"{place} cannot be written ({error.strerror}); name another folder for the index (--index)"
        raise PermissionError(told) from error
    for sidecar in thin:
        sidecar.unlink(missing_ok=True)
        sidecar.with_suffix(".rows.npy").unlink(missing_ok=True)
