"""Rows in shards, files of `ssr_lib.store`: each made alone, in any order, by anyone, and checked before trusted."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ssr_lib.extract import describe, descriptors_of
from ssr_lib.files import digest
from ssr_lib.images import Preprocess
from ssr_lib.scale.engine import Engine, Work, one_machine
from ssr_lib.search.prepared import MOST, Prepared, check_integer, prepare
from ssr_lib.store import Store, picture_key


@dataclass
class Shards:
    """Rows of `shape` (N, …) in a folder, `per_shard` to a file: float32, float16, or float64 for neighbour lists.

    `made_by`: JSON-able, all that determines the rows. Raises `ValueError` for no rows and another layout, and, naming
    the shard and what differs, where something else made one of them.
    """

    folder: Path | str
    made_by: dict
    shape: tuple[int, ...]
    dtype: str
    per_shard: int
    made_of: list | tuple = ()  # what each row is made of, where one may change by itself

    def __post_init__(self):
        check_integer(self.per_shard, "per_shard", 1, MOST, "the rows of one file")
        stored = ("float64",) if len(self.shape) == 3 else ("float32", "float16")
        if self.dtype not in stored or len(self) == 0:
            raise ValueError(f"{self.dtype} rows {self.shape}; wanted 1 row or more, stored as {' or '.join(stored)}")
        self.keys = [f"{i} {digest(self.made_of[self.rows(i)])[:16]}" for i in range(-(-len(self) // self.per_shard))]
        self.missing()

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, shard: int) -> slice:
        """The places of a shard's rows among all."""
        return slice(shard * self.per_shard, min((shard + 1) * self.per_shard, len(self)))

    def missing(self) -> list[int]:
        """The shards that are not there, or damaged, of which a warning names the file: every byte is read."""
        layout = {"stored": self.dtype, "shape": self.shape, "per_shard": self.per_shard}
        self.store = Store(self.folder, self.made_by | layout)
        return [int(key.split()[0]) for key in self.store.missing(self.keys)]

    def name(self) -> str:
        """A name of the rows by what made them. Raises `ValueError` where `missing` last found that shards are."""
        if lost := self.store.missing(self.keys):
            told = f"{len(lost)} of {len(self.keys)} shards are missing or damaged: {', '.join(lost[:9])}"
            raise ValueError(f"{self.folder}: {told}; make them again, the others can stay")
        return digest([self.store.made_by, self.keys])

    def write(self, shard: int, array: np.ndarray) -> None:
        """Store a shard's rows. Raises `ValueError` for descriptors that `prepare` refuses, as they are stored."""
        arrays = {"rows": np.ascontiguousarray(array, self.dtype)}
        if self.dtype != "float64":
            rows = prepare(arrays["rows"].astype(np.float32), f"shard {shard}")
            arrays |= {"norms": rows.norms.numpy(), "unit": np.array(rows.is_unit)}
        self.store.add({self.keys[shard]: arrays})

    def fill(self, work: Work, engine: Engine = one_machine) -> "Shards":
        """Write the shards that are missing or damaged; `work`: the number of a shard → its rows."""
        missing = [int(key.split()[0]) for key in self.store.missing(self.keys)]
        self.store.drop_others(self.keys)  # damaged files
        done = engine(lambda shard: self.write(shard, work(shard)), missing)
        list(tqdm(done, Path(self.folder).name, len(missing), unit="shard", disable=None))
        self.missing()  # others may have written some of them
        self.name()
        return self

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        """Some rows, in memory; descriptors as float32, which is what search compares, however they are stored."""
        ids = np.arange(*index.indices(len(self))) if isinstance(index, slice) else index
        out = np.empty((len(ids), *self.shape[1:]), "float64" if self.dtype == "float64" else "float32")
        shards = ids // self.per_shard
        for shard in np.unique(shards).tolist():
            here = np.flatnonzero(shards == shard)
            out[here] = self.store.arrays("rows", [self.keys[shard]])[0][ids[here] - shard * self.per_shard]
        return out

    def prepared(self, device="cpu") -> Prepared:
        """Descriptors as search and re-ranking take them: read from the disk, by the block, when they are used."""
        return Prepared(self, self._lengths[0].to(device), self._lengths[1], True)

    @cached_property
    def _lengths(self) -> tuple[torch.Tensor, bool]:
        norms, units = (self.store.arrays(name, self.keys) for name in ("norms", "unit"))
        return torch.from_numpy(np.concatenate(norms)), all(units)


def store_rows(folder: Path | str, array: np.ndarray, per_shard: int, *, dtype: str = "float32", **made_by) -> Shards:
    """Descriptors (N, D) float32 that are at hand, as shards; those that lie there already stay."""
    made_by |= {"content": hashlib.sha256(np.ascontiguousarray(array)).hexdigest()}
    shards = Shards(folder, made_by, array.shape, dtype, per_shard)
    return shards.fill(lambda shard: array[shards.rows(shard)])


def describe_pictures(
    folder: Path | str, net: torch.nn.Module, files: list, preprocess: Preprocess, per_shard: int, *,
    stored: str = "float32", engine: Engine = one_machine, **options,
) -> Shards:  # fmt: skip
    """Describe pictures into the shards that are missing or damaged; the others stay.

    `net`: images (B, 3, H, W) → (B, D); each worker has a copy. `stored`: dtype of the shards. `options`: `root`,
    `device`, `dtype`, `batch_size`, `workers`, as for `extract`, and its errors, of the pictures of one shard.
    """
    made_by = descriptors_of(net, preprocess, dtype=options.get("dtype", torch.float32))[1]
    places = [Path(options.get("root", "."), file) for file in files]
    made_by["data"] = digest([str(place.absolute()) for place in places])
    shards = Shards(folder, made_by, (len(files), net.descriptor_dim), stored, per_shard, [*map(picture_key, places)])
    return shards.fill(lambda i: describe(net, files[shards.rows(i)], preprocess, **options), engine)
