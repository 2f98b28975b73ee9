"""Aggregated selective match kernel: images are alike whose local features agree within many visual words.

X_c: the features x of image X whose nearest word of the codebook is c.

    V(X_c) = Σ_{x ∈ X_c} (x − c)                                   aggregated residual of a word
    b(X_c) = sign V(X_c) ∈ {−1, 1}^D                               binarised: one bit a number
    u_c = b(X_c) · b(Y_c) / D = 1 − 2 h / D                        h: Hamming distance
    σ_α(u) = sign(u) |u|^α where u > τ, else 0                     selectivity
    K(X, Y) = γ(X) γ(Y) Σ_c σ_α(u_c),   γ(X) = (number of words of X)^(−1/2), so that K(X, X) = 1

Source: Tolias, Avrithis & Jégou, IJCV 2016: reference [38] of the paper. In the database a feature goes to one word, in
a query to its `assignments` nearest. The package `asmk` has no wheels, so the inverted file is our own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssr_lib.files import load_part
from ssr_lib.local import LocalFeatures
from ssr_lib.rerank._inverted_file import InvertedFile, invert, kernel
from ssr_lib.rerank._ranking import Ranking, Reranking
from ssr_lib.rerank._shortlist import reorder
from ssr_lib.search.prepared import blocks
from ssr_lib.store import Maps

NEEDS = "maps"
PER_WORD = 8  # training features a word at least, else it remembers single ones
TRAINING = 2**18  # features that k-means is given
PICTURES = 256  # whose features are in memory at once


@dataclass(frozen=True)
class Learned:
    """What `fit` returns: a kind of local features, the arguments of its `extract`, and the codebook (K, D) float32."""

    features: str
    options: dict[str, Any]
    codebook: np.ndarray

    def extract(self, maps: Maps) -> Iterator[LocalFeatures]:
        kind = load_part(self.features, "local")
        for part in blocks(len(maps), PICTURES):
            yield from kind.extract(maps.take(range(part.start, part.stop)), **self.options)

    def nearest(self, rows: np.ndarray, assignments: int = 1) -> np.ndarray:
        """The nearest words (n, assignments) of descriptors (n, D)."""
        import faiss  # only where it is needed

        return faiss.knn(rows, self.codebook, min(assignments, len(self.codebook)))[1]

    def aggregate(self, rows: np.ndarray, nearest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The words (w,) of descriptors (n, D), rising, and V of each (w, D)."""
        words, which = np.unique(nearest, return_inverse=True)
        sums = np.zeros((len(words), self.codebook.shape[1]))
        np.add.at(sums, which.reshape(nearest.shape), rows[:, None] - self.codebook[nearest])
        return words, sums


def fit(
    maps: Maps,
    labels,
    *,
    features: str = "how",
    count: int = 400,
    place: str = "mid",
    words: int = 8192,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Learned:
    """Features, with `options` of their `fit`, and by k-means a codebook of `words`, from training landmarks.

    There are fewer words where the pictures have not `PER_WORD` features for each; `ValueError` where they have none.
    """
    import faiss  # only where it is needed

    kind, how = load_part(features, "local"), {"count": count, "place": place}
    if hasattr(kind, "fit"):
        how["learned"] = kind.fit(maps, labels, place=place, seed=seed, **(options or {}))
    found = Learned(features, how, np.empty((0, 0))).extract(maps)
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.permutation(own.descriptors)[: 1 + TRAINING // len(maps)] for own in found])
    if len(rows) == 0:
        raise ValueError(f"{len(maps)} training pictures have no local features of kind {features!r}; look at the maps")
    words = max(1, min(words, len(rows) // PER_WORD))
    means = faiss.Kmeans(rows.shape[1], words, seed=seed, min_points_per_centroid=1)
    means.train(rows)
    return Learned(features, how, means.centroids)


def prepare(database: Maps, *, learned: Learned, **search) -> InvertedFile:
    """The inverted file of a database; what else `rerank` takes concerns the search and is not used here."""
    rows = (own.descriptors for own in learned.extract(database))
    return invert((learned.aggregate(own, learned.nearest(own)) for own in rows), len(learned.codebook))


def rerank(
    queries: Maps,
    database: Maps,
    first: Ranking | None,
    *,
    learned: Learned,
    prepared: InvertedFile | None = None,
    assignments: int = 5,
    alpha: float = 3.0,
    threshold: float = 0.0,
    shortlist: int | None = None,
) -> Reranking:
    """The first `shortlist` images of each query, or all, by K with it; ties stand as in the first ranking.

    Behind the shortlist the first ranking's order and scores stand. `threshold`: τ. `learned`: what `fit` returned.
    `cost`: seconds_per_image (features of the queries), seconds_per_query (all else), bytes_per_image.
    """
    file = prepare(database, learned=learned) if prepared is None else prepared
    if first is None:
        first = Ranking(np.tile(np.arange(len(database)), (len(queries), 1)), np.zeros((len(queries), len(database))))

    def score(i: int, own: LocalFeatures, ids: np.ndarray, before: np.ndarray) -> np.ndarray:
        words, sums = learned.aggregate(own.descriptors, learned.nearest(own.descriptors, assignments))
        return kernel(words, sums, file, alpha, threshold)[ids]

    m = first.ids.shape[1] if shortlist is None else shortlist
    each = file.nbytes / len(file.counts)
    return reorder(first, m, lambda: list(learned.extract(queries)), file.counts, score, each)
