"""A retrieval benchmark: queries, a database, and which database images are right for each query; training pictures.

The form is that of the revisited Oxford and Paris benchmarks (Radenović et al., CVPR 2018): every query lists the
database images that show its landmark as *easy*, *hard* or *junk*; everything unlisted is wrong.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import create_model

from ssr_lib.files import STRICT, one_line, write_atomic

LISTS = ("easy", "hard", "junk")
PER_QUERY = ("queries", *LISTS, "boxes", "groups", "query_ids")
_IDS = list[list[int]]
_BOX = tuple[int | float, int | float, int | float, int | float] | None
_Stored = create_model(
    "_Stored", __config__=STRICT, format=(Literal["ssr-benchmark-1"], ...), name=(str, ...), root=(str, ...),
    database=(list[str], ...), queries=(list[str], ...), **dict.fromkeys(LISTS, (_IDS, ...)), boxes=(list[_BOX], ...),
    groups=(list[str], []), query_ids=(list[int], []), extra=(dict[str, _IDS], {}),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Q queries and N database images with their ground truth.

    `database`, `queries`: file names relative to `root`. `boxes`: for each query the crop (x0, y0, x1, y1) in pixels,
    or None for the whole image. `easy`, `hard`, `junk`: for each query an int64 array of database ids, disjoint.
    `groups`: for each query the group that statistics resample as one (a landmark). `query_ids`: for each query its own
    id where the query is itself a database image, else -1. `extra`: further lists of database ids for each query by
    name (on drawn landmarks "same_style", "same_building", "unrelated").
    Raises `ValueError` naming the query and the id where the ground truth contradicts itself.
    """

    name: str
    root: Path
    database: Sequence[str]
    queries: Sequence[str]
    easy: Sequence[np.ndarray]
    hard: Sequence[np.ndarray]
    junk: Sequence[np.ndarray]
    boxes: Sequence[tuple[float, float, float, float] | None] = ()
    groups: Sequence[str] = ()
    query_ids: Sequence[int] = ()
    extra: dict[str, Sequence[np.ndarray]] = field(default_factory=dict)

    def __post_init__(self):
        n_queries = len(self.queries)
        values = {"root": Path(self.root)} | {key: self._as_ids(key, getattr(self, key)) for key in LISTS}
        values["extra"] = {key: self._as_ids(key, lists) for key, lists in self.extra.items()}
        values["boxes"] = list(self.boxes) or [None] * n_queries
        values["groups"] = [str(group) for group in self.groups] or [str(i) for i in range(n_queries)]
        values["query_ids"] = self._as_ids("query_ids", [self.query_ids])[0].tolist() or [-1] * n_queries
        for key, value in values.items():
            object.__setattr__(self, key, value)  # the dataclass is frozen
        for key, entries in ({key: values[key] for key in PER_QUERY[1:]} | self.extra).items():
            if len(entries) != n_queries:
                raise ValueError(f"benchmark {self.name}: {len(entries)} entries in '{key}' for {n_queries} queries")
        if len(set(self.database)) != len(self.database):
            twice, _ = Counter(self.database).most_common(1)[0]
            raise ValueError(f"benchmark {self.name}: database image {twice!r} is listed twice")
        for i, query in enumerate(self.queries):
            self._validate_query(i, f"benchmark {self.name}, query {i} ({query})")

    def _as_ids(self, key: str, lists: Iterable) -> list[np.ndarray]:
        arrays = [np.asarray(ids if hasattr(ids, "dtype") else list(ids)).reshape(-1) for ids in lists]
        if bad := [(i, x.tolist()) for i, x in enumerate(arrays) if x.size and x.dtype.kind not in "iu"]:
            i, found = bad[0]
            raise ValueError(f"benchmark {self.name}: entry {i} of '{key}' is {found!s:.60}; wanted whole numbers")
        return [array.astype(np.int64) for array in arrays]

    def _validate_query(self, i: int, where: str) -> None:
        lists = {key: getattr(self, key)[i] for key in LISTS}
        n_database, box = len(self.database), self.boxes[i]
        for key, ids in (lists | {key: extra[i] for key, extra in self.extra.items()}).items():
            bad = ids[(ids < 0) | (ids >= n_database)]
            if len(bad):
                raise ValueError(f"{where}: id {bad[0]} in '{key}' is outside the database of {n_database} images")
        ids, counts = np.unique(np.concatenate(list(lists.values())), return_counts=True)
        if (counts > 1).any():
            twice = ids[counts > 1][0]
            raise ValueError(f"{where}: image {twice} ({self.database[twice]}) is listed more than once")
        own = self.query_ids[i]
        if own != -1 and not (0 <= own < n_database and self.database[own] == self.queries[i]):
            raise ValueError(f"{where}: {own} in 'query_ids' is not the database image of its name; -1 is none")
        if box is not None and not (len(box) == 4 and np.isfinite(box).all() and box[0] < box[2] and box[1] < box[3]):
            raise ValueError(f"{where}: box {tuple(box)} is not (x0, y0, x1, y1) with x0 < x1 and y0 < y1")

    def __len__(self) -> int:
        return len(self.queries)

    def __repr__(self) -> str:
        counts = ", ".join(f"{sum(map(len, getattr(self, key)))} {key}" for key in LISTS)
        return f"Benchmark({self.name}: {len(self)} queries, {len(self.database)} database images; {counts})"

    @property
    def positives(self) -> list[np.ndarray]:
        """For each query the ids that are right by the Medium protocol, easy and hard, ascending."""
        return [np.sort(np.concatenate(pair)) for pair in zip(self.easy, self.hard, strict=True)]

    def status(self, query: int, ids: Iterable[int]) -> list[str]:
        """For each database id "right", "wrong" or "ignored" (junk), by the Medium protocol."""
        named = dict.fromkeys(self.junk[query].tolist(), "ignored")
        named |= dict.fromkeys([*self.easy[query].tolist(), *self.hard[query].tolist()], "right")
        return [named.get(int(i), "wrong") for i in ids]

    def select_queries(self, ids: Sequence[int]) -> "Benchmark":
        """The benchmark with only the queries `ids`, in that order, against the same database."""
        chosen = {key: [getattr(self, key)[i] for i in ids] for key in PER_QUERY}
        return replace(self, **chosen, extra={key: [lists[i] for i in ids] for key, lists in self.extra.items()})

    def first_images(self, count: int) -> "Benchmark":
        """With only the first `count` database images. Raises `ValueError` if a listed one is among the rest."""
        return replace(self.select_images(range(count)), **{key: getattr(self, key) for key in (*LISTS, "query_ids")})

    def select_images(self, ids: Sequence[int]) -> "Benchmark":
        """The benchmark with only the database images `ids`, in that order; those left out leave every list."""
        place = np.full(len(self.database) + 1, -1)  # the last one for an own id of -1
        place[np.asarray(ids, dtype=np.int64)] = np.arange(len(ids))

        def kept(lists: Sequence[np.ndarray]) -> list[np.ndarray]:
            return [np.sort(place[old][place[old] >= 0]) for old in lists]

        chosen = {key: kept(getattr(self, key)) for key in LISTS}
        chosen["extra"] = {key: kept(lists) for key, lists in self.extra.items()}
        return replace(self, database=[self.database[i] for i in ids], query_ids=place[self.query_ids], **chosen)

    def save(self, path: Path | str) -> None:
        """Write the benchmark as JSON, atomically; the root is stored relative to the file."""
        path = Path(path)
        record = {"format": "ssr-benchmark-1"} | {entry.name: getattr(self, entry.name) for entry in fields(self)}
        record["root"] = os.path.relpath(self.root.resolve(), path.resolve().parent)
        write_atomic(path, json.dumps(record, separators=(",", ":"), default=lambda array: array.tolist()) + "\n")

    @classmethod
    def load(cls, path: Path | str) -> "Benchmark":
        """Read what `save` wrote. Raises `ValueError` naming the file for another format or damaged JSON."""
        with one_line(f"{path} is not a benchmark file"):
            record = dict(_Stored.model_validate_json(Path(path).read_bytes()))
            del record["format"]
            return cls(**record | {"root": Path(path).resolve().parent / record["root"]})


@dataclass(frozen=True)
class LabelledImages:
    """Training pictures: file names relative to `root`, and for each the number of its class, (N,) int64."""

    root: Path
    files: Sequence[str]
    labels: np.ndarray
