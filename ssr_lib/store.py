"""Arrays of many pictures on disk: each under a key, in shards made in any order by anyone, checked before trusted.

A shard is one `.npy` file for each kind of array, the pictures flat one behind the other, and a sidecar `.json`,
written last: what made them, their keys, their shapes and the SHA-256 of each file.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import secrets
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssr_lib.files import digest, hash_file, read_json, write_atomic

SHARD = 256  # pictures: the most that a killed run repeats


def picture_key(path: Path | str, box=None) -> str:
    """A name for a picture, or for its part in `box`: where it really lies, its size in bytes, its last changes in ns.

    A file that was overwritten and given its old date back still has a new time of change of its inode. The inode's own
    number is left out: on FAT disks it is another after each mount. An absent file has a key too.
    """
    place = os.path.realpath(path)
    stamp = [place]
    with suppress(OSError):
        status = os.stat(place)
        stamp += [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return digest([*stamp, box])[:32]


class Store:
    """Named arrays of pictures in `directory`, under keys of any text.

    `made_by`: JSON-able, all that determines the arrays but the pictures themselves. Raises `ValueError`, naming what
    differs, where something else has made a shard.
    """

    def __init__(self, directory: Path | str, made_by: dict):
        self.directory = Path(directory)
        self.made_by = json.loads(json.dumps(made_by))  # tuples become lists, as they will be read
        sidecars = self.directory.glob(f"shard-{'?' * 16}.json")
        self._records = {sidecar.stem: self._checked(sidecar) for sidecar in sidecars}

    def _checked(self, sidecar: Path) -> dict:
        """The record of a shard; where it is damaged, one without keys, and a warning."""
        record = read_json(sidecar) or {}
        stored = record.get("made_by", self.made_by)
        for key in {**self.made_by, **stored}:
            if stored.get(key) != self.made_by.get(key):
                found, wanted = (json.dumps(made_by.get(key))[:200] for made_by in (stored, self.made_by))
                told = f"{key} is {found} there, {wanted} now; choose another folder, or delete this one"
                raise ValueError(f"{self.directory} was made by something else: {told}")
        with suppress(FileNotFoundError, KeyError):  # an array is gone, or the sidecar is cut off
            checks = record["sha256"].items()
            if all(hash_file(sidecar.with_suffix(f".{name}.npy")) == wanted for name, wanted in checks):
                return record
        warnings.warn(f"{sidecar} is damaged; its pictures are described again", stacklevel=2)
        return {"keys": []}

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys`, each once, that are not there."""
        there = set(chain.from_iterable(record["keys"] for record in self._records.values()))
        return [key for key in dict.fromkeys(keys) if key not in there]

    def add(self, pictures: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Store the arrays of some pictures as a shard; all have the same names and dtypes, shapes may differ."""
        stem = f"shard-{secrets.token_hex(8)}"
        record = {"made_by": self.made_by, "keys": list(pictures), "shapes": {}, "sha256": {}}
        for name in next(iter(pictures.values())):
            arrays = [picture[name] for picture in pictures.values()]
            buffer = io.BytesIO()  # NumPy's own way to a file gives a full disk no error number
            np.save(buffer, np.concatenate([array.reshape(-1) for array in arrays]), allow_pickle=False)
            write_atomic(self.directory / f"{stem}.{name}.npy", buffer.getbuffer())
            record["shapes"][name] = [array.shape for array in arrays]
            record["sha256"][name] = hashlib.sha256(buffer.getbuffer()).hexdigest()
        write_atomic(self.directory / f"{stem}.json", json.dumps(record))
        self._records[stem] = record

    def arrays(self, name: str, keys: Sequence[str]) -> list[np.ndarray]:
        """The arrays `name` of the pictures `keys`, in their own shapes, read-only, from the disk as they are used."""
        wanted, found = set(keys), {}
        for stem, record in self._records.items():
            if wanted.isdisjoint(record["keys"]):
                continue
            flat = np.load(self.directory / f"{stem}.{name}.npy", mmap_mode="r", allow_pickle=False)
            shapes = record["shapes"][name]
            pieces = np.split(np.asarray(flat), np.cumsum([math.prod(shape) for shape in shapes])[:-1])
            for key, piece, shape in zip(record["keys"], pieces, shapes, strict=True):
                found[key] = piece.reshape(shape)
        return [found[key] for key in keys]

    def drop_others(self, keys: Iterable[str]) -> None:
        """Delete the shards that hold none of the pictures `keys`, and damaged ones."""
        wanted = set(keys)
        for stem, record in list(self._records.items()):
            if wanted.isdisjoint(record["keys"]):
                del self._records[stem]
                for file in [self.directory / f"{stem}.json", *self.directory.glob(f"{stem}.*.npy")]:
                    file.unlink(missing_ok=True)


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
        rows = np.stack([maps[i] for i in ids], out=stored[:size].reshape(shape))
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
