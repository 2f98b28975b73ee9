"""The regional form of ASMK: a database image is the sum of what stands in its regions, none of which counts for much.

X^r: the features of image X in region r; V(X_c^r): their aggregated residual in word c; V(X^r): of all words in a row.

    V(X_c) = Σ_r V(X_c^r) / ‖V(X^r)‖                               then b(X_c) and K as in `asmk`

Source: Teichmann et al., Detect-to-retrieve, CVPR 2019: reference [39] of the paper. It detects landmarks; here regions
are a grid, the whole map and the squares of R-MAC at `levels` scales. As there, queries are aggregated whole, and an
image takes as much memory as in ASMK.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ssr_lib.local import STRIDE, LocalFeatures
from ssr_lib.pooling import rmac_regions
from ssr_lib.rerank import asmk
from ssr_lib.rerank._inverted_file import InvertedFile, invert
from ssr_lib.rerank._ranking import Ranking, Reranking
from ssr_lib.store import Maps

NEEDS = "maps"


def fit(maps: Maps, labels, **options) -> asmk.Learned:
    """As that of `asmk`."""
    return asmk.fit(maps, labels, **options)


def aggregate(own: LocalFeatures, regions: np.ndarray, learned: asmk.Learned) -> tuple[np.ndarray, np.ndarray]:
    """The words (w,) of a picture, rising, and V of each (w, D); regions (R, 4): y0, x0, height, width in pixels."""
    x, y = own.points.T
    nearest = learned.nearest(own.descriptors)
    words, sums = [], []
    for y0, x0, height, width in regions:
        inside = (y0 <= y) & (y < y0 + height) & (x0 <= x) & (x < x0 + width)
        present, residuals = learned.aggregate(own.descriptors[inside], nearest[inside])
        words.append(present)
        sums.append(residuals / max(np.linalg.norm(residuals), 1e-12))  # V(X^r) at length 1
    words, which = np.unique(np.concatenate(words), return_inverse=True)
    total = np.zeros((len(words), own.descriptors.shape[1]))
    np.add.at(total, which, np.concatenate(sums))
    return words, total


def prepare(database: Maps, *, learned: asmk.Learned, levels: int = 3, **search) -> InvertedFile:
    """The inverted file of a database; what else `rerank` takes concerns the search and is not used here."""
    return invert(_images(database, learned, levels), len(learned.codebook))


def _images(database: Maps, learned: asmk.Learned, levels: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    place = learned.options["place"]
    for x, own in zip(getattr(database, place), learned.extract(database), strict=True):
        yield aggregate(own, STRIDE[place] * np.array(rmac_regions(*x.shape[:2], levels)), learned)


def rerank(
    queries: Maps,
    database: Maps,
    first: Ranking | None,
    *,
    learned: asmk.Learned,
    prepared: InvertedFile | None = None,
    levels: int = 3,
    **search,
) -> Reranking:
    """As that of `asmk`, which gets what is in `search`; `levels`: scales of the grid, 0 for the whole map alone."""
    file = prepare(database, learned=learned, levels=levels) if prepared is None else prepared
    return asmk.rerank(queries, database, first, learned=learned, prepared=file, **search)
