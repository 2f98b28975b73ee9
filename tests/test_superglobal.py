"""superglobal_rerank against stored outputs of its public implementation: scores, ranks, refined descriptors."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ssr_lib.rerank import first_ranking, superglobal, superglobal_rerank
from ssr_lib.search import prepare

GOLDEN = np.load(Path(__file__).parent / "golden" / "superglobal.npz")


@pytest.mark.parametrize("name", "abcdefg")
def test_the_final_ranking_and_scores_are_theirs(name):
    queries, database = (GOLDEN[f"g_{part}" if name == "g" else part] for part in "QX")
    m = min(int(GOLDEN[f"{name}_M"]), len(database))  # theirs shortens a shortlist beyond the database silently
    got = superglobal_rerank(queries, database, m, int(GOLDEN[f"{name}_K"]), float(GOLDEN[f"{name}_beta"]))
    assert np.array_equal(got.ranks, GOLDEN[f"{name}_ranks_after"].T)
    np.testing.assert_allclose(got.scores[:, :m], -np.sort(-GOLDEN[f"{name}_final"], axis=1), atol=2e-6)
    np.testing.assert_allclose(got.queries, GOLDEN[f"{name}_qexp"], atol=2e-6)


def test_the_default_shortlist_is_400_or_the_database():
    got = superglobal_rerank(torch.from_numpy(GOLDEN["Q"]), torch.from_numpy(GOLDEN["X"]))
    assert isinstance(got.ranks, torch.Tensor) and np.array_equal(got.ranks, GOLDEN["b_ranks_after"].T)
    many = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)
    assert np.array_equal(superglobal_rerank(many[:2], many).scores, superglobal_rerank(many[:2], many, 400).scores)


def test_no_batch_changes_a_bit_and_equal_images_share_their_score_and_stand_in_order():
    queries, database = np.concatenate([GOLDEN["Q"], GOLDEN["X"][:4]]), GOLDEN["X"]
    single = [superglobal_rerank(query[None], database, 50).scores for query in queries]
    assert np.array_equal(np.concatenate(single), superglobal_rerank(queries, database, 50).scores)
    place = np.argsort(superglobal_rerank(GOLDEN["Q"], np.repeat(GOLDEN["X"][:40], 2, axis=0)).ranks, axis=1)
    assert (place[:, 0::2] + 1 == place[:, 1::2]).all()


def test_the_own_image_is_left_out_and_the_part_is_the_same():
    database = GOLDEN["X"]
    got = superglobal_rerank(database[:3] * 2, database * 3, 50, query_ids=[0, 1, 2])  # lengths do not matter
    assert got.ranks.shape == (3, 299) and not (got.ranks == np.arange(3)[:, None]).any()
    first = first_ranking(database[:3], database, np.arange(3))
    before, part = first.ids.copy(), superglobal.rerank(prepare(database[:3]), prepare(database), first, shortlist=50)
    assert np.array_equal(part.ranks, got.ranks) and np.array_equal(first.ids, before)
    np.testing.assert_allclose(part.scores, got.scores, atol=1e-6)


@pytest.mark.parametrize("name,value", [("shortlist", 301), ("k", 300), ("beta", np.inf)])
def test_arguments_that_cannot_be_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        superglobal_rerank(GOLDEN["Q"], GOLDEN["X"], **{name: value})
    with pytest.raises(ValueError, match="beta is 1, and unlike neighbours outweigh an image"):  # 1 + β · −1 is 0
        superglobal_rerank(np.float32([[1, 0]]), np.float32([[1, 0], [-1, 0]]), k=1, beta=1)
