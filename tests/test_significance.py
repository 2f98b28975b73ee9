"""significance: intervals that cover what they say, small cases by hand, verdicts."""

import dataclasses

import numpy as np
import pytest

from ssr_lib import significance
from ssr_lib.significance import Interval, mean_interval, paired_difference, verdict

SIZES = [3, 5, 6, 6, 6, 7, 7, 8, 5, 5, 12]  # queries of 11 landmarks


@pytest.mark.parametrize("noise", [(1, 0.3, 0.3, 2), (1, 0, 0, 2), (0.1, 1, 0.1, 1), (0, 0, 0, 1), (1, 1, 1, 1)])
def test_the_interval_covers_the_truth_about_95_times_in_100(noise):
    rng, groups, covered = np.random.default_rng(0), np.repeat(np.arange(11), SIZES), []
    of_group, of_seed, of_both, of_query = noise  # how much each varies: all, mostly one, alike
    for _ in range(400):
        values = of_group * rng.standard_normal(11)[groups] + of_seed * rng.standard_normal((5, 1))
        values = values + of_both * rng.standard_normal((5, 11))[:, groups]
        found = mean_interval(values + of_query * rng.standard_normal(len(groups)), groups)
        covered.append(found.ci_low <= 0 <= found.ci_high)
    assert 0.93 <= np.mean(covered) <= 0.99


def test_one_seeds_interval_is_students():
    values = np.random.default_rng(1).standard_normal(20)
    found = mean_interval(values, np.arange(20))
    assert found.ci_high - found.ci_low == pytest.approx(2 * 2.0930 * values.std(ddof=1) / np.sqrt(20), rel=1e-4)
    assert (found.df, found.n_groups, found.n_seeds) == (19, 20, 1)


def test_two_seeds_and_two_groups_by_hand():
    """Without a residual V = V_L + V_S = 2; with one V = V_L + V_S − V_E = 4 + 4 − 1; V = V_S = 4 and df = 1, floors."""
    cases = [-1, 1, 1, 3, 1, 2, 2, 4.3027], [0, 2, 2, 8, 3, 7, 49 / 32, 5.8477], [0, 2, 6, 4, 3, 4, 1, 12.7062]
    one_more = [0, 6, 2, 4, 3, 4, 1, 12.7062]  # V = V_L; the last: the quantile of 97.5 % with df degrees of freedom
    for *values, estimate, variance, df, t in (*cases, one_more):
        found = mean_interval(np.reshape(values, (2, 2)), ["a", "b"])
        assert (found.estimate, found.error**2, found.df) == pytest.approx((estimate, variance, df))
        assert found.ci_high == pytest.approx(estimate + t * found.error, rel=1e-4)
    assert mean_interval([[0, 6], [6, 0], [3, 3]], ["a", "b"]).df == 1, "as of the fewer groups"


def test_a_group_counts_by_its_share_of_the_queries():
    found, groups = mean_interval([0, 0, 3, 6], [*"aabc"]), np.array([*"aabc"])  # without a group: 9/2, 2 and 1
    assert (found.estimate, found.error**2) == pytest.approx((9 / 4, 2 / 3 * (2.25**2 + 0.25**2 + 1.25**2)))
    values = np.array([[0, 0, 3, 6], [2, 2, 1, 9.0]])
    variance = values.mean(axis=1).var(ddof=1) / 2
    for group, share in {"a": 1 / 2, "b": 1 / 4, "c": 1 / 4}.items():
        variance += 2 / 3 * (values[:, groups != group].mean() - values.mean()) ** 2
        rest = values[:, groups == group].mean(axis=1) - values.mean(axis=1)
        variance -= 3 / 4 * np.square(share * (rest - rest.mean())).sum()
    assert mean_interval(values, groups).error ** 2 == pytest.approx(variance)


