"""GFR, global feature re-ranking: every image's feature plus a weighted sum of its nearest neighbours' features.

For each image i, query or database, with unit feature x_i and its k nearest database images N_k(i), never itself:

    x̂_i = normalise( x_i + α · Σ_{j ∈ N_k(i)} w_ij x_j )

and the queries are ranked again by x̂_q · x̂_j. Source: Chen & Yao 2025, abstract; what it leaves open is an argument.
"""

from __future__ import annotations

import torch

from ssr_lib.rerank._augmented import (
    Augmented,
    NeighbourSum,
    augment,
    augment_database,
    check_augmented,
    check_choice,
    refine,
)
from ssr_lib.rerank._ranking import Ranking, Reranking, check_shortlist, features_in_memory, first_ranking, rank_again
from ssr_lib.search.codes import all_codes, first_codes, pair_codes, read_codes
from ssr_lib.search.prepared import Array, Prepared, as_pair, check_integer, own_ids

NEEDS = "descriptors"


def _rerank_in_shortlists(q: Prepared, d: Prepared, ids: torch.Tensor, sides: str, how: NeighbourSum):
    """Refine each query and its shortlist (Q, M), by id, among themselves: scores, ids and refined queries."""
    m = ids.shape[1]
    check_integer(how.k, "k", 1, m - (sides != "query"), "the images of the shortlist, without the one itself")
    scores, refined = torch.empty(ids.shape, dtype=torch.float64, device=q.device), []
    everyone = torch.arange(m, device=q.device)
    for i in range(len(q)):
        query, members = q.take(everyone.new_tensor([i])), d.take(ids[i])
        for _ in range(how.rounds):
            before = members
            if sides != "query":
                members = refine(before, before, everyone, how)
            if sides != "database":
                query = refine(query, before, None, how)
        scores[i], places = read_codes(first_codes(all_codes(query, members, slice(0, 1)), m))
        ids[i] = ids[i, places[0]]
        refined.append(query.unit())
    return scores, ids, torch.cat(refined)


@torch.no_grad()
def global_rerank(
    queries: Array | Prepared,
    database: Array | Prepared,
    k: int,
    alpha: float,
    *,
    weighting: str = "similarity",
    power: float = 1.0,
    reduce: str = "sum",
    sides: str = "both",
    neighbourhood: str = "database",
    shortlist: int | None = None,
    rounds: int = 1,
    augmented: Augmented | None = None,
    query_ids: Array | None = None,
    first: Ranking | None = None,
) -> Reranking:
    """Rank by features that each took in the sum of their nearest neighbours' features.

    `queries` (Q, D), `database` (N, D): float32, NumPy, torch or prepared; results are of the queries' kind, the
    refined database of the database's. `weighting` w_ij: "similarity" max(x_i·x_j, 0); "uniform" 1; "rank" (k − r)/k,
    r from 0; "power" max(x_i·x_j, 0)^power. `reduce`: "mean" divides the sum by k. `sides`: which images are refined.
    `neighbourhood`: neighbours from the whole database, or from each query's own shortlist (400 or N unless given), as
    SuperGlobal does. `shortlist`: only the first M of the first ranking are re-ordered; None: all, in a neighbourhood
    "database". `rounds`: repeat, with neighbours found anew among refined features. `augmented`: the result of
    `augment_database` for the same database and arguments. `query_ids` (Q,): the query's own database id, -1 for none:
    never its own neighbour, nor in its ranking. `first`: what `first_ranking` gives for the same queries, database and
    `query_ids`, where it is at hand; only shortlists need it.
    Raises `ValueError` for bad descriptors (as `search.knn`), k > N, k > N − 1 where the database is refined,
    shortlist > N, and an `augmented` made otherwise. Source: Chen & Yao 2025, abstract.
    """
    check_choice(sides=sides, neighbourhood=neighbourhood)
    how = NeighbourSum(k, alpha, weighting, power, reduce, rounds)
    q, d = as_pair(queries, database)
    own = own_ids(query_ids, q, d)
    available = len(d) - (own is not None)
    if augmented is not None and (sides == "query" or neighbourhood == "shortlist"):
        raise ValueError("augmented is of no use where the database is not refined as a whole: leave it out")
    if shortlist is not None or neighbourhood == "shortlist":
        m = check_shortlist(shortlist, available)
        if first is not None and own is not None and first.own is None:
            raise ValueError("query_ids are given, and first was made without them: it holds the queries' own images")
        first = first_ranking(q, d, query_ids) if first is None else first
        scores, ranks = (torch.as_tensor(part, device=q.device).clone() for part in (first.scores, first.ids))
    if neighbourhood == "shortlist":
        members = ranks[:, :m].sort(dim=1).values  # by id, so that equal similarities go to the lower id
        scores[:, :m], ranks[:, :m], refined = _rerank_in_shortlists(q, d, members, sides, how)
        return Reranking(q.like(ranks), q.like(scores), q.like(refined))
    check_integer(k, "k", 1, available, "the images of the database, without the own one")
    if sides != "query":
        augmented = augment(d, how) if augmented is None else augmented
        check_augmented(augmented, d, how)
    for i in range(rounds):
        before = d
        if sides != "query":
            d = augmented.prepared[i]
        if sides != "database":
            q = refine(q, before, own, how)
    if shortlist is None:
        return rank_again(q, d, own)
    scores[:, :m], ranks[:, :m] = read_codes(first_codes(pair_codes(q, d, ranks[:, :m]), m))
    return Reranking(q.like(ranks), q.like(scores), q.features(), features_in_memory(d))


def rerank(queries, database, first: Ranking | None, *, prepared: Augmented | None = None, **parameters) -> Reranking:
    """`global_rerank` with its parameters, k and alpha at least; `prepared`: what `prepare` returned."""
    own = None if first is None else first.own
    return global_rerank(queries, database, augmented=prepared, query_ids=own, first=first, **parameters)


def prepare(
    database, *, neighbours=None, sides="both", neighbourhood="database", shortlist=None, **parameters
) -> Augmented | None:
    """What is done once for a database: None where it is not refined as a whole."""
    if sides == "query" or neighbourhood == "shortlist":
        return None
    return augment_database(database, neighbours=neighbours, **parameters)
