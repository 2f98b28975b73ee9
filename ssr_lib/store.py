"""Arrays of many pictures on disk: made a shard at a time, resumable after any interruption, checked before trusted.

A shard holds up to `SHARD` pictures: one `.npy` file for each kind of array, the pictures flat one behind the other,
and a sidecar `.json`, written last: what made them, their shapes and the SHA-256 of each file.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssr_lib.files import digest, hash_file, locked, read_json, write_atomic

SHARD = 256  # pictures: the most that a killed run repeats


def file_stamp(path: Path | str) -> list:
    """What a cache knows a picture by: where it really lies, its size in bytes, times of the last changes in ns.

    A file that was overwritten and given its old date back still has a new time of change of its inode. The inode's own
    number is left out: on FAT disks it is another after each mount. An absent file has a stamp too.
    """
    place = os.path.realpath(path)
    try:
        status = os.stat(place)
    except OSError:
        return [place]
    return [place, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def save_arrays(stem: Path, arrays: Mapping[str, np.ndarray], record: dict) -> dict:
    """Write each array to `stem`.<name>.npy, then `stem`.json: `record` with their SHA-256, which is returned."""
    checksums = {}
    for name, array in arrays.items():
        buffer = io.BytesIO()  # NumPy's own way to a file gives a full disk no error number
        np.save(buffer, array, allow_pickle=False)
        write_atomic(f"{stem}.{name}.npy", buffer.getbuffer())
        checksums[name] = hashlib.sha256(buffer.getbuffer()).hexdigest()
    record = {**record, "sha256": checksums}
    write_atomic(f"{stem}.json", json.dumps(record))
    return record


def sound_record(stem: Path) -> dict | None:
    """The record that `save_arrays` wrote, if every array is as it was; None, with a warning, where one is damaged."""
    record = read_json(f"{stem}.json")
    if record is None:
        return None
    try:
        if all(hash_file(f"{stem}.{name}.npy") == found for name, found in record["sha256"].items()):
            return record
    except (FileNotFoundError, KeyError, AttributeError):  # an array is gone, or the record is another program's
        pass
    warnings.warn(f"{stem} is damaged; it is made again", stacklevel=2)
    return None


def load_array(stem: Path, name: str) -> np.ndarray:
    """An array that `save_arrays` wrote, read-only, from the disk as it is used."""
    return np.load(f"{stem}.{name}.npy", mmap_mode="r", allow_pickle=False)


class Store:
    """Arrays of the pictures `files` below `root` in `directory`, in `shards` (ranges of their numbers).

    `made_by`: JSON-able, with the files' names and `boxes` all that determines the arrays but the pictures themselves.
    A shard is made again where a picture has another `file_stamp` than when it was described. Raises `ValueError` for
    no files or other boxes, and naming what differs where the folder was made by something else.
    """

    def __init__(self, directory: Path | str, made_by: dict, files: Sequence, root: Path | str = ".", boxes=None):
        if len(files) == 0:
            raise ValueError(f"{directory}: no files to describe")
        if boxes is not None and len(boxes) != len(files):
            raise ValueError(f"{len(boxes)} boxes for {len(files)} files; one for each (or None) is wanted")
        self.directory = Path(directory)
        self.paths = [Path(root, file) for file in files]
        self.shards = [range(start, min(start + SHARD, len(files))) for start in range(0, len(files), SHARD)]
        crops = [None if box is None else list(map(float, box)) for box in boxes or ()]
        pictures = {"files": digest([Path(file).as_posix() for file in files]), "boxes": digest(crops)}
        record = {**made_by, "pictures": len(files), **pictures, "shard": SHARD}
        self.made_by = json.loads(json.dumps(record))  # tuples become lists, as they will be read
        self._stems = [self.directory / f"shard-{shard:05d}" for shard in range(len(self.shards))]
        self._stamps = [self._stamp(shard) for shard in range(len(self.shards))]
        self._records: list[dict | None] = [None] * len(self.shards)
        for sidecar in sorted(self.directory.glob("shard-*.json"))[:1]:
            stored = (read_json(sidecar) or {}).get("made_by", self.made_by)
            for key in {**self.made_by, **stored}:
                if stored.get(key) != self.made_by.get(key):
                    found, wanted = (json.dumps(record.get(key))[:200] for record in (stored, self.made_by))
                    told = f"{key} is {found} there, {wanted} now; choose another folder, or delete this one"
                    raise ValueError(f"{directory} was made by something else: {told}")

    def _stamp(self, shard: int) -> str:
        return digest([file_stamp(self.paths[i]) for i in self.shards[shard]])

    def _missing(self) -> list[int]:
        """The shards that are not there, or neither sound nor of these very pictures; the others become known."""
        for shard, known in enumerate(self._records):
            record = known or sound_record(self._stems[shard])
            if record and record.get("made_by") == self.made_by and record.get("stamps") == self._stamps[shard]:
                self._records[shard] = record
        return [shard for shard, known in enumerate(self._records) if known is None]

    def complete(self, make: Callable[[list[int]], None]) -> None:
        """Have `make` write the missing shards, by number; `FolderBusyError` where another process is writing here."""
        if self._missing():
            with locked(self.directory):
                for left in self.directory.glob(".*.part"):  # what killed processes had half written
                    left.unlink()
                make(self._missing())  # asked again: another process may have made some meanwhile

    def write(self, shard: int, pictures: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Store the arrays of a shard's pictures; all have the same names and dtypes, shapes may differ."""
        flat, shapes = {}, {}
        for name in pictures[0]:
            flat[name] = np.concatenate([arrays[name].reshape(-1) for arrays in pictures])
            shapes[name] = [arrays[name].shape for arrays in pictures]
        contents = None  # of pictures that changed since this run began: then these arrays are of no use to the next
        if self._stamp(shard) == self._stamps[shard]:
            contents = digest([hash_file(self.paths[i]) for i in self.shards[shard]])
        record = {"made_by": self.made_by, "stamps": self._stamps[shard], "contents": contents, "shapes": shapes}
        self._records[shard] = save_arrays(self._stems[shard], flat, record)

    def arrays(self, name: str) -> Iterator[np.ndarray]:
        """The arrays `name` of all pictures of a complete store, in their own shapes, read-only, as `load_array`."""
        for stem, record in zip(self._stems, self._records, strict=True):
            shapes = record["shapes"][name]
            ends = np.cumsum([math.prod(shape) for shape in shapes])
            for piece, shape in zip(np.split(np.asarray(load_array(stem, name)), ends[:-1]), shapes, strict=True):
                yield piece.reshape(shape)

    @property
    def digest(self) -> str:
        """A name of a complete store by what made it, the pictures' bytes included, wherever they lie."""
        return digest([self.made_by, [record["contents"] for record in self._records]])