def test_missing_values_are_left_out_and_the_level_widens():
    values = np.array([[0.1, np.nan, 0.4, 0.5], [0.2, 0.3, 0.5, 0.6]])
    found = mean_interval(values, [0, 0, 1, 2])
    assert found.estimate == pytest.approx(np.mean(values[:, [0, 2, 3]]))
    assert mean_interval(values, [0, 0, 1, 2], level=0.998).ci_low < found.ci_low
    for groups, message in (([0], r"values \(1, 2\) with 1 groups"), ([0, 0], "1 group of queries has values")):
        with pytest.raises(ValueError, match=message):
            mean_interval([[1.0, 2.0]], groups)


def test_a_difference_is_paired():
    a, groups = np.random.default_rng(3).random((5, 30)), np.arange(30) // 2
    found = paired_difference(a + 0.01, a, groups)
    assert (found.estimate, found.ci_low) == (pytest.approx(0.01), pytest.approx(0.01))
    assert significance.interaction(a + 0.3, a + 0.1, a + 0.1, a, groups).estimate == pytest.approx(0.1)
    with pytest.raises(ValueError, match=r"shapes \(5, 30\) and \(4, 30\)"):
        paired_difference(a, a[:4], groups)


def interval(low, high, n_seeds=5):
    return Interval((low + high) / 2, low, high, (high - low) / 5, 20.0, 40, n_seeds)


@pytest.mark.parametrize("found,options,expected", [
    (interval(2, 3, n_seeds=4), {}, "no verdict"), (interval(2, 3, n_seeds=1), {"trained": False}, "supported"),
    (interval(2, 3), {"control": None}, "no verdict"), (interval(np.nan, np.nan), {}, "undecided"),
    (None, {}, "not tested here"), (interval(2, 3), {"control": False, "activity": 0.1}, "blind"),
    (interval(2, 3), {"activity": 0.24}, "inert"), (interval(2, 3), {"activity": 0.25}, "supported"),
    (interval(0.1, 0.9), {}, "supported, by less than the margin"), (interval(0.1, 1.1), {}, "supported"),
    (interval(-0.9, -0.1), {}, "refuted, by less than the margin"), (interval(-3, -2), {}, "refuted"),
    (interval(-0.9, 0.9), {}, "equivalent"), (interval(-1, 0.9), {}, "undecided"),
    (interval(-0.9, 0.9), {"margin": None}, "undecided"), (interval(0.1, 0.2), {"margin": None}, "supported"),
])  # fmt: skip
def test_the_first_line_that_applies_is_the_verdict(found, options, expected):
    assert verdict(found, **{"margin": 1.0, **options}) == expected


def test_the_chance_of_equivalence_is_what_a_simulation_finds_and_whole_groups_flip_leaving_nothing(monkeypatch):
    rng, margin, groups = np.random.default_rng(4), 0.9, np.arange(25)
    samples = [mean_interval(rng.standard_normal(25), groups) for _ in range(2000)]
    share = np.mean([-margin < found.ci_low and found.ci_high < margin for found in samples])
    known = dataclasses.replace(samples[0], error=1 / 5)  # the true standard error
    assert significance.chance_of_equivalence(known, margin, 0.95) == pytest.approx(share, abs=0.05)
    assert significance.chance_of_equivalence(dataclasses.replace(known, error=1.0), margin, 0.95) == 0
    twice = 2 * 2.0639 / 5  # the quantile of 97.5 % with 24 degrees of freedom: it may be missed on either side
    assert significance.chance_of_equivalence(known, twice, 0.95) == pytest.approx(0.95, abs=1e-4)
    groups, rng = np.repeat(np.arange(11), SIZES), np.random.default_rng(5)
    values = 3 + rng.standard_normal(11)[groups] + 0.1 * rng.standard_normal((5, len(groups)))
    assert mean_interval(values, groups).ci_low > 1 and significance.false_calls(values, groups) <= 0.07
    assert significance.false_calls(values - 3, groups, level=0.5) > 0.3
    flipped = []
    monkeypatch.setattr(significance, "mean_interval", lambda signs, *_: flipped.append(signs) or interval(-1, 1))
    assert significance.false_calls(np.ones((2, 12)), np.repeat(np.arange(4), 3), draws=40) == 0
    assert all((signs == signs[:1, ::3].repeat(3, axis=1)).all() for signs in flipped), "in every training alike"
    assert len(np.unique(flipped, axis=0)) > 8, "each group by itself"
