"""Arrays of many pictures on disk: each under a key, in shards made in any order by anyone, checked before trusted."""

import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save
from torch import Tensor

from ssr_lib.files import check_same, digest, hash_file, write_atomic

SHARD = 128  # pictures: the most that a killed run repeats, and that are in memory before they are written


def picture_key(path: Path | str, box=None) -> str:
    """A name for a picture, or for its part in `box`, by where it lies, its bytes and its last changes in ns.

    An overwritten file that got its old date back still has a new time of change of its inode; the inode's own number
    is left out, which on FAT disks is another after each mount. An absent file has a key too.
    """
    stamp = [os.path.realpath(path)]
    with suppress(OSError):
        status = os.stat(stamp[0])
        stamp += [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return digest([*stamp, box])[:32]


class Store:
    """Named arrays of pictures in `directory`, under keys of any text; each shard is a file that its SHA-256 names.

    In a shard the arrays of a name lie flat, one behind the other, beside their shapes. `made_by`: JSON-able, all that
    determines the arrays but the pictures themselves. Raises `ValueError`, naming what differs, where something else
    has made a shard.
    """

    def __init__(self, directory: Path | str, made_by: dict):
        self.directory = Path(directory)
        self.made_by = json.loads(json.dumps(made_by))  # tuples become lists, as they will be read
        paths = sorted(self.directory.glob(f"shard-{64 * '?'}.safetensors"))  # other files may lie beside them
        self._shards = {path: self._checked(path) for path in paths}

    def _checked(self, path: Path) -> dict:
        """The record of a shard; one without keys, and a warning, where it is damaged."""
        if path.stem != f"shard-{hash_file(path)}":
            warnings.warn(f"{path} is damaged; its pictures are described again", stacklevel=2)
            return {"keys": []}
        with safe_open(path, "numpy") as file:
            record = json.loads(file.metadata()["record"])
        check_same(record["made_by"], self.made_by, path)
        return record

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that are not there."""
        there = set(chain.from_iterable(record["keys"] for record in self._shards.values()))
        return [key for key in keys if key not in there]

    def add(self, pictures: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Store the arrays of some pictures as a shard; all have the same names and dtypes, shapes may differ."""
        named = {name: [arrays[name] for arrays in pictures.values()] for name in next(iter(pictures.values()))}
        shapes = {name: [array.shape for array in arrays] for name, arrays in named.items()}
        flat = {name: np.concatenate([array.reshape(-1) for array in arrays]) for name, arrays in named.items()}
        record = {"made_by": self.made_by, "keys": list(pictures), "shapes": shapes}
        content = save(flat, {"record": json.dumps(record)})
        path = self.directory / f"shard-{hashlib.sha256(content).hexdigest()}.safetensors"
        write_atomic(path, content)
        self._shards[path] = record

    def arrays(self, name: str, keys: Sequence[str]) -> list[np.ndarray]:
        """The arrays `name` of the pictures `keys`, in their own shapes, from the disk as they are used."""
        wanted, found = set(keys), {}
        for path, record in self._shards.items():
            if wanted.isdisjoint(record["keys"]):
                continue
            with safe_open(path, "pt") as file:
                flat = file.get_tensor(name).numpy()
            shapes = record["shapes"][name]
            pieces = np.split(flat, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
            for key, piece, shape in zip(record["keys"], pieces, shapes, strict=True):
                found[key] = piece.reshape(shape)
        return [found[key] for key in keys]

    def drop_others(self, keys: Iterable[str]) -> None:
        """Delete the shards that hold none of the pictures `keys`, and damaged ones."""
        wanted = set(keys)
        for path, record in list(self._shards.items()):
            if wanted.isdisjoint(record["keys"]):
                del self._shards[path]
                path.unlink(missing_ok=True)


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

    def take(self, ids: Sequence[int]) -> "Maps":
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
