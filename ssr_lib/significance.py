"""Intervals and verdicts for comparisons over queries and training seeds.

Queries of one landmark are not independent, and neither are the queries of one training. So the interval of a mean
counts both as samples: a two-way jackknife over **groups** of queries (landmarks) and **seeds** (trainings), as in the
analysis of readers and cases in radiology (Dorfman, Berbaum and Metz, Investigative Radiology 1992; Hillis, Statistics
in Medicine 2007). The tests measure how often such intervals hold the true value.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit  # scipy.stats takes a third of a second to import

SEEDS = 5  # trainings: with fewer a comparison of trained networks gets no verdict
INERT = 1 / 4  # of the margin: a head that moves APs by less cannot move their mean by the margin


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and queries with its interval, its standard error and degrees of freedom, in its own units."""

    estimate: float
    ci_low: float
    ci_high: float
    error: float
    df: float
    n_groups: int
    n_seeds: int


def mean_interval(values: np.ndarray, groups, level: float = 0.95) -> Interval:
    """The mean of `values` (S, Q) over seeds and queries, NaN left out, and where it lies at confidence `level`.

    `values` (Q,) or (1, Q): one training, taken as given; only groups are sampled. `groups` (Q,). Raises `ValueError`
    for fewer than two groups with values, shapes that do not fit, and no level. Formulas: docs/method.md, section 7.
    """
    values, groups = np.atleast_2d(np.asarray(values, dtype=np.float64)), np.asarray(groups)
    if groups.shape != values.shape[1:] or not 0 < level < 1 or np.isinf(values).any():
        told = "wanted (seeds, queries), none infinite, a group a query, and a level inside 0 to 1"
        raise ValueError(f"values {values.shape} with {len(groups)} groups at level {level}; {told}")
    known = ~np.isnan(values).any(axis=0)  # a query that one training lacks is left out of all
    names, member = np.unique(groups[known], return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"{len(names)} group of queries has values; an interval needs at least 2")
    counts = np.bincount(member)
    means = np.stack([np.bincount(member, row) for row in values[:, known]]) / counts  # of the groups, (S, G)
    share = counts / counts.sum()  # of the queries, (G,)
    n_seeds, n_groups = means.shape  # S, G
    by_seed, by_group = means @ share, means.mean(axis=0)  # (S,), (G,)
    estimate = float(by_seed.mean())
    without = (estimate - share * by_group) / (1 - share)  # the mean without one group, (G,)
    of_groups = (n_groups - 1) / n_groups * np.square(without - estimate).sum()
    variance, df = of_groups, n_groups - 1.0
    if n_seeds > 1:
        of_seeds = by_seed.var(ddof=1) / n_seeds
        residual = means - by_seed[:, None] - by_group + estimate
        of_both = n_groups / ((n_seeds - 1) * (n_groups - 1) * n_seeds) * np.square(share * residual).sum()
        total = of_groups + of_seeds - of_both
        variance = max(total, of_groups, of_seeds)
        parts = of_groups**2 / (n_groups - 1) + of_seeds**2 / (n_seeds - 1)
        df = max(total**2 / parts if parts > 0 else 0.0, min(n_seeds, n_groups) - 1.0)
    error = float(np.sqrt(variance))
    reach = float(stdtrit(df, (1 + level) / 2)) * error
    return Interval(estimate, estimate - reach, estimate + reach, error, float(df), n_groups, n_seeds)


def paired_difference(ap_a, ap_b, groups, level: float = 0.95) -> Interval:
    """Mean of a − b, query by query and seed by seed: (S, Q) each, or (Q,); pairs with a NaN are left out.

    Raises `ValueError` as `mean_interval`, and for shapes that differ.
    """
    a, b = (np.atleast_2d(np.asarray(ap, dtype=np.float64)) for ap in (ap_a, ap_b))
    if a.shape != b.shape:
        raise ValueError(f"the compared values have shapes {a.shape} and {b.shape}; pair the same seeds and queries")
    return mean_interval(a - b, groups, level)


def interaction(both, first, second, neither, groups, level: float = 0.95) -> Interval:
    """How much more the first part adds where the second is there: (both − second) − (first − neither), (S, Q) each."""
    both, first, second, neither = (np.asarray(ap, dtype=np.float64) for ap in (both, first, second, neither))
    return paired_difference(both - second, first - neither, groups, level)


def false_calls(values: np.ndarray, groups, level: float = 0.95, draws: int = 200, seed: int = 0) -> float:
    """A negative control: the share of `draws` in which the signs of `values` (S, Q) are flipped at random for whole
    groups (Q,), so that nothing is left to find, and whose interval leaves out 0 all the same."""
    rng, (_, member), called = np.random.default_rng(seed), np.unique(groups, return_inverse=True), 0
    for _ in range(draws):
        found = mean_interval(rng.choice([-1, 1], member.max() + 1)[member] * values, groups, level)
        called += found.ci_low > 0 or found.ci_high < 0
    return called / draws


def chance_of_equivalence(found: Interval, margin: float, level: float) -> float:
    """How likely such an interval lies within ± `margin` where the true difference is 0: what "equivalent" can be."""
    if found.error == 0:
        return 1.0
    room = margin / found.error - stdtrit(found.df, (1 + level) / 2)
    return float(max(0.0, 2 * stdtr(found.df, room) - 1))


def verdict(
    found: Interval | None,
    margin: float | None = None,
    *,
    trained: bool = True,
    control: bool | None = True,
    activity: float | None = None,
) -> str:
    """What the interval of a difference says of the claim that it is above 0; the first line that applies decides.

    `margin`: differences below it do not matter, in the units of `found`; None: only superiority is claimed.
    `trained`: whether the compared networks were trained. `control`: whether the positive control passed; None where
    it was not run. `activity`: the least mean |change of AP| that the compared heads make, None where none does.
    """
    if found is None:
        return "not tested here"
    if (trained and found.n_seeds < SEEDS) or control is None:
        return "no verdict"
    if not control:
        return "blind"
    if activity is not None and margin is not None and activity < INERT * margin:
        return "inert"
    within = margin is not None and max(-found.ci_low, found.ci_high) < margin
    if not (found.ci_low > 0 or found.ci_high < 0):  # also where they are NaN
        return "equivalent" if within else "undecided"
    called = "supported" if found.ci_low > 0 else "refuted"
    return f"{called}, by less than the margin" if within else called
