"""A gallery that answers in milliseconds: faiss proposes, exact scores order. Never a reported figure; docs/live.md."""

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ssr_lib.files import replacing
from ssr_lib.rerank._augmented import NeighbourSum, refine
from ssr_lib.rerank._ranking import DEFAULT_SHORTLIST as SHORTLIST
from ssr_lib.search import knn, prepare
from ssr_lib.search.prepared import check_integer

FILE = "live.npz"
GRAPH = "HNSW32,SQ8"  # 32 links a picture, usual for hundreds of dimensions, over a byte a dimension
SAME = 1e-6  # the most by which a descriptor of the same picture differs when it is described again
SIDES = ("own", "augmented")


@dataclass(eq=False)
class LiveIndex:
    """Pictures in L rows, of which those stand for one that are `alive`; a picture that changes gets a new row.

    `vectors`: of the sides "own" and "augmented", (L, D) float32, unit. `near` (L, 2, k): scores and rows of the
    nearest others. `indices`: of each side a faiss index whose labels are rows. `made_by`: the network, in words.
    """

    how: NeighbourSum
    names: list[str]
    alive: np.ndarray
    near: np.ndarray
    vectors: dict[str, np.ndarray]
    indices: dict[str, object]
    made_by: str = ""

    @classmethod
    def build(cls, pictures: Mapping[str, np.ndarray], k=2, alpha=0.3, kind=GRAPH, made_by="") -> "LiveIndex":
        """From descriptors (D,) float32 by name; `k`, `alpha` of GFR. Raises `ValueError` as `global_rerank`.

        `kind`: for `faiss.index_factory`, HNSW or IVF, such as "IVF1024,PQ32np" where a graph is too large.
        """
        import faiss  # after torch

        own = prepare(np.array(list(pictures.values()))).features()
        indices = {side: faiss.index_factory(own.shape[1], kind, faiss.METRIC_INNER_PRODUCT) for side in SIDES}
        for index in indices.values():
            index.train(own)
        rows = np.zeros(0, bool), np.empty((0, 2, k)), dict.fromkeys(SIDES, own[:0])
        live = cls(NeighbourSum(k, alpha), [], *rows, indices, made_by)
        live.update(pictures)
        return live

    def rows(self) -> dict[str, int]:
        """The row of each picture."""
        return {self.names[row]: row for row in np.flatnonzero(self.alive)}

    def search(self, query: np.ndarray, top=10, *, rerank=True, effort=1, own=None) -> list[tuple[str, float]]:
        """The `top` pictures for a descriptor (D,) float32, best first, with exact scores; by GFR unless not `rerank`.

        `top`: 1 to 400. `effort`: a whole factor on what faiss visits. `own`: the query's own name, which is left out.
        """
        check_integer(top, "top", 1, SHORTLIST, "the pictures that are scored")
        check_integer(effort, "effort", 1, 1_000_000, "a factor")
        query = self._unit({"the query": query})  # (1, D)
        found, near = self._shortlist("own", query, own, effort)
        if rerank:
            query = refine(prepare(query), prepare(near), None, self.how).features()
            found, near = self._shortlist("augmented", query, own, effort)
        scores, places = knn(query, near, min(top, len(found)))
        return [(self.names[row], float(score)) for row, score in zip(found[places[0]], scores[0], strict=True)]

    def _unit(self, vectors: Mapping[str, np.ndarray]) -> np.ndarray:
        for name, x in vectors.items():
            if np.shape(x) != self.vectors["own"].shape[1:]:
                raise ValueError(f"{name} has shape {np.shape(x)}; the index was made with another model")
        return prepare(np.array(list(vectors.values()))).features() if vectors else self.vectors["own"][:0]

    def _shortlist(self, side: str, query: np.ndarray, own: str | None, effort: int) -> tuple[np.ndarray, np.ndarray]:
        """About 400 rows near a query (1, D), in their order, and their vectors."""
        import faiss

        found, index = np.flatnonzero(self.alive), self.indices[side]
        if len(found) > SHORTLIST:  # of fewer all: a graph of many removed rows might not lead to them
            chosen = faiss.IDSelectorBitmap(np.packbits(self.alive, bitorder="little"))
            if isinstance(index, faiss.IndexHNSW):
                how = faiss.SearchParametersHNSW(efSearch=effort * SHORTLIST, sel=chosen)
            else:
                how = faiss.SearchParametersIVF(nprobe=min(16 * effort, index.nlist), sel=chosen)
            labels = index.search(query, SHORTLIST, params=how)[1][0]
            found = np.sort(labels[labels >= 0])
        found = found[[self.names[row] != own for row in found]]  # the query's own is one of them, if any
        return found, self.vectors[side][found]

    def update(self, new: Mapping[str, np.ndarray], gone: Collection[str] = ()) -> None:
        """Remove the pictures `gone`, then add `new` ones, (D,) float32 by name, or put them in place of those there.

        Who has other neighbours now moves to a new row. Raises `ValueError` for bad input before anything changes.
        """
        rows, own = self.rows(), self.vectors["own"]
        unit = dict(zip(new, self._unit(new), strict=True))  # all is checked before anything changes
        if unknown := {gone} if isinstance(gone, str) else {*gone} - rows.keys():
            raise ValueError(f"gone names {', '.join(sorted(unknown)[:9])}; wanted is a list of names that are there")
        there = rows.keys() - {*gone}
        new = {name: x for name, x in unit.items() if name not in there or abs(own[rows[name]] - x).max() > SAME}
        stay = there - new.keys()
        check_integer(self.how.k, "k", 1, min(len(stay) + len(new) - 1, SHORTLIST), "other pictures on a shortlist")
        added = np.array([*new.values()], np.float32).reshape(-1, own.shape[1])
        self.alive[[row for name, row in rows.items() if name not in stay]] = False
        kept = np.flatnonzero(self.alive)
        moves = ~self.alive[self.near[kept, 1].astype(int)].all(axis=1)  # a neighbour has gone
        if new and len(kept):
            moves |= knn(own[kept], added, 1)[0][:, 0] > self.near[kept, 0, -1]  # or one has come
        moving = kept[moves]
        moved = np.arange(len(self.names))  # the row of each row's picture afterwards
        moved[moving] = len(moved) + np.arange(len(moving))
        self.near[:, 1] = moved[self.near[:, 1].astype(int)]
        self.alive[moving] = False
        self.alive = np.concatenate([self.alive, np.ones(len(moving) + len(added), bool)])
        self.names = [*self.names, *(self.names[row] for row in moving), *new]
        if len(self.names) == len(moved):
            return
        own = np.concatenate([own[moving], added])
        alive = np.flatnonzero(self.alive)  # the new rows come last
        database = prepare(np.concatenate([self.vectors["own"], own])[alive])
        found = knn(own, database, self.how.k, exclude=np.arange(len(alive))[-len(own) :])
        self.near = np.concatenate([self.near, np.stack([found[0], alive[found[1]]], axis=1)])
        augmented = refine(prepare(own), database, None, self.how, found).features()
        for side, vectors in zip(SIDES, (own, augmented), strict=True):
            self.vectors[side] = np.concatenate([self.vectors[side], vectors])
            self.indices[side].add(vectors)

    @classmethod
    def follow(cls, directory, pictures: Mapping[str, np.ndarray], made_by: str, k: int, alpha: float) -> "LiveIndex":
        """The index that was saved in `directory`, brought up to these pictures, or a new one; descriptors by name."""
        with suppress(ValueError):  # that file is missing, damaged or of another network
            live = cls.load(directory, made_by)
            if live.how == NeighbourSum(k, alpha) and live.alive.mean() > 0.5:  # else mostly of removed rows
                live.update(pictures, live.rows().keys() - pictures.keys())
                return live
        return cls.build(pictures, k, alpha, made_by=made_by)  # raises again what `update` has against the pictures

    def save(self, directory: Path | str) -> None:
        """Write the index as one file, whole or not at all."""
        import faiss

        record = np.frombuffer(json.dumps([self.names, asdict(self.how), self.made_by]).encode(), np.uint8)
        indices = {f"{side}-index": faiss.serialize_index(index) for side, index in self.indices.items()}
        Path(directory).mkdir(parents=True, exist_ok=True)
        with replacing(Path(directory, FILE)) as temporary, open(temporary, "wb") as file:
            np.savez(file, record=record, near=self.near, alive=self.alive, **indices, **self.vectors)

    @classmethod
    def load(cls, directory: Path | str, made_by: str | None = None) -> "LiveIndex":
        """What `save` wrote. Raises `ValueError` for a file that is damaged, missing or not `made_by` the same."""
        import faiss

        path = Path(directory, FILE)
        try:
            with np.load(path) as file:
                stored = dict(file)  # a checksum of each is compared
            names, how, stored_by = json.loads(stored["record"].tobytes())
            vectors = {side: stored[side] for side in SIDES}
            indices = {side: faiss.deserialize_index(stored[f"{side}-index"]) for side in SIDES}
            live = cls(NeighbourSum(**how), names, stored["alive"], stored["near"], vectors, indices, stored_by)
        except Exception as error:  # damaged files raise all kinds
            raise ValueError(f"{path} is damaged or missing ({error}); `ssr index` makes it again") from error
        if made_by not in (None, stored_by):
            raise ValueError(f"{path} was made by {stored_by}, the query by {made_by}; `ssr index` makes it anew")
        return live
