"""Re-ranking by local features and geometric verification: the costly way that global re-ranking is measured against."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssr_lib.descriptors import check_integer
from ssr_lib.local.sift import count_inliers, load_or_extract
from ssr_lib.rerank.global_rerank import Reranking


def local_rerank(
    query_files: Sequence[Path | str],
    database_files: Sequence[Path | str],
    ranks: np.ndarray,
    shortlist: int,
    *,
    boxes: Sequence | None = None,
    cache: Path | str | None = None,
    longest: int = 512,
    count: int = 1000,
    ratio: float = 0.8,
    error: float = 5.0,
    known: dict[tuple[int, int], int] | None = None,
) -> Reranking:
    """Re-order the first `shortlist` images of each ranking by the number of geometrically verified matches.

    `ranks` (Q, N) from any first ranking; equal numbers keep its order, and so does everything behind the shortlist.
    `boxes`: for each query (x0, y0, x1, y1) in pixels or None. `cache`: a folder that keeps the features from run to
    run. `known`: inlier counts by (query, database image) of earlier calls on the same files, to which those of this
    call are added; a pair found there is not matched again, so the time a query is that of a first call. The scores are inlier counts, −1 behind the shortlist: not looked at.
    `cost`: seconds_per_query (matching and verification), seconds_per_image (extraction, when it was done) and
    bytes_per_image (of stored features). Raises `ValueError` for sizes that do not fit, and `ImageError` naming a picture that cannot be read.
    """
    ranks = np.array(ranks)
    if ranks.ndim != 2 or not 0 < len(ranks) == len(query_files) or not np.issubdtype(ranks.dtype, np.integer):
        raise ValueError(f"ranks are {ranks.dtype} of shape {ranks.shape}; wanted integers, {len(query_files)} rows")
    if ranks.size and not 0 <= ranks.min() <= ranks.max() < len(database_files):
        raise ValueError(f"ranks go from {ranks.min()} to {ranks.max()}; there are {len(database_files)} files")
    check_integer(shortlist, "shortlist", 1, ranks.shape[1], "the images in a ranking")
    boxes = (
        [None] * len(query_files)
        if boxes is None
        else [None if box is None else tuple(map(float, box)) for box in boxes]
    )
    how = {"longest": longest, "count": count}
    stored = {int(i): load_or_extract(database_files[i], cache, **how) for i in np.unique(ranks[:, :shortlist])}
    queries = [load_or_extract(f, cache, box=box, **how) for f, box in zip(query_files, boxes, strict=True)]
    scores = np.full(ranks.shape, -1.0)
    start = time.perf_counter()
    known = {} if known is None else known
    for i, ((query, _), row, score) in enumerate(zip(queries, ranks, scores, strict=True)):
        for j in map(int, row[:shortlist]):
            if (i, j) not in known:
                known[i, j] = count_inliers(query, stored[j][0], ratio=ratio, error=error)
        inliers = np.array([known[i, int(j)] for j in row[:shortlist]])
        order = np.argsort(-inliers, kind="stable")
        row[:shortlist], score[:shortlist] = row[order], inliers[order]
    cost = {
        "seconds_per_query": (time.perf_counter() - start) / len(queries),
        "seconds_per_image": float(np.mean([seconds for _, seconds in (*stored.values(), *queries)])),
        "bytes_per_image": float(np.mean([points.nbytes + descr.nbytes for (points, descr), _ in stored.values()])),
    }
    return Reranking(ranks.astype(np.int64), scores, cost=cost)
