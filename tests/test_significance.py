"""significance: intervals that cover what they say, exact small tests, verdicts."""

import itertools

import numpy as np
import pytest

from ssr_lib.significance import (
    Interval,
    bootstrap_p,
    holm,
    interaction,
    mean_interval,
    paired_difference,
    sign_flip_p,
    verdict,
)


def simulate(rng, n_seeds, n_groups, seed_noise, group_noise, noise):
    """Values (S, Q) with mean 0: effects of seeds and of groups of 1 to 5 queries, and noise."""
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 6, n_groups))
    effects = group_noise * rng.standard_normal(n_groups)[groups]
    values = seed_noise * rng.standard_normal((n_seeds, 1)) + effects
    return values + noise * rng.standard_normal(values.shape), groups


@pytest.mark.parametrize(
    "shape",
    [(1, 12, 0, 1, 0.5), (1, 80, 0, 1, 0.5), (3, 60, 1, 1, 0.5), (3, 60, 0.1, 1, 0.5), (5, 60, 1, 0.1, 0.1)],
    ids=["12 groups", "80 groups", "3 seeds as noisy as groups", "3 quiet seeds", "5 seeds that make all the noise"],
)
def test_the_interval_covers_the_truth_about_95_times_in_100(shape):
    rng = np.random.default_rng(0)
    intervals = [mean_interval(*simulate(rng, *shape), n_resamples=500, seed=i) for i in range(300)]
    covered = np.mean([i.ci_low <= 0 <= i.ci_high for i in intervals])
    assert 0.91 <= covered <= 0.995


def test_queries_of_a_group_are_not_independent():
    """Ten copies of every query make no interval shorter when they share a group, and much shorter when they do not."""
    values = np.random.default_rng(0).standard_normal(50)
    one = mean_interval(values, np.arange(50))
    grouped = mean_interval(np.repeat(values, 10), np.repeat(np.arange(50), 10))
    separate = mean_interval(np.repeat(values, 10), np.arange(500))
    assert grouped.estimate == pytest.approx(one.estimate)
    assert (grouped.ci_low, grouped.ci_high) == pytest.approx((one.ci_low, one.ci_high))
    assert separate.ci_high - separate.ci_low < 0.4 * (one.ci_high - one.ci_low)
    assert (grouped.n_groups, grouped.n_seeds) == (50, 1)


def test_one_seeds_interval_is_students():
    values = np.random.default_rng(1).standard_normal(20)
    got = mean_interval(values, np.arange(20), n_resamples=50_000)
    half = 2.093 * values.std(ddof=1) / np.sqrt(20)  # t with 19 degrees of freedom
    assert (got.ci_high - got.ci_low) / 2 == pytest.approx(half, rel=0.06)


def test_the_difference_is_paired_and_leaves_out_queries_without_positives():
    rng = np.random.default_rng(3)
    difficulty = rng.random((2, 40))
    a, b = difficulty + 0.01, difficulty + 0.001 * rng.standard_normal((2, 40))
    a[:, 5] = b[:, 5] = np.nan
    b[0, 7] = np.nan
    got = paired_difference(a, b, np.arange(40))
    assert got.estimate == pytest.approx(np.nanmean(a - b))
    assert got.n_groups == 39 and got.n_seeds == 2  # group 5 has no values
    assert 0.008 < got.ci_low < got.ci_high < 0.012 and got.p < 0.01
    assert paired_difference(a, b, np.arange(40)) == got  # the seed is an argument


def test_the_p_value_is_never_below_that_of_the_interval_nor_of_the_sign_flips():
    rng = np.random.default_rng(4)
    for shift in (0.0, 0.01, 0.05):
        difference = shift + 0.05 * rng.standard_normal((3, 1)) + 0.1 * rng.standard_normal((3, 60))
        got = paired_difference(difference, np.zeros_like(difference), np.arange(60))
        outside = not got.ci_low <= 0 <= got.ci_high
        assert (bootstrap_p(difference, np.arange(60)) < 0.05) == outside
        assert got.p == max(bootstrap_p(difference, np.arange(60)), sign_flip_p(difference, np.arange(60)))


def test_the_sign_flip_test_is_the_share_of_all_sign_patterns():
    values = np.array([0.9, 0.2, -0.4, 0.7, 0.5, 0.1, -0.3, 0.6])
    flips = np.array(list(itertools.product([1, -1], repeat=8)))
    exact = np.mean(np.abs(flips @ values) >= abs(values.sum()) - 1e-12)
    assert sign_flip_p(values, np.arange(8), n_resamples=100_000) == pytest.approx(exact, abs=0.005)


def test_the_sign_flip_test_flips_whole_groups():
    """40 equal queries of 2 landmarks are 2 observations: p is 1/2, not 2^-40."""
    assert sign_flip_p(np.ones(40), np.repeat([0, 1], 20)) == pytest.approx(0.5, abs=0.03)


def test_interaction_is_the_difference_of_differences():
    rng = np.random.default_rng(5)
    both, first, second, neither = rng.random((4, 3, 30))
    got = interaction(both, first, second, neither, np.arange(30), n_resamples=500)
    assert got.estimate == pytest.approx((both - second - first + neither).mean())
    additive = interaction(neither + 0.3, neither + 0.1, neither + 0.2, neither, np.arange(30))
    assert additive.estimate == pytest.approx(0, abs=1e-12)


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03]), [0.06, 0.03, 0.06])  # 0.01·3; 0.03·2; max(0.06, 0.04·1)
    np.testing.assert_allclose(holm([0.6, 0.9]), [1, 1])
    assert len(holm([])) == 0
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([0.1, np.nan])


def test_verdicts():
    above, across, below = (Interval(0.0, low, high, 50, 5) for low, high in ((0.1, 0.2), (-0.1, 0.2), (-0.2, -0.1)))
    assert [verdict(interval) for interval in (above, across, below)] == ["supported", "not shown", "refuted"]
    assert verdict(above, adjusted_p=0.05) == "not shown" and verdict(above, adjusted_p=0.04) == "supported"
    assert verdict(Interval(0, 0.0, 1.0, 50, 5)) == "not shown"
    assert verdict(mean_interval(np.arange(1.0, 9), np.arange(8))) == "no verdict", "one seed"


@pytest.mark.parametrize(
    ("a", "b", "groups", "message"),
    [
        (np.ones((2, 4)), np.ones((3, 4)), range(4), r"shapes \(2, 4\) and \(3, 4\)"),
        (np.ones(4), np.zeros(4), range(3), r"values \(1, 4\) with 3 groups"),
        (np.ones(4), np.zeros(4), [0, 0, 0, 0], "at least 2"),
        (np.full(4, np.nan), np.zeros(4), range(4), "0 group of queries has values"),
        (np.full(4, np.inf), np.zeros(4), range(4), "infinity"),
    ],
)
def test_what_cannot_be_compared_is_refused(a, b, groups, message):
    with pytest.raises(ValueError, match=message):
        paired_difference(a, b, list(groups))
