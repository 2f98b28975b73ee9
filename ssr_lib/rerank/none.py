"""No re-ranking: the first ranking by cosine similarity."""

from __future__ import annotations

from ssr_lib.rerank._ranking import Ranking, Reranking, first_ranking

NEEDS = "descriptors"


def rerank(queries, database, first: Ranking | None, *, prepared=None) -> Reranking:
    """The first ranking, as a re-ranker returns it; `queries` (Q, D), `database` (N, D) float32."""
    first = first_ranking(queries, database) if first is None else first
    return Reranking(first.ids, first.scores)
