"""Global feature re-ranking: every image's feature plus a weighted sum of its nearest neighbours' features.

For each image i, query or database, with unit feature x_i and its k nearest database images N_k(i), never itself:

    x̂_i = normalise( x_i + α · Σ_{j ∈ N_k(i)} w_ij x_j )

and the queries are ranked again by x̂_q · x̂_j. Source: Chen & Yao 2025, abstract; what it leaves open is an argument.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch

from ssr_lib.descriptors import Array, Rows, as_pair, as_rows, check_integer, like, own_ids, row_sums
from ssr_lib.search import full_ranking, neighbours, pair_scores, sort_by_score

DEFAULT_SHORTLIST = 400  # SuperGlobal (Shao et al. 2023)
CHOICES = {
    "weighting": ("similarity", "uniform", "rank", "power"),
    "reduce": ("sum", "mean"),
    "sides": ("both", "query", "database"),
    "neighbourhood": ("database", "shortlist"),
}


@dataclass(frozen=True)
class Reranking:
    """Rankings after a re-ranker.

    `ranks` (Q, N) int64, best first; with query_ids for every query (Q, N − 1), without the own image; where only some
    queries have one, theirs is last, at score −inf. `scores`: aligned with ranks. Behind a shortlist the first
    ranking's order and scores stand, so scores need not fall across that border. `queries` (Q, D), `database` (N, D):
    the unit features that were ranked with, None where there is no one set of them. `cost`: what a measuring re-ranker
    reports (seconds, bytes).
    """

    ranks: Array
    scores: Array
    queries: Array | None = None
    database: Array | None = None
    cost: dict[str, float] | None = None


@dataclass(frozen=True)
class NeighbourSum:
    """What is added to a feature: the arguments of `global_rerank` that both sides share, validated."""

    k: int
    alpha: float
    weighting: str
    power: float
    reduce: str
    rounds: int

    def __post_init__(self):
        check_choice(weighting=self.weighting, reduce=self.reduce)
        check_number(self.alpha, "alpha")
        check_number(self.power, "power")
        check_integer(self.rounds, "rounds", 1, 1000, "repetitions, each with neighbours found anew")
        if self.weighting != "power":
            object.__setattr__(self, "power", 1.0)  # unused: two that differ in it are equal

    def weights(self, similarity: torch.Tensor) -> torch.Tensor:
        """α·w (n, k) of neighbours with these similarities, best first; clipped at 0, so that none pushes away."""
        k = similarity.shape[1]
        w = similarity.clamp(min=0) ** self.power  # 0 ** 0 is 1
        if self.weighting == "uniform":
            w = torch.ones_like(similarity)
        elif self.weighting == "rank":
            w = ((k - torch.arange(k, device=w.device)) / k).double().expand_as(w)
        return self.alpha * (w / k if self.reduce == "mean" else w)


@dataclass(frozen=True)
class Augmented:
    """A database refined once for all queries: its features (N, D) after each round, and what made them."""

    rounds: tuple[Array, ...]
    made_with: NeighbourSum
    fingerprint: int  # of the database that it was made from


def refines_whole_database(sides: str = "both", neighbourhood: str = "database", **other: object) -> bool:
    """Whether `global_rerank` with these arguments has a part that is done once for a database: `augment_database`."""
    return sides != "query" and neighbourhood != "shortlist"


def check_choice(**arguments: str) -> None:
    """Raise `ValueError` for an argument that is none of its legal values."""
    for name, value in arguments.items():
        if value not in CHOICES[name]:
            raise ValueError(f"{name} is {value!r}; wanted one of {', '.join(CHOICES[name])}")


def check_number(value: float, name: str) -> None:
    """Raise `ValueError` unless `value` is a finite number, 0 or more."""
    if not isinstance(value, (int, float, np.number)) or not np.isfinite(value) or value < 0:
        raise ValueError(f"{name} is {value!r}; wanted a finite number, 0 or more")


def check_shortlist(shortlist: int | None, available: int) -> int:
    """The length of the shortlist: what is asked for if it fits, by default 400 or all there is."""
    if shortlist is None:
        return min(DEFAULT_SHORTLIST, available)
    check_integer(shortlist, "shortlist", 1, available, "the images in a ranking")
    return int(shortlist)


def add_neighbours(x: Rows, d: Rows, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """normalise(x_i + Σ_j w_ij x_j) of unit features, summed in float64 from the nearest on: (n, D) float32."""
    out = torch.empty((len(x), x.data.shape[1]), dtype=torch.float32, device=x.device)
    for rows in x.pieces(len(x)):
        total = x.unit(rows)
        for r in range(ids.shape[1]):
            total += d.unit(ids[rows, r]).mul_(weights[rows, r : r + 1])
        squares = row_sums(total.square())
        if bool((squares < 1e-24).any()):
            bad = rows.start + int((squares < 1e-24).nonzero()[0])
            raise ValueError(f"row {bad} and its neighbours cancel out; use a smaller alpha or similarity weights")
        out[rows] = total.div_(squares.sqrt_()[:, None])
    return out


def refine(
    x: Rows, d: Rows, own: torch.Tensor | None, how: NeighbourSum, found: tuple[Array, Array] | None = None
) -> torch.Tensor:
    """x̂ (n, D) of the rows x with their k nearest database images, but not their own; `found`: scores and ids of k or more."""
    scores, ids = neighbours(x, d, how.k, own) if found is None else _first(found, len(x), how.k, x.device)
    return add_neighbours(x, d, ids, how.weights(scores))


def _first(found: tuple[Array, Array], n: int, k: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The first k columns of neighbours found before. Raises `ValueError` where they are not of n rows, or fewer."""
    scores, ids = (torch.as_tensor(part, device=device) for part in found)
    if scores.shape != ids.shape or len(ids) != n or ids.ndim != 2 or ids.shape[1] < k:
        raise ValueError(
            f"neighbours are {tuple(scores.shape)} and {tuple(ids.shape)}; wanted ({n}, {k} or more) twice"
        )
    return scores[:, :k], ids[:, :k]


