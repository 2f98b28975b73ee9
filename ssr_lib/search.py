"""Exact nearest neighbours and full rankings by cosine similarity: the same ids on every backend, block and device.

Candidates come from a float32 matrix product; each is scored again in float64, and a query for which the float32 error
could have hidden a neighbour is scored against the whole database. A float64 sum still depends on its order, so unit
vectors are cut into two parts of so few bits that every partial sum is exact (Ozaki et al., Numerical Algorithms 2012):
threads, BLAS kernels and block sizes then change no bit, equal images get equal scores, and ties go to the lower id.
"""

from __future__ import annotations

import torch

from ssr_lib.descriptors import Array, Rows, as_pair, blocks, check_integer, like, own_ids

MARGIN = 32  # candidates beyond k: room for what float32 cannot tell apart; too few costs time, never correctness
EXACT_BELOW = 2048  # database rows under which float64 products cost less than gathering candidates
QUERY_BLOCK, DATABASE_BLOCK = 2048, 4096  # rows: 32 MB of float32 similarities at a time
EXACT_BLOCK = 1024  # database rows of a float64 product: 32 MB at 2,048 dimensions
FULL_SCORES = 1 << 25  # float64 scores held at once in a full ranking: 256 MB
ROUNDOFF = {"highest": 2.0**-24, "high": 2.0**-11, "medium": 2.0**-8}  # of torch's float32 matmul precision


