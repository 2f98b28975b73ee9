"""global_rerank against the formula written out, for every combination of its arguments."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssr_lib import search
from ssr_lib.rerank import augment_database, database_augmentation, global_rerank
from ssr_lib.search import rank
from ssr_lib.study.costs import parts

WEIGHTS = {
    "similarity": lambda s, k, p: np.maximum(s, 0),
    "uniform": lambda s, k, p: np.ones_like(s),
    "rank": lambda s, k, p: (k - np.arange(k)) / k,
    "power": lambda s, k, p: np.maximum(s, 0) ** p,
}


def unit(x):
    return x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=-1, keepdims=True)


def refined(x, database, k, alpha, weighting, power, reduce, own):
    """normalise(x + α Σ w x_j) over the k nearest of the database, without database image `own`."""
    similarity = database @ x
    near = [j for j in np.argsort(-similarity, kind="stable") if j != own][:k]
    total = (WEIGHTS[weighting](similarity[near], k, power)[:, None] * database[near]).sum(axis=0)
    return unit(x + alpha * total / (k if reduce == "mean" else 1))


def naive(queries, database, k, alpha, *, weighting="similarity", power=1.0, reduce="sum", sides="both",
          neighbourhood="database", shortlist=None, rounds=1, query_ids=None):  # fmt: skip
    """For each query (ids, scores) as the docstring of `global_rerank` says, one image at a time."""
    how = (k, alpha, weighting, power, reduce)
    results = []
    for q, x in enumerate(unit(queries)):
        own = -1 if query_ids is None else query_ids[q]
        images, first_scores = unit(database), unit(database) @ x
        first = [j for j in np.argsort(-first_scores, kind="stable") if j != own]
        m = shortlist or (len(first) if neighbourhood == "database" else min(400, len(first)))
        members = np.arange(len(images)) if neighbourhood == "database" else np.sort(first[:m])
        for _ in range(rounds):
            near, mine = images[members], list(members).index(own) if own in members else -1
            if sides != "query":
                images = images.copy()
                images[members] = [refined(image, near, *how, own=i) for i, image in enumerate(near)]
            if sides != "database":
                x = refined(x, near, *how, own=mine)
        scores = images @ x
        order = sorted(first[:m], key=lambda j: (-scores[j], j)) + first[m:]
        results.append((order, np.r_[scores[order[:m]], first_scores[order[m:]]], x))
    return results


def draw(seed=0, n=30, n_queries=3, dimension=8):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((4, dimension))
    database = centres[rng.integers(4, size=n)] + 0.7 * rng.standard_normal((n, dimension))
    queries = centres[:n_queries] + 0.7 * rng.standard_normal((n_queries, dimension))
    return queries.astype(np.float32), database.astype(np.float32)


COMBINATIONS = list(
    itertools.product(
        WEIGHTS,
        ("sum", "mean"),
        ("both", "query", "database"),
        ("database", "shortlist"),
        (None, 9),
        (1, 2),
        (False, True),
    )
)


def test_every_combination_of_arguments_is_the_formula():
    queries, database = draw(n=24, n_queries=2)
    for weighting, reduce, sides, neighbourhood, shortlist, rounds, with_ids in COMBINATIONS:
        options = {
            "weighting": weighting,
            "power": 2.5,
            "reduce": reduce,
            "sides": sides,
            "neighbourhood": neighbourhood,
        }
        options |= {"shortlist": shortlist, "rounds": rounds, "query_ids": np.array([4, 23]) if with_ids else None}
        q = database[[4, 23]] if with_ids else queries
        got, expected = global_rerank(q, database, 5, 0.7, **options), naive(q, database, 5, 0.7, **options)
        for i, (ids, scores, x) in enumerate(expected):
            assert np.array_equal(got.ranks[i], ids), options
            np.testing.assert_allclose(got.scores[i], scores, atol=2e-6)
            np.testing.assert_allclose(got.queries[i], x, atol=2e-6)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.integers(0, 99), st.integers(2, 25), st.floats(0, 3), st.sampled_from(list(WEIGHTS)), st.floats(0, 4), st.data()
)
def test_any_k_alpha_and_power_is_the_formula(seed, n, alpha, weighting, power, data):
    queries, database = draw(seed, n)
    k = data.draw(st.integers(1, n - 1))
    got = global_rerank(queries, database, k, alpha, weighting=weighting, power=power)
    for scores, (_, expected, _) in zip(
        got.scores, naive(queries, database, k, alpha, weighting=weighting, power=power), strict=True
    ):
        np.testing.assert_allclose(scores, expected, atol=3e-6)


def test_two_dimensions_by_hand():
    """q = (1, 0); its nearest is a = (0.8, 0.6), whose own nearest is b = (0, 1): â = (0.8, 0.6 + 0.6 / 2) and so on."""
    queries, database = np.float32([[1, 0]]), np.float32([[0.8, 0.6], [0, 1]])
    got = global_rerank(queries, database, 1, 0.5)
    np.testing.assert_allclose(got.queries[0], np.array([1.32, 0.24]) / np.hypot(1.32, 0.24), atol=1e-7)  # + 0.5·0.8·a
    np.testing.assert_allclose(got.database[0], np.array([0.8, 0.9]) / np.hypot(0.8, 0.9), atol=1e-7)  # + 0.5·0.6·b
    np.testing.assert_allclose(got.database[1], np.array([0.24, 1.18]) / np.hypot(0.24, 1.18), atol=1e-7)  # + 0.5·0.6·a
    np.testing.assert_allclose(got.scores, np.sort(got.queries @ got.database.T)[:, ::-1], atol=1e-7)


def test_alpha_0_is_the_first_ranking():
    queries, database = draw(1)
    assert np.array_equal(global_rerank(queries, database, 5, 0.0).ranks, rank(queries, database))


def test_exponent_0_weighs_every_neighbour_1_even_a_negative_one():
    queries, database = draw(2)
    power, uniform = (global_rerank(queries, database, 29, 0.3, weighting=w, power=0) for w in ("power", "uniform"))
    assert np.array_equal(power.scores, uniform.scores)


def test_ranks_and_scores_come_from_the_returned_features():
    queries, database = draw(3)
    for sides in ("both", "query", "database"):
        got = global_rerank(queries, database, 4, 0.5, sides=sides, rounds=2)
        assert got.queries.dtype == got.database.dtype == np.float32 and got.ranks.dtype == np.int64
        np.testing.assert_allclose(
            got.scores, np.take_along_axis(got.queries @ got.database.T, got.ranks, 1), atol=1e-6
        )


def test_only_the_shortlist_is_reordered():
    queries, database = draw(4)
    first, full = rank(queries, database), global_rerank(queries, database, 5, 1.0)
    got = global_rerank(queries, database, 5, 1.0, shortlist=10)
    assert np.array_equal(got.ranks[:, 10:], first[:, 10:])
    for row, head, whole in zip(got.ranks, first[:, :10], full.ranks, strict=True):
        assert list(row[:10]) == [j for j in whole if j in head]


def test_a_stored_augmentation_gives_the_same_bits():
    queries, database = draw(5)
    for options in ({}, {"rounds": 3}, {"weighting": "power", "power": 2.0, "reduce": "mean"}):
        augmented = augment_database(database, 4, 0.6, **options)
        for sides in ("both", "database"):
            direct = global_rerank(queries, database, 4, 0.6, sides=sides, **options)
            stored = global_rerank(queries, database, 4, 0.6, sides=sides, augmented=augmented, **options)
            assert np.array_equal(direct.scores, stored.scores) and np.array_equal(direct.ranks, stored.ranks)


def test_an_augmentation_made_otherwise_is_refused():
    queries, database = draw(6)
    augmented = augment_database(database, 4, 0.6)
    for arguments in ((3, 0.6), (4, 0.5)):
        with pytest.raises(ValueError, match="augment_database again"):
            global_rerank(queries, database, *arguments, augmented=augmented)
    for options in ({"rounds": 2}, {"weighting": "rank"}, {"reduce": "mean"}):
        with pytest.raises(ValueError, match="augment_database again"):
            global_rerank(queries, database, 4, 0.6, augmented=augmented, **options)
    with pytest.raises(ValueError, match=r"shape \(30, 8\); here it is \(29, 8\)"):
        global_rerank(queries, database[:29], 4, 0.6, augmented=augmented)
    with pytest.raises(ValueError, match="checksum"):
        global_rerank(queries, database * np.float32(1.5), 4, 0.6, augmented=augmented)
    for options in ({"sides": "query"}, {"neighbourhood": "shortlist"}):
        with pytest.raises(ValueError, match="of no use"):
            global_rerank(queries, database, 4, 0.6, augmented=augmented, **options)
    changed = database.copy()
    changed[2] = -changed[2]
    changed[2, 0] *= np.float32(1.01)  # one row, none of those that are looked at whole
    with pytest.raises(ValueError, match="checksum"):
        global_rerank(queries, changed, 4, 0.6, augmented=augmented)
    with pytest.raises(ValueError, match="augmented is a ndarray"):
        global_rerank(queries, database, 4, 0.6, augmented=database)


def test_an_unused_power_does_not_tell_augmentations_apart():
    queries, database = draw(6)
    augmented = augment_database(database, 4, 0.6, power=3.0)
    found, wanted = (global_rerank(queries, database, 4, 0.6, augmented=a) for a in (augmented, None))
    np.testing.assert_array_equal(found.ranks, wanted.ranks)


def test_an_image_is_never_its_own_neighbour_and_equal_images_stay_in_order():
    database = np.repeat(draw(7)[1][:6], 2, axis=0)  # every image twice
    augmented = augment_database(database, 1, 1.0).rounds[0]
    np.testing.assert_allclose(augmented, unit(database), atol=1e-6)  # the twin is the neighbour
    ranks = global_rerank(database[:1], database, 3, 0.5).ranks[0]
    place = np.argsort(ranks)
    assert (place[0::2] + 1 == place[1::2]).all()


def test_duplicates_beyond_the_margin_of_candidates_stay_exact(monkeypatch):
    monkeypatch.setattr(search, "EXACT_BELOW", 0)  # the way of large databases: float32 candidates, scored again
    database = np.concatenate([draw(11, 60)[1], np.repeat(draw(12)[1][:1], 90, axis=0)])
    whole = global_rerank(database[:4], database, 3, 0.5, query_ids=np.arange(4))
    monkeypatch.undo()
    assert np.array_equal(global_rerank(database[:4], database, 3, 0.5, query_ids=np.arange(4)).scores, whole.scores)


def test_a_query_of_the_database_is_left_out_of_its_ranking():
    _, database = draw(8)
    got = global_rerank(database[:3], database, 4, 0.5, query_ids=[0, 1, 2])
    assert got.ranks.shape == (3, 29) and not (got.ranks == np.arange(3)[:, None]).any()
    mixed = global_rerank(database[:3], database, 4, 0.5, query_ids=[0, -1, -1])
    assert mixed.ranks.shape == (3, 30) and mixed.ranks[0, -1] == 0 and mixed.scores[0, -1] == -np.inf
    assert np.array_equal(mixed.ranks[0, :-1], got.ranks[0])


def test_torch_in_torch_out_and_memory_maps_with_the_same_bits(tmp_path):
    queries, database = draw(9)
    expected = global_rerank(queries, database, 5, 0.5, shortlist=12)
    got = global_rerank(torch.from_numpy(queries), torch.from_numpy(database), 5, 0.5, shortlist=12)
    for name in ("ranks", "scores", "queries", "database"):
        assert isinstance(getattr(got, name), torch.Tensor)
        assert np.array_equal(getattr(got, name).numpy(), getattr(expected, name))
    np.save(tmp_path / "database.npy", database)
    mapped = np.load(tmp_path / "database.npy", mmap_mode="r")
    assert np.array_equal(global_rerank(queries, mapped, 5, 0.5, shortlist=12).scores, expected.scores)


def test_the_inputs_are_not_changed():
    queries, database = draw(10)
    before = queries.copy(), database.copy()
    global_rerank(torch.from_numpy(queries), torch.from_numpy(database), 5, 0.5, rounds=2, neighbourhood="shortlist")
    assert np.array_equal(queries, before[0]) and np.array_equal(database, before[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 30}, "k is 30; wanted an integer from 1 to 29"),
        ({"k": 31, "sides": "query"}, "k is 31; wanted an integer from 1 to 30"),
        ({"k": 30, "sides": "query", "query_ids": [0, 1, 2]}, "k is 30"),
        ({"k": 0}, "k is 0"),
        ({"shortlist": 31}, "shortlist is 31"),
        ({"shortlist": 0}, "shortlist is 0"),
        ({"shortlist": 5, "neighbourhood": "shortlist"}, "k is 5; wanted an integer from 1 to 4"),
        ({"alpha": np.nan}, "alpha is nan"),
        ({"alpha": -1}, "alpha is -1"),
        ({"power": -1, "weighting": "power"}, "power is -1"),
        ({"rounds": 0}, "rounds is 0"),
        ({"weighting": "cosine"}, "weighting is 'cosine'; wanted one of similarity, uniform, rank, power"),
        ({"sides": "left"}, "sides is 'left'"),
        ({"reduce": "max"}, "reduce is 'max'"),
        ({"neighbourhood": "all"}, "neighbourhood is 'all'"),
        ({"query_ids": [0, 1, 30]}, "own ids"),
        ({"queries": draw()[0][:, :5]}, "dimension 8 but queries have 5"),
        ({"database": draw()[1] * np.nan}, "row 0 holds NaN"),
    ],
)
def test_arguments_that_cannot_be_are_refused(options, message):
    queries, database = draw()
    arguments = {"queries": queries, "database": database, "k": 5, "alpha": 0.5} | options
    with pytest.raises(ValueError, match=message):
        global_rerank(**arguments)


def test_k_of_the_whole_database_is_legal_where_only_queries_are_refined():
    queries, database = draw()
    assert global_rerank(queries, database, 30, 0.5, sides="query").ranks.shape == (3, 30)


def test_features_that_cancel_out_are_reported():
    database = np.float32([[1, 0], [-1, 0]])
    with pytest.raises(ValueError, match="row 0 and its neighbours cancel out"):
        augment_database(database, 1, 1.0, weighting="uniform")


def test_neighbours_found_before_give_the_same_bits_for_every_smaller_k():
    rng = np.random.default_rng(3)
    queries, database = (rng.standard_normal((n, 16)).astype(np.float32) for n in (5, 40))
    near = search.knn(database, database, 12, exclude=np.arange(40))
    for k, rounds in itertools.product((1, 7, 12), (1, 2)):
        known = augment_database(database, k, 0.5, rounds=rounds, neighbours=near)
        assert all(
            np.array_equal(a, b)
            for a, b in zip(known.rounds, augment_database(database, k, 0.5, rounds=rounds).rounds, strict=True)
        )
        expected = global_rerank(queries, database, k, 0.5, rounds=rounds)
        found = global_rerank(queries, database, k, 0.5, rounds=rounds, augmented=known)
        assert np.array_equal(found.ranks, expected.ranks) and np.array_equal(found.scores, expected.scores)
    assert np.array_equal(
        database_augmentation(database, 5, 3.0, neighbours=near), database_augmentation(database, 5, 3.0)
    )
    with pytest.raises(ValueError, match=r"neighbours are \(40, 12\) and \(40, 12\); wanted \(40, 13 or more\)"):
        augment_database(database, 13, 0.5, neighbours=near)


@pytest.mark.parametrize("options", [{"sides": "query"}, {"neighbourhood": "shortlist", "shortlist": 20}])
def test_what_refines_no_whole_database_has_no_offline_part(options):
    queries, database = draw(6)
    offline, online = parts("ours", queries, database, {"k": 4, "alpha": 0.6, **options})
    assert offline is None
    assert np.array_equal(online().ranks, global_rerank(queries, database, 4, 0.6, **options).ranks)
    assert parts("ours", queries, database, {"k": 4, "alpha": 0.6})[0] is not None
