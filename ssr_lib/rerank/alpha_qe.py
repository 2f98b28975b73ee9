"""αQE: a query becomes the unit mean of itself and its nearest images, weighted by a power of their similarity.

    q̂ = normalise( q + Σ_{j ∈ N_k(q)} max(q · x_j, 0)^α x_j )

This α is an exponent, not the α of GFR. The public implementation of deep-image-retrieval pushes a query away from
images of negative similarity; here those weigh 0 (1 at exponent 0, as every other).
Source: Radenović et al., TPAMI 2019, section 3.5: reference [12] of the paper.
"""

from __future__ import annotations

import torch

from ssr_lib.rerank._ranking import Ranking, Reranking, add_neighbours, check_number, nearest, rank_again
from ssr_lib.search.prepared import Array, Prepared, as_pair, own_ids

NEEDS = "descriptors"


def expand(q: Prepared, d: Prepared, k: int, exponent: float, own=None, known=None) -> Prepared:
    """Expanded queries (Q, D), on prepared rows; `known`: scores and ids of their neighbours, found before."""
    check_number(exponent, "exponent")
    scores, ids = nearest(q, d, k, own, known)
    return add_neighbours(q, d, ids, scores.clamp(min=0) ** exponent)  # 0 ** 0 is 1


@torch.no_grad()
def alpha_query_expansion(
    queries: Array | Prepared, database: Array | Prepared, k: int, alpha: float, *, query_ids: Array | None = None
) -> Array:
    """αQE: new queries (Q, D) float32 from the k nearest database images, `alpha` the exponent of their similarity.

    `queries` (Q, D), `database` (N, D): float32, NumPy, torch or prepared; the queries' kind comes back. `query_ids`
    (Q,): the query's own database id, never its neighbour; -1 for none. Raises `ValueError` as `search.knn`.
    """
    q, d = as_pair(queries, database)
    return expand(q, d, k, alpha, own_ids(query_ids, q, d)).features()


@torch.no_grad()
def rerank(queries, database, first: Ranking | None, *, prepared=None, k: int, exponent: float) -> Reranking:
    """The ranking by expanded queries; `queries` (Q, D), `database` (N, D) float32."""
    q, d = as_pair(queries, database)
    own = None if first is None else own_ids(first.own, q, d)
    known = None if first is None else (first.scores, first.ids)
    return rank_again(expand(q, d, k, exponent, own, known), d, own)
