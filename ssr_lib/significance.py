"""Intervals, p-values and verdicts for comparisons over queries and training seeds.

Queries of one landmark are not independent, so **groups** of queries are resampled, crossed with resampled seeds. Plain
resampling of 3 to 5 seeds gives intervals that cover far less than they say (it takes their spread as known), so each
resampled deviation of n units is scaled by sqrt(n / χ²_{n−1}), a fresh draw of χ² each time: the bootstrap's mean then
spreads like Student's t. The tests measure the coverage.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and queries with its interval; units of what was averaged."""

    estimate: float
    ci_low: float
    ci_high: float
    n_groups: int
    n_seeds: int


@dataclass(frozen=True)
class Difference(Interval):
    """A mean difference with its interval and two-sided p-value.

    It is the larger of the sign-flip test's over groups, which takes trained networks as given, and the bootstrap's.
    """

    p: float


def _by_group(values: np.ndarray, groups) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts (S, G) over the queries of each group, NaN left out; groups without any value are dropped."""
    values, groups = np.atleast_2d(np.asarray(values, dtype=np.float64)), np.asarray(groups)
    if values.ndim != 2 or groups.shape != values.shape[1:]:
        raise ValueError(
            f"values {values.shape} with {len(groups)} groups; wanted (seeds, queries), a group for each query"
        )
    if np.isinf(values).any():
        raise ValueError("values hold infinity; wanted numbers, or NaN for queries without positives")
    member = np.unique(groups, return_inverse=True)[1][:, None] == np.arange(len(np.unique(groups)))  # (Q, G)
    counts = (~np.isnan(values)).astype(float) @ member
    used = counts.any(axis=0)
    if used.sum() < 2:
        raise ValueError(f"{used.sum()} group of queries has values; an interval needs at least 2")
    return (np.nan_to_num(values) @ member)[:, used], counts[:, used]


def _weights(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Bootstrap weights (size, n) of mean 1, so spread that the resampled mean follows Student's t; 1 for n = 1."""
    if n == 1:
        return np.ones((size, 1))
    draws = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
    counts = np.bincount(draws.ravel(), minlength=size * n).reshape(size, n)
    return 1 + (counts - 1) * np.sqrt(n / rng.chisquare(n - 1, size=(size, 1)))


@lru_cache(maxsize=4)
def _crossed_weights(n_seeds: int, n_groups: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights of seeds (size, S) and of groups (size, G); a study asks for the same ones for nearly every figure."""
    rng = np.random.default_rng(seed)
    weights = _weights(n_seeds, size, rng), _weights(n_groups, size, rng)
    for array in weights:
        array.flags.writeable = False  # they are shared
    return weights


def mean_interval(values: np.ndarray, groups, n_resamples: int = 10_000, seed: int = 0) -> Interval:
    """The mean of `values` (S, Q) over seeds and queries, NaN left out, with its 95 % bootstrap interval.

    `values` (Q,) or (1, Q): only groups are resampled. `groups` (Q,). Raises `ValueError` for fewer than two groups
    with values and shapes that do not fit. Source: Owen, Annals of Applied Statistics 2007 (crossed bootstrap).
    """
    estimate, resampled, shape = _resample(values, groups, n_resamples, seed)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(estimate, float(low), float(high), shape[1], shape[0])


def _resample(values: np.ndarray, groups, n_resamples: int, seed: int) -> tuple[float, np.ndarray, tuple[int, int]]:
    """The mean, its `n_resamples` resampled values, and the numbers of seeds and groups behind it."""
    sums, counts = _by_group(values, groups)
    estimate = sums.sum() / counts.sum()
    residuals = (sums - estimate * counts) / counts.sum()  # linear in the weights: no resampled divisor near 0
    seeds, groups_ = _crossed_weights(*sums.shape, n_resamples, seed)
    return float(estimate), estimate + ((seeds @ residuals) * groups_).sum(axis=1), sums.shape


def bootstrap_p(values: np.ndarray, groups, n_resamples: int = 10_000, seed: int = 0) -> float:
    """The two-sided p-value of mean 0 that belongs to `mean_interval`: the least level whose interval leaves out 0."""
    resampled = _resample(values, groups, n_resamples, seed)[1]
    tail = 1 + min((resampled <= 0).sum(), (resampled >= 0).sum())
    return float(min(1.0, 2 * tail / (1 + n_resamples)))


def sign_flip_p(values: np.ndarray, groups, n_resamples: int = 10_000, seed: int = 0) -> float:
    """The two-sided p-value of mean 0 if each group's sign were arbitrary: flips of whole groups, drawn at random."""
    totals = _by_group(values, groups)[0].sum(axis=0)  # (G,)
    flips = np.random.default_rng(seed).integers(0, 2, size=(n_resamples, len(totals)), dtype=np.int8)
    flipped = np.abs(totals.sum() - 2 * (flips @ totals))
    as_far = flipped >= abs(totals.sum()) * (1 - 1e-9)  # rounding must not make a tie smaller
    return float((1 + as_far.sum()) / (1 + n_resamples))


def paired_difference(ap_a, ap_b, groups, n_resamples: int = 10_000, seed: int = 0) -> Difference:
    """Mean of a − b, query by query and seed by seed: (S, Q) each, or (Q,); pairs with a NaN are left out.

    Raises `ValueError` as `mean_interval`, and for shapes that differ.
    """
    a, b = (np.atleast_2d(np.asarray(ap, dtype=np.float64)) for ap in (ap_a, ap_b))
    if a.shape != b.shape:
        raise ValueError(f"the compared values have shapes {a.shape} and {b.shape}; pair the same seeds and queries")
    interval = mean_interval(a - b, groups, n_resamples, seed)
    p = max(test(a - b, groups, n_resamples, seed) for test in (sign_flip_p, bootstrap_p))
    return Difference(interval.estimate, interval.ci_low, interval.ci_high, interval.n_groups, interval.n_seeds, p)


def interaction(both, first, second, neither, groups, **options) -> Difference:
    """How much more the first part adds where the second is there: (both − second) − (first − neither), (S, Q) each."""
    both, first, second, neither = (np.asarray(ap, dtype=np.float64) for ap in (both, first, second, neither))
    return paired_difference(both - second, first - neither, groups, **options)


def holm(p_values) -> np.ndarray:
    """P-values adjusted for their number, in their order: Holm, Scandinavian Journal of Statistics 1979."""
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values are {p}; wanted a list of numbers from 0 to 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def verdict(difference: Interval, *, adjusted_p: float | None = None) -> str:
    """What an interval says of the claim that the difference is above 0: "supported", "refuted" or "not shown".

    "no verdict" for a comparison of trainings from one seed. With `adjusted_p` (`holm`), 0.05 or more is not shown
    whatever the interval.
    """
    if difference.n_seeds < 2:
        return "no verdict"
    if difference.ci_low <= 0 <= difference.ci_high or (adjusted_p is not None and adjusted_p >= 0.05):
        return "not shown"
    return "supported" if difference.ci_low > 0 else "refuted"
