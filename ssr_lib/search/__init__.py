"""Exact nearest neighbours and full rankings by cosine similarity, equal to the last bit for every block and thread.

Rankings are those of float64 except where scores differ by less than 1e-6 (see `codes`); equal scores stand in the
order of their ids. A full ranking scores everything in whole numbers; k neighbours are sought in float32, and each is
scored again in whole numbers, as is all that float32 cannot tell from the last of them.
"""

import sys

import torch

from ssr_lib.search.codes import IDS, NUMBERS, OWN, all_codes, first_codes, pair_codes, read_codes
from ssr_lib.search.prepared import Array, Prepared, as_pair, blocks, check_integer, own_ids, prepare

__all__ = ["Prepared", "knn", "prepare", "rank"]

SPARE = 16  # candidates beyond k: room for what float32 cannot tell apart; too few costs time, never correctness
CLOSE = 2e-6  # much more than float32 products of unit rows err by
WITH_FAISS = sys.platform != "darwin"  # there its OpenMP and that of torch end the process


def _best_products(unit: torch.Tensor, x: torch.Tensor, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The m largest float32 products of each row of `unit` with rows of x: values and places (n, m), best first."""
    if unit.device.type == "cpu" and WITH_FAISS:
        import faiss  # after torch: the other way round each waits for the other's threads

        values, ids = faiss.knn(unit.numpy(), x.numpy(), m, metric=faiss.METRIC_INNER_PRODUCT)
        return torch.from_numpy(values), torch.from_numpy(ids)
    room = NUMBERS if unit.device.type == "cpu" else 16 * NUMBERS  # on a GPU 1 GB: thin blocks only wait for memory
    with torch.autocast(unit.device.type, enabled=False):
        found = [(unit[rows] @ x.T).topk(m, dim=1) for rows in blocks(len(unit), room // len(x))]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def _candidates(q: Prepared, d: Prepared, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The m best database images of each query by float32 products: values and ids (Q, m), best first."""
    unit, values, ids = q.unit(), [], []
    in_place = d.is_unit and isinstance(d.data, torch.Tensor)
    for part in blocks(len(d), len(d) if in_place else max(m, NUMBERS // d.data.shape[1])):
        found, places = _best_products(unit, d.unit(part), min(m, part.stop - part.start))
        found, order = torch.cat([*values, found], dim=1).topk(min(m, part.stop), dim=1)
        values, ids = [found], [torch.cat([*ids, places + part.start], dim=1).gather(1, order)]
    return values[0], ids[0]


@torch.no_grad()
def knn(
    queries: Array | Prepared, database: Array | Prepared, k: int, *, exclude: Array | None = None
) -> tuple[Array, Array]:
    """The k database images most similar to each query, by cosine, best first, ties by id.

    `queries` (Q, D), held in memory, `database` (N, D), by blocks if it is mapped: float32, NumPy, torch or prepared.
    `exclude`: (Q,) database ids, each left out of its query's neighbours; -1 leaves out nothing. Returns scores (Q, k)
    float64 and ids (Q, k) int64, of the queries' kind and device. Raises `ValueError` for NaN, infinity, zero rows,
    other shapes or dtypes, and k beyond what the database holds.
    """
    q, d = as_pair(queries, database)
    own = own_ids(exclude, q, d)
    check_integer(k, "k", 1, len(d) - (own is not None), "the images of the database, without the own one")
    codes = torch.empty((len(q), k), dtype=torch.int64, device=q.device)
    unsure = torch.arange(len(q), device=q.device)
    m = k + 1 + SPARE  # one more, for the own image
    if 8 * m < len(d) and torch.backends.cuda.matmul.fp32_precision in ("none", "ieee"):
        values, ids = _candidates(q, d, m)
        close = values >= values[:, k - int(own is None), None] - CLOSE  # to the k-th at the latest; the first of a row
        ids = ids[:, : close.sum(dim=1).max()]
        codes = pair_codes(q, d, ids)
        if own is not None:
            codes = torch.where(ids == own[:, None], OWN + ids, codes)
        codes = first_codes(codes, k)
        unsure = close[:, -1].nonzero()[:, 0]  # as close may be images that are no candidates
    for part in blocks(len(unsure), NUMBERS // len(d)):
        codes[unsure[part]] = first_codes(all_codes(q, d, unsure[part], own), k)
    return tuple(q.like(part) for part in read_codes(codes))


def full_ranking(q: Prepared, d: Prepared, own: torch.Tensor | None = None, scored: bool = True):
    """Scores, None unless `scored`, and ids (Q, N), best first; (Q, N − 1) where every query leaves out its own."""
    width = len(d) - int(own is not None and bool((own >= 0).all()))
    ids = torch.empty((len(q), width), dtype=torch.int64, device=q.device)
    scores = torch.empty(ids.shape, dtype=torch.float64, device=q.device) if scored else None
    for rows in blocks(len(q), NUMBERS // len(d)):
        codes = first_codes(all_codes(q, d, rows, own), len(d))[:, :width]
        torch.bitwise_and(codes, IDS, out=ids[rows])
        if scored:
            scores[rows] = read_codes(codes)[0]
    return scores, ids


@torch.no_grad()
def rank(queries: Array | Prepared, database: Array | Prepared, *, exclude: Array | None = None) -> Array:
    """All database ids for each query, most similar first: (Q, N) int64, in the order of `knn` with k = N.

    `exclude` as in `knn`: where every query has an id to leave out, rankings are (Q, N − 1); where only some have,
    theirs stands last. Raises as `knn` does.
    """
    q, d = as_pair(queries, database)
    return q.like(full_ranking(q, d, own_ids(exclude, q, d), scored=False)[1])
