"""k-reciprocal re-ranking: images are alike that have the same mutual neighbours.

N_k(g): the k nearest database images of g; a query p is among them where it is as near as the last of them.

    R(p, k) = {g ∈ N_k(p) : p ∈ N_k(g)}, and an image of the database is in its own
    R*(p, k) = R(p, k) ∪ R(g, k/2) for every g ∈ R(p, k) with |R(p, k) ∩ R(g, k/2)| ≥ 2/3 |R(g, k/2)|
    V_p,g = exp(−d(p, g)) for g ∈ R*(p, k), else 0; then V_p becomes the mean of the V of p and its k₂ − 1 nearest
    d*(p, g) = (1 − λ) (1 − Σ min(V_p, V_g) / Σ max(V_p, V_g)) + λ d(p, g)

Source: Zhong et al., CVPR 2017, equations 1 to 12. Here d is 1 − cosine, half the squared distance of unit vectors, and
the sets of the database are made without queries, so that no query's ranking depends on another query. The public
implementation also divides each V by its sum.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from ssr_lib.rerank._ranking import Ranking, Reranking, check_number, check_size, first_ranking, nearest, rank_by
from ssr_lib.search import prepare as prepare_rows
from ssr_lib.search.prepared import PIECE, Prepared, as_pair, blocks, check_integer, own_ids

NEEDS = "descriptors"


class Sets:
    """What depends on no query, of a database (N, D).

    `reach` (N,): similarity of the k-th neighbour. `halves` (N, N): R(g, k/2) as rows of 0 and 1. `encoded` (N, N): V
    before the mean, `averaged` (N, N) after it.
    """

    def __init__(self, d: Prepared, k: int, k2: int):
        everyone = torch.arange(len(d), device=d.device)
        scores, ids = (part.cpu().numpy() for part in nearest(d, d, max(k, k2), everyone))
        self.reach = scores[:, k - 1]
        self.halves = mutual(ids[:, : max(1, k // 2)])
        self.encoded = encode(expand(mutual(ids[:, :k]), self.halves), d, d)
        self.averaged = average(self.encoded, ids[:, : k2 - 1], self.encoded).tocsc()


def indicator(ids: np.ndarray, taken: np.ndarray, width: int) -> sparse.csr_array:
    """Rows (n, width) that are 1 at those ids (n, k) that are `taken` (n, k), else 0."""
    rows, places = taken.nonzero()
    return sparse.csr_array((np.ones(len(rows)), (rows, ids[rows, places])), shape=(len(ids), width))


def mutual(ids: np.ndarray) -> sparse.csr_array:
    """R (N, N) as rows of 0 and 1, from the nearest others (N, k) of every image."""
    near = indicator(ids, np.ones(ids.shape, bool), len(ids))
    return (near.minimum(near.T) + sparse.eye_array(len(ids))).tocsr()


def expand(members: sparse.csr_array, halves: sparse.csr_array) -> sparse.csr_array:
    """R* (n, N), not 0 where an image belongs to it, from R (n, N) and R(g, k/2) (N, N)."""
    enough = members.multiply(members @ halves.T).tocsr()  # |R(p, k) ∩ R(g, k/2)| for members g: 1 or more
    enough.data = (3 * enough.data >= 2 * halves.sum(axis=1)[enough.indices]).astype(float)
    return (members + enough @ halves).tocsr()


def encode(members: sparse.csr_array, x: Prepared, d: Prepared) -> sparse.csr_array:
    """V (n, N): exp(−d) at the members (n, N) of the sets of x (n, D)."""
    rows, columns = (torch.from_numpy(places).long().to(x.device) for places in members.nonzero())
    cosines = torch.empty(len(rows), dtype=torch.float64, device=x.device)
    for part in blocks(len(rows), PIECE // x.data.shape[1]):
        cosines[part] = (x.unit(rows[part]).double() * d.unit(columns[part]).double()).sum(dim=1)
    return sparse.csr_array((torch.exp(cosines - 1).cpu().numpy(), members.nonzero()), shape=members.shape)


def average(own: sparse.csr_array, ids: np.ndarray, others: sparse.csr_array) -> sparse.csr_array:
    """The mean of each row (n, N) and of the rows of `others` (N, N) that ids (n, k₂ − 1) name."""
    near = indicator(ids, np.ones(ids.shape, bool), others.shape[0])
    return ((own + near @ others) / (1 + ids.shape[1])).tocsr()


def prepare(database, *, k: int = 20, k2: int = 6, weight: float = 0.3) -> Sets:
    """The sets of the database (N, D), which no query has a part in."""
    d = prepare_rows(database)
    check_integer(k, "k", 1, len(d) - 1, "the database images other than the one itself")
    check_integer(k2, "k2", 1, len(d) - 1, "the database images other than the one itself")
    return Sets(d, k, k2)


@torch.no_grad()
def rerank(
    queries,
    database,
    first: Ranking | None,
    *,
    prepared: Sets | None = None,
    k: int = 20,
    k2: int = 6,
    weight: float = 0.3,
) -> Reranking:
    """The ranking of queries (Q, D) in the database (N, D) by −d*; `weight`: λ; `prepared`: what `prepare` returned.

    Raises `ValueError` as `search.knn`, and for k or k2 beyond the database.
    """
    check_number(weight, "weight", 1)
    q, d = as_pair(queries, database)
    first = first_ranking(q, d) if first is None else first
    sets = prepare(d, k=k, k2=k2) if prepared is None else prepared
    check_size(len(sets.reach), d)
    own = own_ids(first.own, q, d)
    scores, ids = (part.cpu().numpy() for part in nearest(q, d, max(k, k2), own))
    members = indicator(ids[:, :k], scores[:, :k] >= sets.reach[ids[:, :k]], len(d))
    if own is not None:  # an image of the database is in its own set
        itself = own.cpu().numpy()[:, None]
        members = (members + indicator(itself.clip(0), itself >= 0, len(d))).tocsr()
    encoded = average(encode(expand(members, sets.halves), q, d), ids[:, : k2 - 1], sets.encoded)
    sums, jaccard = sets.averaged.sum(axis=1), np.empty((len(q), len(d)))
    for i in range(len(q)):
        v = encoded[[i]]
        both = sets.averaged[:, v.indices]  # (N, |V|), nearly all of it 0
        both.data = np.minimum(both.data, np.repeat(v.data, np.diff(both.indptr)))
        smaller = both.sum(axis=1)
        jaccard[i] = smaller / (sums + v.sum() - smaller)
    cosines = torch.zeros(len(q), len(d), dtype=torch.float64)
    cosines.scatter_(1, torch.as_tensor(first.ids).cpu(), torch.as_tensor(first.scores).double().cpu())
    return rank_by((1 - weight) * torch.from_numpy(jaccard) + weight * cosines, first, q)  # −d* + 1
