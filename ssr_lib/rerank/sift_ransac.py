"""Re-ranking by local features and geometric verification: the costly way, which global re-ranking is set against.

Sources: SIFT, Lowe, IJCV 2004 (reference [18] of the paper); verification of a shortlist by the inliers of a geometric
transformation, Philbin et al., CVPR 2007 (reference [32] of the paper), there affine maps of single matches and visual
words, here homographies by RANSAC and matches that pass the ratio test.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssr_lib.local.sift import count_inliers, load_or_extract
from ssr_lib.rerank._ranking import Ranking, Reranking, check_shortlist

NEEDS = "pictures"


def rerank(
    queries: Sequence[Path | str],
    database: Sequence[Path | str],
    first: Ranking,
    *,
    prepared=None,
    shortlist: int | None = None,
    boxes: Sequence | None = None,
    cache: Path | str | None = None,
    longest: int = 512,
    count: int = 1000,
    ratio: float = 0.8,
    error: float = 5.0,
    known: dict[tuple[int, int], int] | None = None,
) -> Reranking:
    """Re-order the first `shortlist` images (400 or N unless given) by their geometrically verified matches.

    `queries` (Q), `database` (N): pictures' files. Of equal numbers the first ranking's order stays, and so does
    everything behind the shortlist. `boxes`: for each query (x0, y0, x1, y1) in pixels or None. `cache`: a folder that
    keeps the features from run to run. `known`: inlier counts by (query, database image) of earlier calls on the same
    files, to which those of this call are added; a pair found there is not matched again, so the time a query is that
    of a first call. The scores are inlier counts, −1 behind the shortlist: not looked at. Neither is a query's own
    image, at −inf in the first ranking, which stays last. `cost`: seconds_per_query (matching and verification),
    seconds_per_image (extraction, when it was done), bytes_per_image (stored features).
    Raises `ValueError` for sizes that do not fit, and `ImageError` naming a picture that cannot be read.
    """
    ranks = np.array(first.ids)
    if ranks.ndim != 2 or not 0 < len(ranks) == len(queries) or ranks.dtype.kind not in "iu":
        raise ValueError(f"ranks are {ranks.dtype} of shape {ranks.shape}; wanted integers, {len(queries)} rows")
    if ranks.size and not 0 <= ranks.min() <= ranks.max() < len(database):
        raise ValueError(f"ranks go from {ranks.min()} to {ranks.max()}; there are {len(database)} files")
    m, how = check_shortlist(shortlist, ranks.shape[1]), {"longest": longest, "count": count}
    boxes = [None] * len(queries) if boxes is None else boxes
    stored = {int(i): load_or_extract(database[i], cache, **how) for i in np.unique(ranks[:, :m])}
    asked = [load_or_extract(file, cache, box=box, **how) for file, box in zip(queries, boxes, strict=True)]
    known = {} if known is None else known
    own = np.zeros(ranks.shape, bool) if first.scores is None else np.asarray(first.scores) == -np.inf
    scores = np.where(own, -np.inf, -1.0)
    start = time.perf_counter()
    for i, (features, _) in enumerate(asked):
        inliers = np.full(m, -np.inf)
        for place in np.flatnonzero(~own[i, :m]):
            pair = i, int(ranks[i, place])
            if pair not in known:
                known[pair] = count_inliers(features, stored[pair[1]][0], ratio=ratio, error=error)
            inliers[place] = known[pair]
        order = np.argsort(-inliers, kind="stable")
        ranks[i, :m], scores[i, :m] = ranks[i, order], inliers[order]
    cost = {
        "seconds_per_query": (time.perf_counter() - start) / len(queries),
        "seconds_per_image": float(np.mean([seconds for _, seconds in (*stored.values(), *asked)])),
        "bytes_per_image": float(np.mean([points.nbytes + descr.nbytes for (points, descr), _ in stored.values()])),
    }
    return Reranking(ranks.astype(np.int64), scores, cost=cost)
