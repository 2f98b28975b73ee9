"""A folder of photographs as an index that follows it: new pictures are described, the others are not again."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from ssr_lib.datasets.folder import read_folder
from ssr_lib.extract import extract
from ssr_lib.files import digest, folder_lock, read_json, write_atomic
from ssr_lib.images import Preprocess, may_pass
from ssr_lib.network import weights_digest
from ssr_lib.store import save_npy

INDEX_FOLDER = ".ssr-index"  # inside the gallery, unless another place is named
Stamp = list  # [size in bytes, time of the last change in ns]: what tells that a file is still the one described


@dataclass(frozen=True)
class Gallery:
    """N described pictures: `files` relative to `folder`, `descriptors` (N, D) float32, one row for each.

    `unreadable`: the pictures that could not be described, and why. `n_new`: how many were described just now, those
    that are unreadable not among them.
    """

    folder: Path
    files: list[str]
    descriptors: np.ndarray
    unreadable: dict[str, str]
    n_new: int


def index_folder(
    net: nn.Module, folder: Path | str, preprocess: Preprocess, index: Path | str | None = None, **options
) -> Gallery:
    """Describe the pictures below `folder` that `index` does not know yet, and return all that are there now.

    `index`: a folder, by default `.ssr-index` in the gallery; each model and preprocessing has its own part of it.
    A picture counts as known by name, size and time of change; one that could not be read for a reason outside it, such
    as its permissions, is tried again every time. An interrupted run goes on where it stopped.
    `options`: batch_size, workers, device, dtype, progress, as for `extract.extract`.
    Raises as `read_folder` and `extract` do, and `PermissionError` where the index is wanted but cannot be written.
    """
    folder = Path(folder)
    index = Path(index) if index is not None else folder / INDEX_FOLDER
    dtype = str(options.get("dtype", "torch.float32"))
    place = index / digest([net.config, weights_digest(net), preprocess.to_dict(), dtype])[:16]
    known, rows = _load(place)
    now, unreadable = _look(folder, known)
    new = _unknown(known, now)
    if new:
        try:
            with folder_lock(place):
                known, rows = _update(place, net, folder, preprocess, now, options)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise PermissionError(
                    f"{index} cannot be written ({error.strerror}); name another folder for the index (--index)"
                ) from error
            raise
    described = [name for name in now if known[name]["row"] is not None]
    unreadable |= {name: known[name]["reason"] for name in now if known[name]["row"] is None}
    if rows is None:  # nothing could be opened, so nothing was ever described
        rows = np.empty((0, net.descriptor_dim), dtype=np.float32)
    of_described = rows[[known[name]["row"] for name in described]]
    return Gallery(folder, described, of_described, dict(sorted(unreadable.items())), len(new.keys() & set(described)))


def _look(folder: Path, known: dict[str, dict]) -> tuple[dict[str, Stamp], dict[str, str]]:
    """Stamps of the pictures below `folder`, and why others cannot even be opened: a link to nothing, no permission."""
    now, closed = {}, {}
    for name in read_folder(folder):
        path = folder / name
        try:
            stamp = _stamp(path)
            # found out here, not in describing, so that an index that cannot be written need not be
            if not _is_known(known, name, stamp) and not os.access(path, os.R_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            now[name] = stamp
        except OSError as error:
            closed[name] = f"{path}: {error.strerror}"
    return now, closed


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _is_known(known: dict[str, dict], name: str, stamp: Stamp) -> bool:
    """Whether the index tells of this very file what would be true at another try."""
    entry = known.get(name)
    return entry is not None and entry["stamp"] == stamp and (entry["row"] is not None or not may_pass(entry["reason"]))


def _unknown(known: dict[str, dict], now: dict[str, Stamp]) -> dict[str, Stamp]:
    return {name: stamp for name, stamp in now.items() if not _is_known(known, name, stamp)}


def _update(place: Path, net, folder: Path, preprocess: Preprocess, now: dict[str, Stamp], options: dict):
    """Describe what is new, what an interrupted run had begun with first; return `_load`'s two results."""
    known, rows = _load(place)
    describe = lambda names: extract(net, names, preprocess, place / "new", root=folder, on_error="list", **options)
    if batch := read_json(place / "begun.json"):  # what an interrupted run had begun with
        known, rows = _add(place, batch, known, rows, now, describe)
    if new := _unknown(known, now):
        shutil.rmtree(place / "new", ignore_errors=True)  # of a batch that was finished and then interrupted
        write_atomic(place / "begun.json", json.dumps(new))
        known, rows = _add(place, new, known, rows, now, describe)
    return known, rows


def _add(place: Path, batch: dict[str, Stamp], known: dict[str, dict], rows, now: dict[str, Stamp], describe):
    """Describe a batch and store it beside those of the others that are there now; return `_load`'s two results."""
    described, failed = describe(list(batch))
    entries = {name: known[name] for name in now if name in known and name not in batch}
    kept = [name for name, entry in entries.items() if entry["row"] is not None]
    parts = [rows[[entries[name]["row"] for name in kept]]] if kept else []
    entries |= {name: {**entries[name], "row": row} for row, name in enumerate(kept)}
    row = len(kept)
    for i, (name, stamp) in enumerate(batch.items()):
        entries[name] = {"stamp": stamp, "row": None if i in failed else row, "reason": failed.get(i)}
        row += i not in failed
    parts.append(np.delete(described, list(failed), axis=0))
    rows = np.concatenate(parts)
    _save(place, entries, rows)
    (place / "begun.json").unlink()
    shutil.rmtree(place / "new")
    return entries, rows


def _save(place: Path, known: dict[str, dict], rows: np.ndarray) -> None:
    """Write rows under a name of their own, then the list that names them: a reader never sees half of a change."""
    checksum = hashlib.sha256(np.ascontiguousarray(rows)).hexdigest()
    path = place / f"rows-{checksum[:16]}.npy"
    save_npy(path, rows.shape, rows.dtype, [rows])
    write_atomic(place / "index.json", json.dumps({"rows": path.name, "sha256": checksum, "files": known}))
    for other in (*place.glob("rows-*.npy"), *place.glob(".rows-*.part")):  # the latter of runs that were killed
        if other != path:
            other.unlink()


def _load(place: Path) -> tuple[dict[str, dict], np.ndarray | None]:
    """What the index knows: for each file its stamp, row and reason; and the rows. Nothing where it is damaged."""
    try:
        record = json.loads((place / "index.json").read_text(encoding="utf-8"))
        rows = np.load(place / record["rows"], allow_pickle=False)
        if hashlib.sha256(rows).hexdigest() == record["sha256"]:
            return record["files"], rows
    except FileNotFoundError:
        if not (place / "index.json").is_file():
            return {}, None
    except (ValueError, EOFError, KeyError, TypeError):
        pass
    warnings.warn(f"the index {place} is damaged; its pictures are described again", stacklevel=2)
    return {}, None
