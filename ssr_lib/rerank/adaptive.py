"""Adaptive GFR: an image takes in a neighbour only as far as the two stand out for each other.

GFR, x̂_i = normalise( x_i + α Σ_{j ∈ N_k(i)} w_ij x_j ) for every image i, query or database, with s_ij = x_i · x_j and

    w_ij = clip( (min(z_ij, z_ji) / √(2 ln N) − low) / span, 0, 1) · r_ij r_ji
    z_ij = (s_ij − μ_i) / σ_i,    r_ij = min( (s_ij − μ_i) / (s_i1 − μ_i), 1)

where μ_i and σ_i are the mean and the deviation of i's similarities to the database and s_i1 is the largest of them.
√(2 ln N) deviations is what the best of N unrelated images should reach, so a neighbour counts if it beats that from
both ends. It harms queries with one right image less than GFR does; it is not safe. This form is the study's own
(docs/method.md): it was preferred after a look at results on ROxford5k, which are no evidence for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ssr_lib.rerank._ranking import Ranking, Reranking, add_neighbours, check_number, check_size, nearest, rank_again
from ssr_lib.search.prepared import PIECE, Prepared, as_pair, blocks, check_integer, own_ids
from ssr_lib.search.prepared import prepare as prepare_rows

NEEDS = "descriptors"


@dataclass(frozen=True)
class Rule:
    """How much a neighbour counts: α, and where between `low` and `low` + `span` times √(2 ln N) it does in part."""

    alpha: float
    low: float
    span: float

    def __post_init__(self):
        for name in ("alpha", "low", "span"):
            check_number(getattr(self, name), name)


@dataclass(frozen=True, eq=False)
class Background:
    """What unrelated images look like to each of n images: `mean` μ, `deviation` σ and `best` s_i1, (n,) float64."""

    mean: torch.Tensor
    deviation: torch.Tensor
    best: torch.Tensor

    def take(self, ids: torch.Tensor) -> Background:
        return Background(self.mean[ids], self.deviation[ids], self.best[ids])

    def standing(self, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """z and r of similarities s (n, k), or (n,), to these images."""
        above = s - self.mean
        return above / self.deviation, (above / (self.best - self.mean).clamp(min=1e-12)).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class Gathered:
    """A database's sums of x and of x xᵀ over its images, its images' `background`, and the images after GFR."""

    total: torch.Tensor  # (D,)
    moment: torch.Tensor  # (D, D)
    background: Background
    augmented: Prepared


def measure(x: Prepared, total: torch.Tensor, moment: torch.Tensor, best: torch.Tensor, n: int, inside) -> Background:
    """The background of rows x (m, D) among n images; `inside` (m,) bool: whether the row is itself one of them."""
    first, second = (torch.empty(len(x), dtype=torch.float64, device=x.device) for _ in range(2))
    for rows in blocks(len(x), PIECE // len(total)):
        unit = x.unit(rows).double()
        first[rows] = unit @ total
        second[rows] = ((unit @ moment) * unit).sum(dim=1)
    count = n - inside.double()  # its similarity of 1 to itself says nothing of others
    mean = (first - inside.double()) / count
    variance = (second - inside.double()) / count - mean**2
    return Background(mean, variance.clamp(min=1e-12).sqrt(), best)


def refine(x: Prepared, d: Prepared, near: tuple, own: Background, other: Background, rule: Rule) -> Prepared:
    """x̂ (m, D) of rows x with the scores and ids (m, k) of their neighbours `near` in d."""
    scores, ids = near
    z, r = own.take(torch.arange(len(x), device=x.device)[:, None]).standing(scores)
    z_back, r_back = other.take(ids).standing(scores)
    reach = math.sqrt(2 * math.log(max(len(d), 2)))
    counts = ((torch.minimum(z, z_back) / reach - rule.low) / max(rule.span, 1e-9)).clamp(0, 1)
    return add_neighbours(x, d, ids, rule.alpha * counts * r * r_back)


@torch.no_grad()
def prepare(database, *, k: int = 10, alpha: float = 1.0, low: float = 0.7, span: float = 0.5) -> Gathered:
    """The database's side: what each image looks like to it, and its images (N, D) refined among themselves."""
    d = prepare_rows(database)
    check_integer(k, "k", 1, len(d) - 1, "the database images other than the one itself")
    dimension, rule = d.data.shape[1], Rule(alpha, low, span)
    total = torch.zeros(dimension, dtype=torch.float64, device=d.device)
    moment = torch.zeros(dimension, dimension, dtype=torch.float64, device=d.device)
    for rows in blocks(len(d), PIECE // dimension):
        unit = d.unit(rows).double()
        total += unit.sum(dim=0)
        moment += unit.T @ unit
    everyone = torch.arange(len(d), device=d.device)
    near = nearest(d, d, k, everyone)
    background = measure(d, total, moment, near[0][:, 0], len(d), torch.ones_like(everyone).bool())
    return Gathered(total, moment, background, refine(d, d, near, background, background, rule))


@torch.no_grad()
def rerank(
    queries,
    database,
    first: Ranking | None,
    *,
    prepared: Gathered | None = None,
    k: int = 10,
    alpha: float = 1.0,
    low: float = 0.7,
    span: float = 0.5,
) -> Reranking:
    """The ranking of refined queries (Q, D) in the refined database (N, D); `prepared`: what `prepare` returned.

    Raises `ValueError` as `search.knn`, and for an alpha, low or span that is no number of 0 or more.
    """
    q, d = as_pair(queries, database)
    gathered = prepare(d, k=k, alpha=alpha, low=low, span=span) if prepared is None else prepared
    check_size(len(gathered.augmented), d)
    own = None if first is None else own_ids(first.own, q, d)
    near = nearest(q, d, k, own)
    inside = torch.zeros(len(q), dtype=torch.bool, device=q.device) if own is None else own >= 0
    background = measure(q, gathered.total, gathered.moment, near[0][:, 0], len(d), inside)
    refined = refine(q, d, near, background, gathered.background, Rule(alpha, low, span))
    return rank_again(refined, gathered.augmented, own)
