"""Re-ranking by local features of the network's own maps that match, and whose places one map of the plane explains.

    score(q, j) = |inliers(q, j)|,   or weighted  Σ x_i · y_n  over the inliers (i, n)

Sources: verification of a shortlist by the inliers of a geometric transformation, Philbin et al., CVPR 2007: reference
[32] of the paper; used like this with DELF (Noh et al., ICCV 2017: reference [5]) and D2-Net (reference [20]), which
find a thousand features at several scales of large pictures. Here there is one scale, and at most as many features as
a map has places. `rerank.sift_ransac` is the same with SIFT, which looks at the pictures themselves.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ssr_lib.files import load_part
from ssr_lib.local import LocalFeatures
from ssr_lib.local.matching import inliers
from ssr_lib.rerank._ranking import Ranking, Reranking
from ssr_lib.rerank._shortlist import reorder
from ssr_lib.store import Maps

NEEDS = "maps"


def prepare(
    database: Maps, *, features: str = "delf", learned=None, count: int = 400, place: str = "mid", **search
) -> list[LocalFeatures]:
    """The features of each picture; what else `rerank` takes concerns the search and is not used here.

    `features`: the kind, "delf", "d2", "how" or "fire"; `learned`: what its `fit` returned, where it has one.
    """
    given = {} if learned is None else {"learned": learned}
    return load_part(features, "local").extract(database, count=count, place=place, **given)


def rerank(
    queries: Maps,
    database: Maps,
    first: Ranking,
    *,
    prepared: list[LocalFeatures] | None = None,
    features: str = "delf",
    learned=None,
    count: int = 400,
    place: str = "mid",
    shortlist: int | None = None,
    weighted: bool = False,
    model: str = "affine",
    error: float = 24.0,
    least: float = 0.0,
) -> Reranking:
    """Re-order the first `shortlist` images (400 or N unless given) by their inliers.

    Ties and what is behind the shortlist stand as in the first ranking. `features`, `learned`, `count`, `place`: as for
    `prepare`; `model`, `error`, `least`: as for `local.matching.inliers`. `weighted`: inliers count by their cosine.
    `cost`: seconds_per_query (matching and verification), seconds_per_image (features of the queries), bytes_per_image.
    """
    how = {"features": features, "learned": learned, "count": count, "place": place}
    stored = prepare(database, **how) if prepared is None else prepared

    def score(i: int, query: LocalFeatures, ids: np.ndarray, before: np.ndarray) -> np.ndarray:
        found = []
        for image in (stored[j] for j in ids):
            pairs = inliers(query, image, model=model, error=error, least=least)
            cosines = (query.descriptors[pairs[:, 0]] * image.descriptors[pairs[:, 1]]).sum(axis=1)
            found.append(cosines.sum() if weighted else len(pairs))
        return np.array(found)

    each = np.mean([image.nbytes for image in stored])
    return reorder(first, shortlist, partial(prepare, queries, **how), stored, score, each)
