"""DBA, database-side augmentation: every database descriptor becomes the unit mean of itself and its nearest others.

    x̂_i = normalise( x_i + Σ_{j ∈ N_k(i)} max(x_i · x_j, 0)^α x_j )

The public implementation of deep-image-retrieval differs where fewer than k others have positive similarity: it lets an
image be its own neighbour and pushes away from negative ones. Here an image is never its own neighbour and a negative
similarity weighs 0 (1 at exponent 0). Sources: Turcot & Lowe, ICCV workshops 2009, where geometry verified the
neighbours; power weights: that implementation; rank weights: Gordo et al., IJCV 2017, section 5.3: reference [29] of
the paper.
"""

from __future__ import annotations

import torch

from ssr_lib.rerank._ranking import Ranking, Reranking, add_neighbours, check_number, check_size, nearest, rank_again
from ssr_lib.search.prepared import Array, Prepared, as_pair, check_integer, own_ids

NEEDS = "descriptors"


@torch.no_grad()
def database_augmentation(
    database: Array | Prepared,
    k: int,
    alpha: float = 0.0,
    *,
    weighting: str = "power",
    neighbours: tuple[Array, Array] | None = None,
) -> Array:
    """DBA: every database descriptor replaced by its normalised mean with its k nearest others: (N, D) float32.

    `database` (N, D) float32, NumPy, torch or prepared. `weighting`: "power" max(s, 0)^alpha; "rank" (k − r)/(k + 1)
    for the neighbour r = 0, 1, … where the descriptor itself has 1; alpha is not used then. `neighbours`: as in
    `augment_database`. Raises `ValueError` for k > N − 1.
    """
    return _augment(database, k, alpha, weighting, neighbours).features()


def _augment(database, k: int, exponent: float, weighting: str = "power", known=None) -> Prepared:
    _, d = as_pair(database, database)
    check_integer(k, "k", 1, len(d) - 1, "the database images other than the one itself")
    check_number(exponent, "exponent")
    if weighting not in ("power", "rank"):
        raise ValueError(f"weighting is {weighting!r}; wanted 'power' or 'rank'")
    scores, ids = nearest(d, d, k, torch.arange(len(d), device=d.device), known)
    weights = scores.clamp(min=0) ** exponent  # 0 ** 0 is 1
    if weighting == "rank":
        weights = ((k - torch.arange(k, device=d.device)) / (k + 1)).double().expand(scores.shape)
    return add_neighbours(d, d, ids, weights)


@torch.no_grad()
def prepare(database, *, k: int, exponent: float = 0.0, neighbours: tuple[Array, Array] | None = None) -> Prepared:
    """The augmented database (N, D), which no query has a part in."""
    return _augment(database, k, exponent, known=neighbours)


@torch.no_grad()
def rerank(
    queries, database, first: Ranking | None, *, prepared: Prepared | None = None, k: int, exponent: float = 0.0
) -> Reranking:
    """The ranking of the queries (Q, D) in the augmented database; `prepared`: what `prepare` returned."""
    q, d = as_pair(queries, prepare(database, k=k, exponent=exponent) if prepared is None else prepared)
    check_size(len(d), database)
    return rank_again(q, d, None if first is None else own_ids(first.own, q, d))
