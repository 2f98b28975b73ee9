"""A retrieval benchmark: queries, a database, and which database images are right for each query.

The form is that of the revisited Oxford and Paris benchmarks (Radenovic et al., CVPR 2018): every query lists the
database images that show its landmark as *easy*, *hard* or *junk*; everything unlisted is wrong.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from ssr_lib.files import write_atomic

LISTS = ("easy", "hard", "junk")
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Benchmark:
    """Q queries and N database images with their ground truth.

    `database`, `queries`: file names relative to `root`. `boxes`: for each query the crop (x0, y0, x1, y1) in pixels,
    or None for the whole image. `easy`, `hard`, `junk`: for each query an int64 array of database ids, disjoint.
    `groups`: for each query the group that statistics resample as one (a landmark; queries that share positives).
    `query_ids`: for each query its own id where the query is itself a database image, else -1.
    `extra`: further lists of database ids for each query by name (the synthetic benchmark's "twins" and "doubles").
    Raises `ValueError` naming the query and the id where the ground truth contradicts itself.
    """

    name: str
    root: Path
    database: Sequence[str]
    queries: Sequence[str]
    easy: Sequence[np.ndarray]
    hard: Sequence[np.ndarray]
    junk: Sequence[np.ndarray]
    boxes: Sequence[Box | None] = ()
    groups: Sequence[str] = ()
    query_ids: Sequence[int] = ()
    extra: dict[str, Sequence[np.ndarray]] = field(default_factory=dict)

    def __post_init__(self):
        n_queries = len(self.queries)
        set_field = lambda key, value: object.__setattr__(self, key, value)  # frozen dataclass
        set_field("root", Path(self.root))
        for key in LISTS:
            set_field(key, [np.asarray(ids, dtype=np.int64).reshape(-1) for ids in getattr(self, key)])
        set_field(
            "extra",
            {key: [np.asarray(i, dtype=np.int64).reshape(-1) for i in lists] for key, lists in self.extra.items()},
        )
        set_field("boxes", list(self.boxes) or [None] * n_queries)
        set_field("groups", [str(group) for group in self.groups] or [str(i) for i in range(n_queries)])
        set_field("query_ids", [int(i) for i in self.query_ids] or [-1] * n_queries)
        self._validate()

    def _validate(self) -> None:
        n_database = len(self.database)
        for key in (*LISTS, "boxes", "groups", "query_ids"):
            if len(getattr(self, key)) != len(self.queries):
                raise ValueError(
                    f"benchmark {self.name}: {len(getattr(self, key))} entries in '{key}' "
                    f"for {len(self.queries)} queries; one for each query is wanted"
                )
        for key, lists in self.extra.items():
            if len(lists) != len(self.queries):
                raise ValueError(f"benchmark {self.name}: {len(lists)} '{key}' lists for {len(self.queries)} queries")
        if len(set(self.database)) != n_database:
            twice = next(name for name, count in Counter(self.database).items() if count > 1)
            raise ValueError(f"benchmark {self.name}: database image {twice!r} is listed twice")
        for i, query in enumerate(self.queries):
            lists = {key: getattr(self, key)[i] for key in LISTS}
            for key, ids in [*lists.items(), *((key, lists_[i]) for key, lists_ in self.extra.items())]:
                bad = ids[(ids < 0) | (ids >= n_database)]
                if len(bad):
                    raise ValueError(
                        f"benchmark {self.name}, query {i} ({query}): id {bad[0]} in '{key}' is outside the database "
                        f"of {n_database} images (ids 0 to {n_database - 1})"
                    )
            together = np.concatenate(list(lists.values()))
            values, counts = np.unique(together, return_counts=True)
            if (counts > 1).any():
                twice = values[counts > 1][0]
                where = [key for key, ids in lists.items() if twice in ids]
                raise ValueError(
                    f"benchmark {self.name}, query {i} ({query}): image {twice} ({self.database[twice]}) is listed "
                    f"more than once, in {' and '.join(where)}; each image belongs in one list"
                )
            box = self.boxes[i]
            if box is not None and (
                len(box) != 4 or not np.isfinite(box).all() or box[2] <= box[0] or box[3] <= box[1]
            ):
                raise ValueError(
                    f"benchmark {self.name}, query {i} ({query}): box {tuple(box)} is not (x0, y0, x1, y1) "
                    "with x0 < x1 and y0 < y1"
                )
            if not -1 <= self.query_ids[i] < n_database:
                raise ValueError(f"benchmark {self.name}, query {i}: its own id {self.query_ids[i]} is out of range")

    def __len__(self) -> int:
        return len(self.queries)

    def __repr__(self) -> str:
        counts = ", ".join(f"{sum(len(ids) for ids in getattr(self, key))} {key}" for key in LISTS)
        return (
            f"Benchmark({self.name}: {len(self.queries)} queries in {len(set(self.groups))} groups, "
            f"{len(self.database)} database images; {counts})"
        )

    def select_queries(self, ids: Sequence[int]) -> Benchmark:
        """The benchmark with only the queries `ids`, in that order, against the same database."""
        per_query = ("queries", *LISTS, "boxes", "groups", "query_ids")
        chosen = {key: [getattr(self, key)[i] for i in ids] for key in per_query}
        extra = {key: [lists[i] for i in ids] for key, lists in self.extra.items()}
        return replace(self, **chosen, extra=extra)

    def first_images(self, count: int) -> Benchmark:
        """The benchmark with only the first `count` database images. Raises `ValueError` if a listed one is among the rest."""
        extra = {key: [ids[ids < count] for ids in lists] for key, lists in self.extra.items()}
        return replace(self, database=self.database[:count], extra=extra)

    def select_images(self, ids: Sequence[int]) -> Benchmark:
        """The benchmark with only the database images `ids`, in that order; those left out leave every list."""
        place = np.full(len(self.database), -1)
        place[np.asarray(ids, dtype=np.int64)] = np.arange(len(ids))
        kept = lambda lists: [np.sort(place[old][place[old] >= 0]) for old in lists]
        return replace(
            self,
            database=[self.database[i] for i in ids],
            query_ids=[-1 if i < 0 else int(place[i]) for i in self.query_ids],
            extra={key: kept(lists) for key, lists in self.extra.items()},
            **{key: kept(getattr(self, key)) for key in LISTS},
        )

    def save(self, path: Path | str) -> None:
        """Write the benchmark as JSON, atomically; the root is stored relative to the file."""
        path = Path(path)
        record = {
            "format": "ssr-benchmark-1",
            "name": self.name,
            "root": os.path.relpath(self.root.resolve(), path.resolve().parent),
            "database": list(self.database),
            "queries": list(self.queries),
            "boxes": [None if box is None else [float(v) for v in box] for box in self.boxes],
            "groups": self.groups,
            "query_ids": self.query_ids,
            **{key: [ids.tolist() for ids in getattr(self, key)] for key in LISTS},
            "extra": {key: [ids.tolist() for ids in lists] for key, lists in self.extra.items()},
        }
        write_atomic(path, json.dumps(record, separators=(",", ":")) + "\n")

    @classmethod
    def load(cls, path: Path | str) -> Benchmark:
        """Read what `save` wrote. Raises `ValueError` naming the file for another format or damaged JSON."""
        path = Path(path)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a benchmark file: {error}; delete it and it is made again") from error
        if not isinstance(record, dict) or record.pop("format", None) != "ssr-benchmark-1":
            raise ValueError(f"{path} is not a benchmark file: 'format' should be 'ssr-benchmark-1'")
        wanted = {entry.name: entry.default is MISSING and entry.default_factory is MISSING for entry in fields(cls)}
        wrong = [f"it has no {name!r}" for name, needed in wanted.items() if needed and name not in record]
        wrong += [f"it has {name!r}" for name in record if name not in wanted]
        if wrong:
            raise ValueError(f"{path} is not a benchmark file: {', '.join(wrong)}; wanted are {', '.join(wanted)}")
        try:
            root = path.resolve().parent / record["root"]
            boxes = [None if box is None else tuple(box) for box in record.get("boxes", ())]
            return cls(**{**record, "root": root, "boxes": boxes})
        except (ValueError, TypeError, AttributeError, OverflowError) as error:  # a value of another kind raises any
            raise ValueError(f"{path}: {error}") from error
