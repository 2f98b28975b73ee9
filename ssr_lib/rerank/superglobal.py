"""SuperGlobal re-ranking (Shao et al., ICCV 2023, section 3.4), with the arithmetic of its public implementation.

The source is reference [13] of the paper. Every image of a query's shortlist becomes the weighted mean r_i of itself
(weight 1) and its k nearest there (weight β · similarity, unclipped); s1_i = q · r_i. The expanded query g is the
element-wise maximum of the k + 1 best r_i; s2_i = g · r_i. Neither r_i nor g is normalised. A mean of vectors times a
vector is the mean of their products, so s1 and s2 come from similarities alone, and only k + 1 of the M vectors r_i are
ever made.
"""

from __future__ import annotations

import torch
from torch.nn.functional import embedding_bag

from ssr_lib.rerank._ranking import Ranking, Reranking, check_number, check_shortlist, first_ranking
from ssr_lib.search.codes import ID_BITS, OWN, ROW_BITS, SCORE_BITS, first_codes, read_codes, whole_numbers
from ssr_lib.search.prepared import Array, Prepared, as_pair, blocks, check_integer, own_ids, row_norms

NEEDS = "descriptors"
TOGETHER = 8  # queries: a matrix product for each of the cores, in 30 MB at 400 images of 2,048 dimensions


def nearest_members(members: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Similarities and places (n, M, k) of each member's nearest others, of n shortlists of unit rows (n, M, D)."""
    n, m, _ = members.shape
    with torch.autocast(members.device.type, enabled=False):
        gram = members @ members.mT  # (n, M, M)
    codes = gram.mul_(-(2.0**SCORE_BITS)).long().mul_(1 << ID_BITS).add_(torch.arange(m, device=gram.device))
    codes.diagonal(dim1=1, dim2=2).fill_(OWN)
    scores, places = read_codes(first_codes(codes.view(n * m, m), k))
    return scores.view(n, m, k), places.view(n, m, k)


def refine_shortlists(members: torch.Tensor, similarity: torch.Tensor, k: int, beta: float):
    """Scores of n shortlists before and after their queries' expansion, and the expanded queries.

    `members` (n, M, D) float32 unit rows in the order of the first ranking, `similarity` (n, M) to their queries.
    Returns s1 (n, M), s2 (n, M), float64, and g (n, D).
    """
    n, m, dimension = members.shape
    k = min(k, m - 1)
    scores, near = nearest_members(members, k)
    weights = beta * scores  # (n, M, k)
    total = 1 + weights.sum(dim=2)
    if bool((total <= 0).any()):
        raise ValueError(f"beta is {beta}, and unlike neighbours outweigh an image; a smaller beta is wanted")

    def mean(products: torch.Tensor) -> torch.Tensor:  # of each member and its neighbours, (n, M) → (n, M)
        of_near = products.gather(1, near.view(n, m * k)).view(n, m, k)
        return (products + (weights * of_near).sum(dim=2)) / total

    s1 = mean(similarity)
    best = s1.sort(dim=1, descending=True, stable=True).indices[:, : k + 1]  # (n, k + 1)
    of_best = best[:, :, None].expand(-1, -1, k)
    bags = torch.cat([best[:, :, None], near.gather(1, of_best)], dim=2)  # (n, k + 1, 1 + k): itself, its neighbours
    bags += m * torch.arange(n, device=bags.device)[:, None, None]
    shares = torch.cat([torch.ones_like(best, dtype=weights.dtype)[:, :, None], weights.gather(1, of_best)], dim=2)
    shares = (shares / total.gather(1, best)[:, :, None]).float()
    r = embedding_bag(bags.flatten(0, 1), members.flatten(0, 1), mode="sum", per_sample_weights=shares.flatten(0, 1))
    g = r.view(n, -1, dimension).amax(dim=1)  # (n, D)
    lengths, ones = row_norms(g), torch.ones(m, dtype=torch.float64, device=g.device)
    sums = [whole_numbers(x, ones) @ y for x, y in zip(members, whole_numbers(g, lengths), strict=True)]
    return s1, mean(torch.stack(sums) * 2.0 ** (-2 * ROW_BITS) * lengths[:, None]), g


@torch.no_grad()
def superglobal_rerank(
    queries: Array | Prepared,
    database: Array | Prepared,
    shortlist: int | None = None,
    k: int = 9,
    beta: float = 0.15,
    *,
    query_ids: Array | None = None,
) -> Reranking:
    """Re-order each query's first M images (400 or N unless given) by descriptors refined among themselves.

    `queries` (Q, D), `database` (N, D): float32, NumPy, torch or prepared. A k beyond the shortlist takes all of it, as
    the reference does. `query_ids` (Q,): the query's own database id, left out of its ranking; -1 for none. The scores
    are (s1 + s2) / 2 in the shortlist and cosines behind it; `queries` of the result are the expanded ones.
    Raises `ValueError` as `search.knn`, and for k > N − 1 or shortlist > N.
    """
    q, d = as_pair(queries, database)
    return rerank(q, d, first_ranking(q, d, query_ids), k=k, beta=beta, shortlist=shortlist)


@torch.no_grad()
def rerank(
    queries,
    database,
    first: Ranking | None,
    *,
    prepared=None,
    k: int = 9,
    beta: float = 0.15,
    shortlist: int | None = None,
) -> Reranking:
    """`superglobal_rerank` from a first ranking; `queries` (Q, D), `database` (N, D) float32."""
    q, d = as_pair(queries, database)
    first = first_ranking(q, d) if first is None else first
    check_number(beta, "beta")
    check_integer(k, "k", 1, len(d) - 1, "the database images other than the one itself")
    m = check_shortlist(shortlist, len(d) - (own_ids(first.own, q, d) is not None))
    scores, ranks = (torch.as_tensor(part, device=q.device).clone() for part in (first.scores, first.ids))
    expanded = torch.empty((len(q), d.data.shape[1]), dtype=torch.float32, device=q.device)
    for rows in blocks(len(q), TOGETHER):
        members = d.unit(ranks[rows, :m].flatten()).view(-1, m, d.data.shape[1])
        s1, s2, expanded[rows] = refine_shortlists(members, scores[rows, :m], k, beta)
        ids, by_id = ranks[rows, :m].sort(dim=1)  # so that equal scores go to the lower id
        scores[rows, :m], best = ((s1 + s2) / 2).gather(1, by_id).sort(dim=1, descending=True, stable=True)
        ranks[rows, :m] = ids.gather(1, best)
    return Reranking(q.like(ranks), q.like(scores), q.like(expanded))