def _fingerprint(d: Rows) -> int:
    """A checksum of some rows and of the norms of all, which are known and differ in their last bits from row to row."""
    some = torch.linspace(0, len(d) - 1, min(16, len(d)), dtype=torch.float64).long().to(d.device)
    return zlib.crc32(d.norms.cpu().numpy().tobytes(), zlib.crc32(d.raw(some).cpu().numpy().tobytes()))


def _augment(d: Rows, how: NeighbourSum, kind: Array, found: tuple[Array, Array] | None = None) -> Augmented:
    check_integer(how.k, "k", 1, len(d) - 1, "the database images other than the one itself")
    everyone, current, rounds = torch.arange(len(d), device=d.device), d, []
    for i in range(how.rounds):
        rounds.append(like(refine(current, current, everyone, how, found if i == 0 else None), kind))
        current = as_rows(rounds[-1], "augmented descriptors", d.device)
    return Augmented(tuple(rounds), how, _fingerprint(d))


@torch.no_grad()
def augment_database(
    database: Array,
    k: int,
    alpha: float,
    *,
    weighting: str = "similarity",
    power: float = 1.0,
    reduce: str = "sum",
    rounds: int = 1,
    neighbours: tuple[Array, Array] | None = None,
) -> Augmented:
    """The database's side of `global_rerank`, which depends on no query: pass it as `augmented` for every query set.

    `database` (N, D) float32, NumPy or torch; the features come back as the same kind. `neighbours`: scores and ids
    (N, k or more) of `search.knn(database, database, …, exclude=range(N))`, where they are at hand: a sweep over k and α
    then searches once. Other arguments and errors are those of `global_rerank`.
    """
    how = NeighbourSum(k, alpha, weighting, power, reduce, rounds)
    return _augment(as_pair(database, database)[1], how, database, neighbours)


def _check_augmented(augmented: Augmented, d: Rows, how: NeighbourSum) -> None:
    if not isinstance(augmented, Augmented):
        raise ValueError(f"augmented is a {type(augmented).__name__}; wanted what augment_database returns")
    for what, found, wanted in (
        ("a database of shape", tuple(augmented.rounds[0].shape), tuple(d.data.shape)),
        ("arguments", augmented.made_with, how),
        ("descriptors with checksum", augmented.fingerprint, _fingerprint(d)),
    ):
        if found != wanted:
            raise ValueError(
                f"augmented was made from {what} {found}; here it is {wanted}: call augment_database again"
            )


