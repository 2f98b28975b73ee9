"""SuperGlobal re-ranking (Shao et al., ICCV 2023, section 3.4), with the arithmetic of its public implementation."""

from __future__ import annotations

import torch

from ssr_lib.descriptors import Array, Rows, as_pair, check_integer, like, own_ids, row_sums
from ssr_lib.rerank.global_rerank import Reranking, check_number, check_shortlist
from ssr_lib.search import full_ranking, ranking, sort_by_score


def refine_shortlist(query: Rows, members: Rows, k: int, beta: float):
    """Scores of one query's shortlist before and after its expansion, and the expanded query.

    `query` (1, D), `members` (M, D) in the order of the first ranking. Every member becomes the weighted mean r_i of
    itself (weight 1) and its k nearest members (weight beta · similarity, unclipped); s1_i = q · r_i. The expanded
    query g is the element-wise maximum of the k + 1 best r_i; s2_i = g · r_i. Neither r_i nor g is normalised.
    Returns s1 (M,), s2 (M,), g (D,), r (M, D); float64.
    """
    everyone = torch.arange(len(members), device=members.device)
    k = min(k, len(members) - 1)
    scores, ids = (part[:, :k] for part in ranking(members, members, slice(0, len(members)), everyone))  # (M, k)
    unit = members.unit(slice(None))
    r, weights = unit.clone(), beta * scores
    for j in range(k):
        r += unit[ids[:, j]].mul_(weights[:, j : j + 1])
    r /= 1 + weights.sum(dim=1, keepdim=True)
    s1 = row_sums(r * query.unit(slice(None)))
    best = s1.sort(descending=True, stable=True).indices[: k + 1]
    g = r[best].amax(dim=0)
    return s1, row_sums(r * g), g, r


@torch.no_grad()
def superglobal_rerank(
    queries: Array,
    database: Array,
    shortlist: int | None = None,
    k: int = 9,
    beta: float = 0.15,
    *,
    query_ids: Array | None = None,
) -> Reranking:
    """Re-order each query's first M images (400 or N unless given) by descriptors refined among themselves.

    `queries` (Q, D), `database` (N, D): float32, NumPy or torch. A k beyond the shortlist takes all of it, as the
    reference does. `query_ids` (Q,): the query's own database id, left out of its ranking; -1 for none. The scores are
    (s1 + s2) / 2 in the shortlist and cosines behind it; `queries` of the result are the expanded ones, not normalised.
    Raises `ValueError` as `search.knn`, and for k > N − 1 or shortlist > N.
    """
    q, d = as_pair(queries, database)
    own = own_ids(query_ids, q, d)
    check_number(beta, "beta")
    check_integer(k, "k", 1, len(d) - 1, "the database images other than the one itself")
    m = check_shortlist(shortlist, len(d) - (own is not None))
    scores, ranks = full_ranking(q, d, own)
    expanded = torch.empty((len(q), d.data.shape[1]), dtype=torch.float32, device=q.device)
    for i in range(len(q)):
        query = q.take(ranks.new_tensor([i]))
        s1, s2, expanded[i], _ = refine_shortlist(query, d.take(ranks[i, :m]), k, beta)
        scores[i, :m], ranks[i, :m] = (part[0] for part in sort_by_score((s1 + s2)[None] / 2, ranks[i : i + 1, :m]))
    return Reranking(like(ranks, queries), like(scores, queries), like(expanded, queries))
