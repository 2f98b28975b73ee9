"""evaluate against stored outputs of the revisited benchmarks' evaluation, hand-made cases and a naive loop."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssr_lib import metrics
from ssr_lib.benchmark import Benchmark
from ssr_lib.metrics import average_precision, evaluate, false_positives_at_r, pair_auc

GOLDEN = np.load(Path(__file__).parent / "golden" / "metrics.npz")
ONE = [{"easy": [0], "hard": [], "junk": []}]


def lists(case):
    tables = {key: GOLDEN[f"{case}_{key}"] for key in ("easy", "hard", "junk")}
    return [{key: rows[q][rows[q] >= 0] for key, rows in tables.items()} for q in range(len(tables["easy"]))]


def benchmark(truth, n_database, **options):
    tables = {key: [query[key] for query in truth] for key in ("easy", "hard", "junk")}
    queries = [f"{i}.jpg" for i in options.get("query_ids", range(-len(truth), 0))]
    return Benchmark("test", ".", [f"{i}.jpg" for i in range(n_database)], queries, **tables, **options)


def naive(ranks, ok, junk, at):
    """One query, one protocol, straight from the definition: AP, precisions, wrong images among the first R."""
    if not len(ok):
        return [np.nan] * (len(at) + 2)
    right = [i in ok for i in ranks if i not in junk]
    places = np.flatnonzero(right)
    ap = sum(((j / p if p else 1) + (j + 1) / (p + 1)) / 2 for j, p in enumerate(places)) / len(ok)
    depths = [min(k, max(places, default=0) + 1) for k in at]
    return [ap, *(sum(right[:depth]) / depth for depth in depths), right[: len(ok)].count(False)]


@pytest.mark.parametrize("case", sorted({key[:3] for key in GOLDEN if key.startswith("c")}))
def test_as_the_public_evaluation(case):
    truth, ranks = lists(case), GOLDEN[f"{case}_ranks"].T
    got = evaluate(ranks, benchmark(truth, ranks.shape[1]), at=GOLDEN["ks"].tolist())
    for key, letter in zip(("easy", "medium", "hard"), "EMH", strict=True):
        for found, stored in ((got.map, "map"), (got.mp, "mp"), (got.ap, "aps"), (got.precision, "prs")):
            np.testing.assert_allclose(found[key], GOLDEN[f"{case}_{stored}{letter}"], atol=1e-12)


def test_average_precision_by_hand():
    # places 1, 3, 5 of 3: ((0 + 1/2) + (1/3 + 2/4) + (2/5 + 3/6)) / 2 / 3
    assert average_precision([5, 1, 3], 3) == average_precision([1, 3, 5], 3) == pytest.approx((0.5 + 5 / 6 + 0.9) / 6)
    assert average_precision([0, 1, 2], 3) == 1 and average_precision([0], 4) == 0.25
    assert average_precision([], 3) == 0 and np.isnan(average_precision([], 0))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(5, 40), st.integers(1, 6), st.booleans())
def test_evaluate_is_the_naive_loop(seed, n, n_queries, cut):
    rng, truth = np.random.default_rng(seed), []
    for _ in range(n_queries):
        easy, hard, junk, _ = np.split(rng.permutation(n), np.sort(rng.integers(0, n, 3)))
        truth.append({"easy": easy, "hard": hard, "junk": junk})
    ranks = np.stack([rng.permutation(n) for _ in range(n_queries)])[:, : n // 2 if cut else n]
    got, wrong = evaluate(ranks, truth, at=(1, 3, 100)), false_positives_at_r(ranks, truth)
    for key, positive in (("easy", ["easy"]), ("medium", ["easy", "hard"]), ("hard", ["hard"])):
        ignored = [name for name in ("easy", "hard", "junk") if name not in positive]
        for i, query in enumerate(truth):
            ok, junk = (np.concatenate([query[name] for name in names]) for names in (positive, ignored))
            found = [got.ap[key][i], *got.precision[key][i], wrong[key][i]]
            np.testing.assert_allclose(found, naive(ranks[i], ok, junk, (1, 3, 100)), atol=1e-12)
        values = got.ap[key][np.isfinite(got.ap[key])]
        assert got.map[key] == pytest.approx(values.mean() if len(values) else np.nan, nan_ok=True)


def test_a_querys_own_image_is_ignored_wherever_it_stands():
    truth = [{"easy": [1], "hard": [], "junk": [2]}]
    for ranks in ([0, 1, 2, 3], [1, 2, 3, 0], [1, 2, 3]):
        assert evaluate([ranks], benchmark(truth, 4, query_ids=[0])).map["easy"] == 1
    assert evaluate([[0, 1, 2, 3]], benchmark(truth, 4)).map["easy"] == 0.25
    assert evaluate([[2, 1, 0, 3]], benchmark(truth, 4, query_ids=[2])).map["easy"] == 1  # junk already


def test_every_kind_of_integers_and_blocks_of_queries_give_the_same():
    truth, ranks = lists("c10"), GOLDEN["c10_ranks"].T  # 116 images
    forms = [ranks.astype(kind) for kind in ("int8", "uint8", "uint16", "uint64")]
    for form in (*forms, torch.tensor(ranks.copy()), iter(ranks[:, None])):  # last, one query at a time
        np.testing.assert_equal(evaluate(form, truth).ap, evaluate(ranks, truth).ap)


@pytest.mark.parametrize("ranks,truth,message", [
    ([[0, 1, 1]], {}, "query 0 holds an id twice"), ([[0, 2]], benchmark(ONE, 2), "ids from 0 to 2; wanted 0 to 1"),
    ([[0, 1, -1]], {}, "ids from -1 to 1; wanted 0 to .*: rankings that end early are cut"), ([0, 1], {}, r"shape \(2,\)"),
    ([[0, 1]], {"easy": [-2]}, "'easy' holds -2"), ([[0, 1]], {"easy": [0.5]}, "ids are integers"),
    ([[0, 1]], {"easy": [1], "hard": [0, 1]}, "id 1 is listed twice"), ([[0, 1], [1, 0]], {}, "1 queries, the ranking 2"),
    ([[0, 1]], benchmark(ONE, 2, query_ids=[0]), "id 0 is listed twice"), ([[0.0, 1.0]], {}, "ranks are float64"),
])  # fmt: skip
def test_contradictions_are_refused(ranks, truth, message):
    with pytest.raises(ValueError, match="at is 1, 0; wanted are places from 1"):
        evaluate([[0, 1]], ONE, at=(1, 0))
    with pytest.raises(ValueError, match=message):
        evaluate(np.array(ranks), [ONE[0] | truth] if isinstance(truth, dict) else truth)


def test_auc_of_pairs_and_of_each_querys_cosines_and_distances_within_and_between_classes_by_hand():
    assert pair_auc([3, 1], [2, 0]) == 0.75 and pair_auc([1], [1]) == 0.5
    database = np.float32([[1, 0], [1, 1], [0, 3], [-1, 0]])
    got = metrics.auc_against(np.float32([[5, 0], [0, 1], [1, 0]]), database, [[0, 1], [0], []], [[2, 3], [2, 3], [0]])
    np.testing.assert_allclose(got, [1, 0.25, np.nan])  # the second: a tie and a loss
    database = np.float32([[0, 2], [-1, 0], [3, 0], [0, -1]])
    truth = [{"easy": [2], "hard": [0], "junk": [3]}]  # distances 0 and √2; the wrong image 1 is at 2; 3 is ignored
    got = metrics.intra_inter_distances(np.float32([[1, 0]]), database, truth)
    assert got == pytest.approx({"intra": 2**-0.5, "inter": 2, "intra / inter": 2**-1.5, "pair AUC": 1}, abs=1e-7)
