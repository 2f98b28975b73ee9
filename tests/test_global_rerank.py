"""global_rerank against the formula written out, for every combination of its arguments."""

import itertools

import numpy as np
import pytest
import torch

from ssr_lib.rerank import augment_database, database_augmentation, first_ranking, gfr, global_rerank
from ssr_lib.search import knn, prepare

WEIGHTS = {
    "similarity": lambda s, k, p: np.maximum(s, 0),
    "uniform": lambda s, k, p: np.ones_like(s),
    "rank": lambda s, k, p: (k - np.arange(k)) / k,
    "power": lambda s, k, p: np.maximum(s, 0) ** p,
}
RNG = np.random.default_rng(6)
CENTRES = RNG.standard_normal((4, 8))
DATABASE = (CENTRES[RNG.integers(4, size=30)] + 0.7 * RNG.standard_normal((30, 8))).astype(np.float32)
QUERIES = (CENTRES[:3] + 0.7 * RNG.standard_normal((3, 8))).astype(np.float32)
GRID = {"weighting": WEIGHTS, "reduce": ("sum", "mean"), "sides": ("both", "query", "database"), "rounds": (1, 2)}
GRID |= {"neighbourhood": ("database", "shortlist"), "shortlist": (None, 9), "query_ids": (None, np.array([4, 23]))}
MADE = augment_database(DATABASE, 5, 0.5, power=3.0)
CANCELLING = {"queries": np.float32([[1, 0]]), "k": 1, "alpha": 1.0, "weighting": "uniform"}


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


def test_every_combination_of_arguments_is_the_formula():
    database = DATABASE[:24]
    for values in itertools.product(*GRID.values()):
        options = {"power": 2.5, **dict(zip(GRID, values, strict=True))}
        q = QUERIES[:2] if options["query_ids"] is None else database[[4, 23]]
        got, expected = global_rerank(q, database, 5, 0.7, **options), naive(q, database, 5, 0.7, **options)
        for i, (ids, scores, x) in enumerate(expected):
            assert np.array_equal(got.ranks[i], ids), options
            np.testing.assert_allclose(got.scores[i], scores, atol=2e-6)
            np.testing.assert_allclose(got.queries[i], x, atol=2e-6)


def test_torch_in_torch_out_with_the_same_bits_and_the_own_image_is_last_where_only_some_queries_have_one():
    images, own = torch.from_numpy(DATABASE), [0, -1, -1]
    expected = global_rerank(DATABASE[:3], DATABASE, 5, 0.5, query_ids=own)
    got = global_rerank(images[:3], images, 5, 0.5, query_ids=own)
    for name in ("ranks", "scores", "queries", "database"):
        assert isinstance(getattr(got, name), torch.Tensor)
        assert np.array_equal(getattr(got, name).numpy(), getattr(expected, name))
    assert expected.ranks[0, -1] == 0 and expected.scores[0, -1] == -np.inf


@pytest.mark.parametrize("options,message", [
    ({"k": 30}, "k is 30; wanted an integer from 1 to 29"), ({"shortlist": 31}, "shortlist is 31"),
    ({"shortlist": 5, "neighbourhood": "shortlist"}, "k is 5; wanted an integer from 1 to 4"),
    *(({name: -1, "weighting": "power"}, f"{name} is -1") for name in ("alpha", "power", "rounds")),
    ({"weighting": "cosine"}, "weighting is 'cosine'; wanted one of similarity, uniform, rank, power"),
    ({"query_ids": [0, 1, 30]}, "own ids"), ({"alpha": 3e38}, "row 0 and its neighbours cancel out or are too long"),
    ({"query_ids": [0, 1, 2], "shortlist": 5, "first": first_ranking(QUERIES, DATABASE)}, "first was made without them"),
    ({"database": np.float32([[1, 0], [-1, 0]]), **CANCELLING}, "row 0 and its neighbours cancel out"),
    *(({"augmented": MADE, key: 2}, "made with") for key in ("k", "alpha", "rounds")),
    ({"augmented": MADE, "database": DATABASE[:29]}, r"shape \(30, 8\), here \(29, 8\)"),
    ({"augmented": MADE, "database": -DATABASE}, "other descriptors"),  # of the same lengths
    ({"augmented": MADE, "sides": "query"}, "of no use"), ({"augmented": DATABASE}, "augmented is a ndarray"),
])  # fmt: skip
def test_arguments_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        global_rerank(**{"queries": QUERIES, "database": DATABASE, "k": 5, "alpha": 0.5} | options)


def test_neighbours_found_before_give_the_same_bits_for_every_smaller_k():
    near = knn(DATABASE, DATABASE, 12, exclude=np.arange(30))
    for k, rounds in itertools.product((1, 12), (1, 2)):
        known = augment_database(DATABASE, k, 0.5, rounds=rounds, neighbours=near)
        expected = global_rerank(QUERIES, DATABASE, k, 0.5, rounds=rounds)
        found = global_rerank(QUERIES, DATABASE.copy(), k, 0.5, rounds=rounds, augmented=known)  # equal rows will do
        assert np.array_equal(found.ranks, expected.ranks) and np.array_equal(found.scores, expected.scores)
        assert np.array_equal(found.database, known.rounds[-1])
    for augment in (augment_database, database_augmentation):
        with pytest.raises(ValueError, match=r"neighbours are \(30, 12\) and \(30, 12\); wanted \(30, 13 or more\)"):
            augment(DATABASE, 13, 0.5, neighbours=near)


@pytest.mark.parametrize("options", [{}, {"shortlist": 12}, {"sides": "query"}, {"neighbourhood": "shortlist"}])
def test_the_part_is_global_rerank_and_prepares_what_depends_on_no_query(options):
    parameters = {"k": 4, "alpha": 0.6, **options}
    stored = gfr.prepare(prepare(DATABASE), **parameters)
    assert (stored is None) == (options.get("sides") == "query" or "neighbourhood" in options)
    for own in (None, np.array([3, -1, 7])):
        expected = global_rerank(QUERIES, DATABASE, query_ids=own, **parameters)
        for pair, prepared in (((QUERIES, DATABASE), stored), ((prepare(QUERIES), prepare(DATABASE)), None)):
            found = gfr.rerank(*pair, first_ranking(QUERIES, DATABASE, own), prepared=prepared, **parameters)
            assert np.array_equal(found.ranks, expected.ranks) and np.array_equal(found.scores, expected.scores)