def split(unit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut float64 unit vectors into multiples of 2^-26 and a rest of multiples of 2^-47; overwrites `unit`.

    high·high has partial sums below 2 in steps of 2^-52, high·low below sqrt(D)·2^-27 in steps of 2^-73: both fit the
    53 bits of a float64 up to D = 16,384, so their sums are exact in any order.
    """
    fine = unit.add_(1.5 * 2.0**5).sub_(1.5 * 2.0**5)  # rounds to multiples of 2^-47
    high = (fine + 1.5 * 2.0**26).sub_(1.5 * 2.0**26)
    return high, fine.sub_(high)


def products(q: tuple[torch.Tensor, torch.Tensor], x: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Dot products (..., n, m) of split rows (..., n, D) and (..., m, D), within about 1e-14."""
    across = q[0] @ x[1].mT
    return q[0] @ x[0].mT + (across + (across.mT if q is x else q[1] @ x[0].mT))


def split_rows(rows: Rows, index: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """`split` of some rows, (n, D) each, worked on piece by piece."""
    n = index.stop - index.start
    high, low = torch.empty((2, n, rows.data.shape[1]), dtype=torch.float64, device=rows.device)
    for part in rows.pieces(n):
        high[part], low[part] = split(rows.unit(slice(index.start + part.start, index.start + part.stop)))
    return high, low


def pair_scores(q: Rows, d: Rows, rows: slice, ids: torch.Tensor) -> torch.Tensor:
    """Exact scores (n, m) of some queries with their own lists of database ids (n, m)."""
    scores = torch.empty(ids.shape, dtype=torch.float64, device=q.device)
    for part in d.pieces(len(ids), per_row=ids.shape[1]):
        x_high, x_low = split(d.unit(ids[part].reshape(-1)).view(-1, ids.shape[1], d.data.shape[1]))  # (n, m, D)
        high, low = split(q.unit(slice(rows.start + part.start, rows.start + part.stop))[:, None])  # (n, 1, D)
        # no matrix products: BLAS would start threads for each of these small ones, and wait for them where others work
        across = (low * x_high).sum(dim=2) + x_low.mul_(high).sum(dim=2)
        scores[part] = x_high.mul_(high).sum(dim=2) + across
    return scores


def sort_by_score(scores: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sort each row by (−score, id)."""
    ids, order = ids.sort(dim=1)
    scores, best = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    return scores, ids.gather(1, best)


def ranking(q: Rows, d: Rows, rows: slice | torch.Tensor, own: torch.Tensor | None, block: int | None = None):
    """Score some queries against the whole database: sorted scores (n, N) and ids (n, N); own images last, at −inf."""
    if q is d and isinstance(rows, slice) and rows == slice(0, len(d)) and len(d) <= EXACT_BELOW and block is None:
        part = split_rows(d, rows)  # (N, D) twice
        scores = products(part, part)
    else:
        part = split(q.unit(rows))  # (n, D) twice
        scores = torch.empty((len(part[0]), len(d)), dtype=torch.float64, device=q.device)
        for columns in blocks(len(d), block or EXACT_BLOCK):
            scores[:, columns] = products(part, split_rows(d, columns))
    if own is not None:
        mine = own[rows]
        scores[torch.nonzero(mine >= 0)[:, 0], mine[mine >= 0]] = -torch.inf
    return scores.sort(dim=1, descending=True, stable=True)  # stable: equal scores stay in the order of their ids


def full_ranking(q: Rows, d: Rows, own: torch.Tensor | None, block: int | None = None):
    """Scores and ids (Q, N) of `ranking` for all queries; (Q, N − 1) where every query has its own image to omit."""
    width = len(d) - int(own is not None and bool((own >= 0).all()))
    if width == 0:
        raise ValueError("the database holds nothing but the query itself; there is no ranking without it")
    scores = torch.empty((len(q), width), dtype=torch.float64, device=q.device)
    ids = torch.empty((len(q), width), dtype=torch.int64, device=q.device)
    for rows in blocks(len(q), block or max(1, FULL_SCORES // len(d))):
        part = ranking(q, d, rows, own, block)
        scores[rows], ids[rows] = part[0][:, :width], part[1][:, :width]
    return scores, ids


def _candidates(unit: torch.Tensor, d: Rows, m: int, backend: str, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The m best database images of each query by float32 similarity: values and ids (n, m), best first."""
    best = torch.empty((len(unit), 0), device=d.device)
    ids = torch.empty((len(unit), 0), dtype=torch.int64, device=d.device)
    for columns in blocks(len(d), step):
        x = d.normalised(columns)
        if backend == "faiss":
            import faiss  # loads an OpenMP runtime of its own: only on request

            arrays = unit.cpu().numpy(), x.cpu().numpy()
            found = faiss.knn(*arrays, min(m, len(x)), metric=faiss.METRIC_INNER_PRODUCT)
            values, places = (torch.from_numpy(part).to(d.device) for part in found)
        else:
            with torch.autocast(d.device.type, enabled=False):  # the bound on the error is that of float32
                values, places = (unit @ x.T).topk(min(m, len(x)), dim=1)
        best, ids = torch.cat([best, values], dim=1), torch.cat([ids, places + columns.start], dim=1)
        best, keep = best.topk(min(m, best.shape[1]), dim=1)
        ids = ids.gather(1, keep)
    return best, ids


def _is_exact(k: int, d: Rows) -> bool:
    """Whether k neighbours are taken from scores of the whole database, since candidates would save nothing."""
    return len(d) <= EXACT_BELOW or k + MARGIN + 1 >= len(d)


def _neighbours_of(q: Rows, d: Rows, rows: slice, k: int, backend: str, own: torch.Tensor | None, block: int | None):
    """The k nearest of a block of queries: scores and ids (n, k)."""
    m = k + MARGIN + 1  # one more, for the own image
    if _is_exact(k, d):
        return tuple(part[:, :k] for part in ranking(q, d, rows, own, block))
    values, ids = _candidates(q.normalised(rows), d, m, backend, block or DATABASE_BLOCK)
    # |float32 product − exact| ≤ bound: D roundings of a sum of at most 1 in magnitude, and those of its terms
    bound = 1.01 * (d.data.shape[1] + 8) * ROUNDOFF[torch.get_float32_matmul_precision()]
    missed = values[:, -1] + bound  # no image that is not a candidate scores more than this
    if own is not None:
        values = values.masked_fill(ids == own[rows, None], -torch.inf)
        values, order = values.sort(dim=1, descending=True)
        ids = ids.gather(1, order)
    in_reach = values >= values[:, k - 1 : k] - 2 * bound
    ids = ids[:, : int(in_reach.sum(dim=1).max())]
    scores = pair_scores(q, d, rows, ids)
    if own is not None:
        scores.masked_fill_(ids == own[rows, None], -torch.inf)
    scores, ids = (part[:, :k].clone() for part in sort_by_score(scores, ids))
    unsure = torch.nonzero(scores[:, -1] <= missed)[:, 0]
    for few in unsure.split(max(1, FULL_SCORES // len(d))):
        whole = ranking(q, d, few + rows.start, own, block)
        scores[few], ids[few] = whole[0][:, :k], whole[1][:, :k]
    return scores, ids


def neighbours(q: Rows, d: Rows, k: int, own: torch.Tensor | None = None, backend="torch", block: int | None = None):
    """What `knn` does, on validated rows."""
    if backend not in ("torch", "faiss"):
        raise ValueError(f"backend is {backend!r}; wanted 'torch' or 'faiss'")
    check_integer(k, "k", 1, len(d) - (own is not None), "the images of the database, without the own one")
    scores = torch.empty((len(q), k), dtype=torch.float64, device=q.device)
    ids = torch.empty((len(q), k), dtype=torch.int64, device=q.device)
    width = len(d) if _is_exact(k, d) else k + MARGIN + 1 + DATABASE_BLOCK  # scores held for each query
    for rows in blocks(len(q), block or max(1, min(QUERY_BLOCK, FULL_SCORES // width))):
        scores[rows], ids[rows] = _neighbours_of(q, d, rows, k, backend, own, block)
    return scores, ids


@torch.no_grad()
def knn(
    queries: Array,
    database: Array,
    k: int,
    *,
    backend: str = "torch",
    exclude: Array | None = None,
    block: int | None = None,
) -> tuple[Array, Array]:
    """The k database images most similar to each query, by cosine, best first, ties by id.

    `queries` (Q, D), `database` (N, D): float32, NumPy (memory-mapped too: read block by block) or torch.
    `exclude`: (Q,) database ids, each left out of its query's neighbours; -1 leaves out nothing. `block`: rows at a
    time. Returns scores (Q, k) float64 and ids (Q, k) int64, of the queries' kind and device.
    Raises `ValueError` for NaN, infinity, zero rows, other shapes or dtypes, and k beyond what the database holds.
    """
    check_integer(block or 1, "block", 1, 2**62, "rows at a time")
    q, d = as_pair(queries, database)
    scores, ids = neighbours(q, d, k, own_ids(exclude, q, d), backend, block)
    return like(scores, queries), like(ids, queries)


@torch.no_grad()
def rank(queries: Array, database: Array, *, exclude: Array | None = None, block: int | None = None) -> Array:
    """All database ids for each query, most similar first: (Q, N) int64, in the order of `knn` with k = N.

    `exclude` as in `knn`: where every query has an id to leave out, rankings are (Q, N − 1); where only some have,
    theirs stands last. Raises as `knn` does.
    """
    check_integer(block or 1, "block", 1, 2**62, "rows at a time")
    q, d = as_pair(queries, database)
    return like(full_ranking(q, d, own_ids(exclude, q, d), block)[1], queries)
