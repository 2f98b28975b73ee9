"""The sum over neighbours that GFR adds to a feature, and a database that it was added to."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssr_lib.rerank._ranking import add_neighbours, check_number, nearest
from ssr_lib.search.prepared import PIECE, Array, Prepared, as_pair, blocks, check_integer

CHOICES = {
    "weighting": ("similarity", "uniform", "rank", "power"),
    "reduce": ("sum", "mean"),
    "sides": ("both", "query", "database"),
    "neighbourhood": ("database", "shortlist"),
}


@dataclass(frozen=True)
class NeighbourSum:
    """What is added to a feature: the arguments of `global_rerank` that both sides share, validated."""

    k: int
    alpha: float
    weighting: str = "similarity"
    power: float = 1.0
    reduce: str = "sum"
    rounds: int = 1

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
            w = torch.ones_like(w)
        elif self.weighting == "rank":
            w = ((k - torch.arange(k, device=w.device)) / k).double().expand_as(w)
        return self.alpha * (w / k if self.reduce == "mean" else w)


@dataclass(frozen=True, eq=False)
class Augmented:
    """A database refined once for all queries: its features (N, D) after each round, and what made them."""

    rounds: tuple[Array, ...]
    made_with: NeighbourSum
    database: Prepared
    prepared: tuple[Prepared, ...]  # the rounds again


def check_choice(**arguments: str) -> None:
    """Raise `ValueError` for an argument that is none of its legal values."""
    for name, value in arguments.items():
        if value not in CHOICES[name]:
            raise ValueError(f"{name} is {value!r}; wanted one of {', '.join(CHOICES[name])}")


def refine(
    x: Prepared, d: Prepared, own: torch.Tensor | None, how: NeighbourSum, known: tuple[Array, Array] | None = None
) -> Prepared:
    """x̂ (n, D) of the rows x with their k nearest database images, but not their own; `known`: those, found before."""
    scores, ids = nearest(x, d, how.k, own, known)
    return add_neighbours(x, d, ids, how.weights(scores))


def augment(d: Prepared, how: NeighbourSum, known: tuple[Array, Array] | None = None) -> Augmented:
    check_integer(how.k, "k", 1, len(d) - 1, "the database images other than the one itself")
    everyone, rounds = torch.arange(len(d), device=d.device), [d]
    for _ in range(how.rounds):
        rounds.append(refine(rounds[-1], rounds[-1], everyone, how, known))
        known = None  # neighbours of the first round only
    return Augmented(tuple(x.features() for x in rounds[1:]), how, d, tuple(rounds[1:]))


@torch.no_grad()
def augment_database(
    database: Array | Prepared,
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

    `database` (N, D) float32, NumPy, torch or prepared; the features come back as the same kind. `neighbours`: scores
    and ids (N, k or more) of `search.knn(database, database, …, exclude=range(N))`, where they are at hand: a sweep
    over k and α then searches once. Other arguments and errors are those of `global_rerank`.
    """
    how = NeighbourSum(k, alpha, weighting, power, reduce, rounds)
    return augment(as_pair(database, database)[1], how, neighbours)


def check_augmented(augmented: Augmented, d: Prepared, how: NeighbourSum) -> None:
    if not isinstance(augmented, Augmented):
        raise ValueError(f"augmented is a {type(augmented).__name__}; wanted what augment_database returns")
    if augmented.made_with != how:
        raise ValueError(f"augmented was made with {augmented.made_with}, not {how}: call augment_database again")
    if not _same_rows(augmented.database, d):
        shapes = f"shape {tuple(augmented.database.data.shape)}, here {tuple(d.data.shape)}"
        raise ValueError(f"augmented was made from other descriptors ({shapes}): call augment_database again")


def _same_rows(one: Prepared, other: Prepared) -> bool:
    if one is other:
        return True
    if one.data.shape != other.data.shape or one.device != other.device or not torch.equal(one.norms, other.norms):
        return False
    parts = blocks(len(one), PIECE // one.data.shape[1])
    return all(torch.equal(one.raw(part), other.raw(part)) for part in parts)