def _rerank_in_shortlists(q: Rows, d: Rows, ids: torch.Tensor, sides: str, how: NeighbourSum):
    """Refine each query and its shortlist (Q, M) among themselves: scores (Q, M) of ids, and refined queries (Q, D)."""
    m = ids.shape[1]
    check_integer(how.k, "k", 1, m - (sides != "query"), "the images of the shortlist, without the one itself")
    scores = torch.empty(ids.shape, dtype=torch.float64, device=q.device)
    refined = torch.empty((len(q), q.data.shape[1]), device=q.device)
    everyone = torch.arange(m, device=q.device)
    for i in range(len(q)):
        query, members = q.take(everyone.new_tensor([i])), d.take(ids[i])
        for _ in range(how.rounds):
            before = members
            if sides != "query":
                members = as_rows(refine(before, before, everyone, how), "refined descriptors", q.device)
            if sides != "database":
                query = as_rows(refine(query, before, None, how), "refined queries", q.device)
        scores[i] = pair_scores(query, members, slice(0, 1), everyone[None])[0]
        refined[i] = query.unit(slice(0, 1))[0]
    return scores, refined


@torch.no_grad()
def global_rerank(
    queries: Array,
    database: Array,
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
) -> Reranking:
    """Rank by features that each took in the sum of their nearest neighbours' features.

    `queries` (Q, D), `database` (N, D): float32, NumPy or torch; results are of the queries' kind, the refined database
    of the database's. `weighting` w_ij: "similarity" max(x_i·x_j, 0); "uniform" 1; "rank" (k − r)/k, r from 0; "power"
    max(x_i·x_j, 0)^power. `reduce`: "mean" divides the sum by k. `sides`: which images are refined.
    `neighbourhood`: neighbours from the whole database, or from each query's own shortlist (400 or N unless given), as
    SuperGlobal does. `shortlist`: only the first M of the first ranking are re-ordered; None: all, in a neighbourhood
    "database". `rounds`: repeat, with neighbours found anew among refined features. `augmented`: the result of
    `augment_database` for the same database and arguments. `query_ids` (Q,): the query's own database id, -1 for none:
    never its own neighbour, nor in its ranking.
    Raises `ValueError` for bad descriptors (as `search.knn`), k > N, k > N − 1 where the database is refined,
    shortlist > N, and an `augmented` made otherwise. Source: Chen & Yao 2025, abstract.
    """
    check_choice(sides=sides, neighbourhood=neighbourhood)
    how = NeighbourSum(k, alpha, weighting, power, reduce, rounds)
    q, d = as_pair(queries, database)
    own = own_ids(query_ids, q, d)
    available = len(d) - (own is not None)
    if augmented is not None and not refines_whole_database(sides, neighbourhood):
        raise ValueError("augmented is of no use where the database is not refined as a whole: leave it out")
    m = 0
    if shortlist is not None or neighbourhood == "shortlist":
        m = check_shortlist(shortlist, available)
        scores, ranks = full_ranking(q, d, own)
        first = ranks[:, :m].clone()
    if neighbourhood == "shortlist":
        first = first.sort(dim=1).values  # by id, so that equal similarities go to the lower id
        new_scores, refined = _rerank_in_shortlists(q, d, first, sides, how)
        scores[:, :m], ranks[:, :m] = sort_by_score(new_scores, first)
        return Reranking(like(ranks, queries), like(scores, queries), like(refined, queries))
    check_integer(k, "k", 1, available, "the images of the database, without the own one")
    if sides != "query":
        augmented = _augment(d, how, database) if augmented is None else augmented
        _check_augmented(augmented, d, how)
    for i in range(rounds):
        before = d
        if sides != "query":
            d = as_rows(augmented.rounds[i], "augmented descriptors", d.device)
        if sides != "database":
            q = as_rows(refine(q, before, own, how), "refined queries", q.device)
    if m:
        scores[:, :m], ranks[:, :m] = sort_by_score(pair_scores(q, d, slice(0, len(q)), first), first)
    else:
        scores, ranks = full_ranking(q, d, own)
    features = like(q.normalised(), queries), like(d.normalised(), database)
    return Reranking(like(ranks, queries), like(scores, queries), *features)