@dataclass(eq=False)
class Maps:
    """Maps of N pictures, float16: `mid` (stride 16) and `last` (stride 32), each None or arrays (H, W, C) in a list.

    That is the order in memory in which convolutions are fastest. `digest`: a name by what made them, the pictures'
    bytes included. `preprocess`: how the pictures were prepared.
    """

    mid: Sequence[np.ndarray] | None
    last: Sequence[np.ndarray] | None
    digest: str
    preprocess: dict
    _buffers: dict[tuple, tuple[np.ndarray, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.last if self.mid is None else self.mid)

    def take(self, ids: Sequence[int]) -> Maps:
        """The maps of some of the pictures."""
        mid, last = (None if maps is None else [maps[i] for i in ids] for maps in (self.mid, self.last))
        return Maps(mid, last, digest([self.digest, list(map(int, ids))]), self.preprocess)

    def batch(self, ids: Sequence[int], device: torch.device | str = "cpu") -> tuple[Tensor | None, Tensor | None]:
        """`mid` and `last` of some pictures of one shape: float32 (B, C, H, W) on `device`, or None.

        The tensors are overwritten by the next call: fresh ones would cost more in page faults than the copy itself.
        """
        return self._read("mid", self.mid, ids, device), self._read("last", self.last, ids, device)

    def _read(self, name: str, maps: Sequence[np.ndarray] | None, ids: Sequence[int], device) -> Tensor | None:
        if maps is None:
            return None
        shape = (len(ids), *maps[ids[0]].shape)  # (B, H, W, C)
        size = math.prod(shape)
        stored, batch = self._buffers.get((name, str(device)), ((), ()))
        if len(stored) < size:
            with torch.inference_mode(False):  # a buffer made in inference mode could not be trained on later
                stored, batch = np.empty(size, np.float16), torch.empty(size, device=device)
            self._buffers[name, str(device)] = stored, batch
        rows = stored[:size].reshape(shape)
        for row, i in enumerate(ids):
            if maps[i].shape != shape[1:]:
                raise ValueError(f"picture {i} has a map {maps[i].shape}, {ids[0]} one of {shape[1:]}; one is wanted")
            rows[row] = maps[i]
        return batch[:size].view(shape).copy_(torch.from_numpy(rows)).permute(0, 3, 1, 2)

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        """Ids of all pictures, each batch of one shape."""
        groups: dict[tuple, list[int]] = {}
        for i in range(len(self)):
            shape = tuple(maps[i].shape for maps in (self.mid, self.last) if maps is not None)
            groups.setdefault(shape, []).append(i)
        for group in groups.values():
            for start in range(0, len(group), batch_size):
                yield np.array(group[start : start + batch_size])
