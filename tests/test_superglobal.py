"""superglobal_rerank against stored outputs of its public implementation: scores, ranks, refined descriptors."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ssr_lib.descriptors import as_pair
from ssr_lib.rerank import superglobal_rerank
from ssr_lib.rerank.superglobal import refine_shortlist
from ssr_lib.search import rank

GOLDEN = np.load(Path(__file__).parent / "golden" / "superglobal.npz")
SETTINGS = "abcdefg"


def case(name):
    prefix = "g_" if name == "g" else ""
    queries, database = GOLDEN[prefix + "Q"], GOLDEN[prefix + "X"]
    m = min(int(GOLDEN[f"{name}_M"]), len(database))  # theirs shortens a shortlist beyond the database silently
    return queries, database, m, int(GOLDEN[f"{name}_K"]), float(GOLDEN[f"{name}_beta"])


@pytest.mark.parametrize("name", SETTINGS)
def test_the_final_ranking_and_scores_are_theirs(name):
    queries, database, m, k, beta = case(name)
    got = superglobal_rerank(queries, database, m, k, beta)
    assert np.array_equal(got.ranks, GOLDEN[f"{name}_ranks_after"].T)
    np.testing.assert_allclose(got.scores[:, :m], -np.sort(-GOLDEN[f"{name}_final"], axis=1), atol=2e-6)
    np.testing.assert_allclose(got.queries, GOLDEN[f"{name}_qexp"], atol=2e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_each_stage_is_theirs(name):
    queries, database, m, k, beta = case(name)
    first = GOLDEN["g_ranks_before" if name == "g" else "ranks_before"].T
    assert np.array_equal(rank(queries, database), first)
    q, d = as_pair(queries, database)
    for i in range(len(queries)):
        members = torch.from_numpy(first[i, :m].astype(np.int64))
        s1, s2, _, refined = refine_shortlist(q.take(torch.tensor([i])), d.take(members), k, beta)
        np.testing.assert_allclose(s1, GOLDEN[f"{name}_s1"][i], atol=2e-6)
        np.testing.assert_allclose(s2, GOLDEN[f"{name}_s2"][i], atol=2e-6)
        assert np.array_equal(
            first[i, :m][np.argsort(-s1.numpy(), kind="stable")], GOLDEN[f"{name}_ranks_after_stage1"][i]
        )
        if i == 0 and f"{name}_xdba_q0" in GOLDEN:
            np.testing.assert_allclose(refined, GOLDEN[f"{name}_xdba_q0"], atol=2e-6)


def test_the_default_shortlist_is_400_or_the_database():
    queries, database = GOLDEN["Q"], GOLDEN["X"]
    assert np.array_equal(superglobal_rerank(queries, database).ranks, GOLDEN["b_ranks_after"].T)
    rng = np.random.default_rng(0)
    many = rng.standard_normal((500, 8)).astype(np.float32)
    assert np.array_equal(superglobal_rerank(many[:2], many).scores, superglobal_rerank(many[:2], many, 400).scores)


def test_the_order_behind_the_shortlist_stays():
    queries, database = GOLDEN["Q"], GOLDEN["X"]
    assert np.array_equal(superglobal_rerank(queries, database, 50).ranks[:, 50:], rank(queries, database)[:, 50:])


def test_equal_images_share_their_score_and_stand_in_order():
    database = np.repeat(GOLDEN["X"][:40], 2, axis=0)
    got = superglobal_rerank(GOLDEN["Q"], database)
    place = np.argsort(got.ranks, axis=1)
    assert (place[:, 0::2] + 1 == place[:, 1::2]).all()


def test_the_own_image_is_left_out():
    database = GOLDEN["X"]
    got = superglobal_rerank(database[:3], database, 50, query_ids=[0, 1, 2])
    assert got.ranks.shape == (3, 299) and not (got.ranks == np.arange(3)[:, None]).any()


def test_torch_in_torch_out():
    got = superglobal_rerank(torch.from_numpy(GOLDEN["Q"]), torch.from_numpy(GOLDEN["X"]), 50)
    assert isinstance(got.ranks, torch.Tensor) and np.array_equal(got.ranks, GOLDEN["a_ranks_after"].T)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"shortlist": 301}, "shortlist is 301"), ({"k": 300}, "k is 300"), ({"beta": np.inf}, "beta is inf")],
)
def test_arguments_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        superglobal_rerank(GOLDEN["Q"], GOLDEN["X"], **options)
