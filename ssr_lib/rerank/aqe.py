"""AQE, average query expansion: a query becomes the unit mean of itself and its nearest images.

    q̂ = normalise( q + Σ_{j ∈ N_k(q)} x_j )

αQE with exponent 0. Source: Chum et al., ICCV 2007, section 3, where only images count that geometry verified; here all
of the k nearest do.
"""

from __future__ import annotations

from ssr_lib.rerank._ranking import Ranking, Reranking
from ssr_lib.rerank.alpha_qe import alpha_query_expansion
from ssr_lib.rerank.alpha_qe import rerank as rerank_by_power
from ssr_lib.search.prepared import Array, Prepared

NEEDS = "descriptors"


def average_query_expansion(
    queries: Array | Prepared, database: Array | Prepared, k: int, *, query_ids: Array | None = None
) -> Array:
    """AQE: the unit mean of each query and its k nearest images (Q, D) float32; see `alpha_query_expansion`."""
    return alpha_query_expansion(queries, database, k, 0.0, query_ids=query_ids)


def rerank(queries, database, first: Ranking | None, *, prepared=None, k: int) -> Reranking:
    """The ranking by expanded queries; `queries` (Q, D), `database` (N, D) float32."""
    return rerank_by_power(queries, database, first, k=k, exponent=0.0)
