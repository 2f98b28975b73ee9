"""Query expansion and database-side augmentation: a descriptor becomes the unit mean of itself and its neighbours.

The descriptor itself counts once, with weight 1; a neighbour with similarity s counts max(s, 0)^α: the α of these
papers is an exponent, not the α of `global_rerank`. The public implementation of deep-image-retrieval differs where
fewer than k other images have positive similarity: it lets an image be its own neighbour and pushes away from negative
ones. Here an image is never its own neighbour and a negative similarity weighs 0 (1 at exponent 0, as every other).
"""

from __future__ import annotations

import torch

from ssr_lib.descriptors import Array, as_pair, check_integer, like, own_ids
from ssr_lib.rerank.global_rerank import NeighbourSum, refine


@torch.no_grad()
def alpha_query_expansion(
    queries: Array, database: Array, k: int, alpha: float, *, query_ids: Array | None = None
) -> Array:
    """αQE: normalise(q + Σ max(q·x_j, 0)^alpha x_j) over the k nearest database images: new queries (Q, D) float32.

    `queries` (Q, D), `database` (N, D): float32, NumPy or torch; the queries' kind comes back. `query_ids` (Q,): the
    query's own database id, never its neighbour; -1 for none. Raises `ValueError` as `search.knn`.
    Source: Radenovic et al., TPAMI 2019, section 3.4.
    """
    q, d = as_pair(queries, database)
    return like(refine(q, d, own_ids(query_ids, q, d), NeighbourSum(k, 1.0, "power", alpha, "sum", 1)), queries)


def average_query_expansion(queries: Array, database: Array, k: int, *, query_ids: Array | None = None) -> Array:
    """AQE: the normalised mean of the query and its k nearest database images, as αQE with exponent 0.

    Source: Chum et al., ICCV 2007, section 3.
    """
    return alpha_query_expansion(queries, database, k, 0.0, query_ids=query_ids)


@torch.no_grad()
def database_augmentation(
    database: Array,
    k: int,
    alpha: float = 0.0,
    *,
    weighting: str = "power",
    neighbours: tuple[Array, Array] | None = None,
) -> Array:
    """DBA: every database descriptor replaced by its normalised mean with its k nearest others: (N, D) float32.

    `database` (N, D) float32, NumPy or torch. `weighting`: "power" max(s, 0)^alpha; "rank" (k − r)/(k + 1) for the
    neighbour r = 0, 1, … where the descriptor itself has 1; alpha is not used then. `neighbours`: as in
    `global_rerank.augment_database`. Raises `ValueError` for k > N − 1.
    Source: Turcot & Lowe 2009; rank weights: Gordo et al., IJCV 2017, section 5.3.
    """
    d = as_pair(database, database)[1]
    check_integer(k, "k", 1, len(d) - 1, "the database images other than the one itself")
    scale = k / (k + 1) if weighting == "rank" else 1.0  # the image itself is the first of k + 1 ranks
    how = NeighbourSum(k, scale, weighting, alpha, "sum", 1)
    return like(refine(d, d, torch.arange(len(d), device=d.device), how, neighbours), database)
