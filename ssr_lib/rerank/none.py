"""No re-ranking: the first ranking by cosine similarity."""

from __future__ import annotations

from ssr_lib.rerank._ranking import Ranking, Reranking, features_in_memory, first_ranking
from ssr_lib.search.prepared import as_pair

NEEDS = "descriptors"


def rerank(queries, database, first: Ranking | None, *, prepared=None) -> Reranking:
    """The first ranking and the features as they came; `queries` (Q, D), `database` (N, D) float32."""
    q, d = as_pair(queries, database)
    first = first_ranking(q, d) if first is None else first
    return Reranking(first.ids, first.scores, q.features(), features_in_memory(d))
