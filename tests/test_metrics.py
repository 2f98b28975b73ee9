"""evaluate against stored outputs of the revisited benchmarks' evaluation, hand-made cases and a naive loop."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssr_lib.benchmark import Benchmark
from ssr_lib.metrics import (
    auc_against,
    average_precision,
    evaluate,
    false_positives_at_r,
    intra_inter_distances,
    pair_auc,
)

GOLDEN = np.load(Path(__file__).parent / "golden" / "metrics.npz")
LETTERS = {"E": "easy", "M": "medium", "H": "hard"}
CASES = sorted({key[:3] for key in GOLDEN if key.startswith("c")})
HAND = [str(name) for name in GOLDEN["hand_names"]]


def lists(case):
    cut = lambda row: row[row >= 0]
    tables = [GOLDEN[f"{case}_{key}"] for key in ("easy", "hard", "junk")]
    return [dict(zip(("easy", "hard", "junk"), map(cut, rows), strict=True)) for rows in zip(*tables, strict=True)]


def benchmark(truth, n_database, **options):
    tables = {key: [query[key] for query in truth] for key in ("easy", "hard", "junk")}
    return Benchmark(
        "test",
        ".",
        [f"{i}.jpg" for i in range(n_database)],
        [f"q{i}.jpg" for i in range(len(truth))],
        **tables,
        **options,
    )


def naive(ranks, ok, junk, at):
    """One query, one protocol, straight from the definition."""
    if not len(ok):
        return np.nan, [np.nan] * len(at)
    ok, junk = set(ok), set(junk)
    places = [p for p, i in enumerate(i for i in ranks if i not in junk) if i in ok]
    ap = sum(((j / p if p else 1) + (j + 1) / (p + 1)) / 2 for j, p in enumerate(places)) / len(ok)
    if not places:
        return 0.0, [0.0] * len(at)
    depths = [min(k, places[-1] + 1) for k in at]
    return ap, [sum(p < depth for p in places) / depth for depth in depths]


def test_all_stored_cases_are_there():
    assert len(CASES) == 20 and len(HAND) == 12


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("as_benchmark", [False, True])
def test_as_the_public_evaluation(case, as_benchmark):
    truth, ranks = lists(case), GOLDEN[f"{case}_ranks"].T
    got = evaluate(ranks, benchmark(truth, ranks.shape[1]) if as_benchmark else truth, at=GOLDEN["ks"].tolist())
    for letter, key in LETTERS.items():
        assert got.map[key] == pytest.approx(float(GOLDEN[f"{case}_map{letter}"]), abs=1e-12)
        np.testing.assert_allclose(got.mp[key], GOLDEN[f"{case}_mp{letter}"], atol=1e-12)
        np.testing.assert_allclose(got.ap[key], GOLDEN[f"{case}_aps{letter}"], atol=1e-12)
        np.testing.assert_allclose(got.precision[key], GOLDEN[f"{case}_prs{letter}"], atol=1e-12)


@pytest.mark.parametrize("name", HAND)
def test_as_the_public_evaluation_on_hand_made_cases(name):
    value = lambda key: GOLDEN[f"hand_{name}_{key}"]
    truth = [{"easy": value("ok"), "hard": [], "junk": value("junk")}]
    got = evaluate(np.arange(int(value("n")))[None], truth)
    assert got.map["easy"] == got.map["medium"] == pytest.approx(float(value("ap")), abs=1e-12)
    np.testing.assert_allclose(got.mp["easy"], value("p"), atol=1e-12)
    assert np.isnan(got.map["hard"]) and np.isnan(got.mp["hard"]).all()


def test_average_precision_by_hand():
    # places 1, 3, 5 of 3: ((0 + 1/2) + (1/3 + 2/4) + (2/5 + 3/6)) / 2 / 3
    assert average_precision([1, 3, 5], 3) == pytest.approx((0.5 + 5 / 6 + 0.9) / 6)
    assert average_precision([1, 3, 5], 3) == pytest.approx(0.3722, abs=5e-5)
    assert average_precision([2], 1) == pytest.approx(1 / 6)
    assert average_precision([5, 1, 3], 3) == average_precision([1, 3, 5], 3)
    assert average_precision([0, 1, 2], 3) == 1 and average_precision([0], 4) == 0.25
    assert average_precision([], 3) == 0 and np.isnan(average_precision([], 0))


def test_an_id_far_beyond_the_ranking_is_not_found_and_costs_no_memory():
    assert evaluate(np.array([[0, 1, 2]]), [{"easy": [0, 2**40], "hard": [], "junk": []}]).map["easy"] == 0.5


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(5, 40), st.integers(1, 6), st.booleans())
def test_evaluate_is_the_naive_loop(seed, n, n_queries, cut):
    rng = np.random.default_rng(seed)
    truth = []
    for _ in range(n_queries):
        ids, ends = rng.permutation(n), np.sort(rng.integers(0, n, 3))
        truth.append(dict(zip(("easy", "hard", "junk"), np.split(ids[: ends[2]], ends[:2]), strict=True)))
    ranks = np.stack([rng.permutation(n) for _ in range(n_queries)])[:, : n // 2 if cut else n]
    got = evaluate(ranks, truth, at=(1, 3, 100))
    wrong = false_positives_at_r(ranks, truth)
    protocols = {
        "easy": (["easy"], ["junk", "hard"]),
        "medium": (["easy", "hard"], ["junk"]),
        "hard": (["hard"], ["junk", "easy"]),
    }
    for key, (positive, ignored) in protocols.items():
        for i, query in enumerate(truth):
            ok, junk = (np.concatenate([query[name] for name in names]) for names in (positive, ignored))
            ap, precision = naive(ranks[i], ok, junk, (1, 3, 100))
            np.testing.assert_allclose(got.ap[key][i], ap, atol=1e-12)
            np.testing.assert_allclose(got.precision[key][i], precision, atol=1e-12)
            first = [j for j in ranks[i] if j not in set(junk)][: len(ok)]
            expected = sum(j not in set(ok) for j in first) if len(ok) else np.nan
            np.testing.assert_array_equal(wrong[key][i], expected)
        assert got.map[key] == pytest.approx(
            np.nanmean(got.ap[key]) if np.isfinite(got.ap[key]).any() else np.nan, nan_ok=True
        )


def test_what_the_three_protocols_ignore():
    """Ranking: hard, junk, easy, wrong. Easy: easy alone, first. Medium: both first. Hard: hard first."""
    got = evaluate(np.array([[1, 2, 0, 3]]), [{"easy": [0], "hard": [1], "junk": [2]}])
    assert got.map == {"easy": 1.0, "medium": 1.0, "hard": 1.0}
    swapped = evaluate(np.array([[3, 2, 0, 1]]), [{"easy": [0], "hard": [1], "junk": [2]}])
    assert swapped.map["easy"] == swapped.map["hard"] == 0.25  # each at place 1, after the wrong image
    assert swapped.mp["easy"].tolist() == [0, 0.5, 0.5]  # divided by 2, the place of the last positive


def test_positives_that_were_not_found_count_and_do_not_crash():
    got = evaluate(np.array([[3, 4]]), [{"easy": [0], "hard": [], "junk": []}])
    assert got.map["easy"] == 0 and got.mp["easy"].tolist() == [0, 0, 0] and np.isnan(got.map["hard"])
    assert false_positives_at_r(np.array([[3, 4]]), [{"easy": [0], "hard": [], "junk": []}])["easy"] == [1]


def test_a_querys_own_image_is_ignored_wherever_it_stands():
    truth = [{"easy": [1], "hard": [], "junk": [2]}]
    for ranks in ([0, 1, 2, 3], [1, 2, 3, 0], [1, 2, 3]):
        assert evaluate([ranks], benchmark(truth, 4, query_ids=[0])).map["easy"] == 1
    assert evaluate([[0, 1, 2, 3]], benchmark(truth, 4)).map["easy"] == 0.25
    assert evaluate([[2, 1, 0, 3]], benchmark(truth, 4, query_ids=[2])).map["easy"] == 1  # junk already
    with pytest.raises(ValueError, match="id 1 is listed twice"):
        evaluate([[0, 1, 2, 3]], benchmark(truth, 4, query_ids=[1]))


def test_torch_rankings_are_taken_too():
    truth, ranks = lists("c00"), GOLDEN["c00_ranks"].T
    assert evaluate(torch.from_numpy(ranks.copy()), truth).map == evaluate(ranks, truth).map


@pytest.mark.parametrize(
    ("ranks", "truth", "message"),
    [
        ([[0, 1, 1]], {"easy": [0]}, "query 0 holds an id twice"),
        ([[0, -1, 1]], {"easy": [0]}, "ids from -1 to 1"),
        ([[0, 1]], {"easy": [-2]}, "'easy' holds -2"),
        ([[0, 1]], {"easy": [0.5]}, "ids are integers"),
        ([[0, 1]], {"easy": [0, 0]}, "id 0 is listed twice"),
        ([[0, 1]], {"easy": [0], "junk": [0]}, "id 0 is listed twice"),
        ([[0, 1]], {"easy": [1], "hard": [0, 1]}, "id 1 is listed twice"),
        ([[0.0, 1.0]], {"easy": [0]}, "ranks are float64"),
        ([0, 1], {"easy": [0]}, r"shape \(2,\)"),
        ([[0, 1], [1, 0]], {"easy": [0]}, "1 queries, the ranking 2"),
    ],
)
def test_contradictions_are_refused(ranks, truth, message):
    with pytest.raises(ValueError, match=message):
        evaluate(np.array(ranks), [{"easy": [], "hard": [], "junk": []} | truth])


def test_other_bad_arguments_are_refused():
    truth = [{"easy": [0], "hard": [], "junk": []}]
    with pytest.raises(ValueError, match="wanted 0 to 1"):
        evaluate(np.array([[0, 2]]), benchmark(truth, 2))
    with pytest.raises(ValueError, match=r"lacks \['junk'\]"):
        evaluate(np.array([[0, 1]]), [{"easy": [0], "hard": []}])
    with pytest.raises(ValueError, match="wanted places from 1"):
        evaluate(np.array([[0, 1]]), truth, at=(0,))
    for places, number in (([1, 1], 2), ([-1], 1), ([0, 1], 1), ([0.5], 1)):
        with pytest.raises(ValueError, match="places"):
            average_precision(places, number)


def test_the_ground_truth_of_the_revisited_benchmarks_ranked_perfectly(extra_data):
    for name, n in (("roxford5k", 4993), ("rparis6k", 6322)):
        with open(extra_data / "gnd" / f"gnd_{name}.pkl", "rb") as file:
            truth = pickle.load(file)["gnd"]
        ranks = []
        for query in truth:
            head = np.concatenate([query["junk"], query["easy"], query["hard"]]).astype(int)
            ranks.append(np.r_[head, np.setdiff1d(np.arange(n), head)])
        got = evaluate(np.stack(ranks), truth)
        assert got.map == pytest.approx({"easy": 1, "medium": 1, "hard": 1})
        wrong = false_positives_at_r(np.stack(ranks), truth)["medium"]
        assert np.nansum(wrong) == 0 and len(wrong) == 70
        rng = np.random.default_rng(0)
        shuffled = np.stack([rng.permutation(n) for _ in truth])
        expected = [
            naive(row, np.r_[q["easy"], q["hard"]], q["junk"], (1, 5, 10))
            for row, q in zip(shuffled, truth, strict=True)
        ]
        np.testing.assert_allclose(evaluate(shuffled, truth).ap["medium"], [ap for ap, _ in expected], atol=1e-12)


def test_pair_auc_by_hand_and_by_counting():
    assert pair_auc([3, 1], [2, 0]) == 0.75 and pair_auc([1], [1]) == 0.5 and np.isnan(pair_auc([], [1]))
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(0, 9, 50), rng.integers(0, 9, 70)
    wins = (positive[:, None] > negative).mean() + (positive[:, None] == negative).mean() / 2
    assert pair_auc(positive, negative) == pytest.approx(wins, abs=1e-12)
    with pytest.raises(ValueError, match="NaN"):
        pair_auc([np.nan], [1])


def test_auc_against_is_the_auc_of_each_querys_cosines():
    database = np.float32([[1, 0], [1, 1], [0, 3], [-1, 0]])
    got = auc_against(np.float32([[5, 0], [0, 1], [1, 0]]), database, [[0, 1], [0], []], [[2, 3], [2, 3], [0]])
    np.testing.assert_allclose(got, [1, 0.25, np.nan])  # the second: a tie and a loss


def test_intra_and_inter_class_distances_by_hand():
    database = np.float32([[0, 2], [-1, 0], [3, 0], [0, -1]])
    truth = [{"easy": [2], "hard": [0], "junk": [3]}]  # distances 0 and √2; the wrong image 1 is at 2; 3 is ignored
    got = intra_inter_distances(np.float32([[1, 0]]), database, truth)
    assert got == pytest.approx({"intra": 2**-0.5, "inter": 2, "intra / inter": 2**-1.5, "pair AUC": 1}, abs=1e-7)
