"""Query expansion and database-side augmentation against stored outputs of their public implementation, and as parts."""

import re
from pathlib import Path

import numpy as np
import pytest

from ssr_lib.files import load_part
from ssr_lib.rerank import alpha_query_expansion, database_augmentation, first_ranking
from ssr_lib.search import prepare, rank

GOLDEN = np.load(Path(__file__).parent / "golden" / "qe.npz")
Q, X = GOLDEN["Q"], GOLDEN["X"]


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.startswith(("aqe", "dba"))])
def test_as_the_public_implementation(name):
    k, exponent = (int(number) for number in re.findall(r"\d+", name))
    got = database_augmentation(X, k, exponent) if "dba" in name else X
    if "aqe" in name:
        got = alpha_query_expansion(Q, got, k, exponent)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, GOLDEN[name], atol=1e-6)


@pytest.mark.parametrize("alpha", [0, 3])
def test_an_image_is_never_its_own_neighbour_where_the_public_implementation_lets_it_in(alpha):
    """With fewer than k positive neighbours theirs counts the image twice (exponent 0) or pushes away (exponent 3)."""
    x = GOLDEN["leak_X"]
    unit, got = x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True), database_augmentation(x, 4, alpha)
    for i, row in enumerate(unit @ unit.T - 3 * np.eye(6)):
        near = np.argsort(-row)[:4]
        expected = unit[i] + np.maximum(row[near], 0) ** alpha @ unit[near]  # 0 ** 0 = 1
        np.testing.assert_allclose(got[i], expected / np.linalg.norm(expected), atol=1e-6)
    theirs = GOLDEN[f"leak_dba_k4_a{alpha}"]
    assert np.abs(got - theirs).max() > 0.03
    if alpha == 3:  # the one image with 3 positive neighbours of size and a harmless fourth agrees with theirs
        np.testing.assert_allclose(got[5], theirs[5], atol=1e-6)


def test_rank_weights_fall_evenly_from_the_image_itself_and_what_cannot_be_is_refused():
    x = np.float32([[1, 0], [0.96, 0.28], [0, 1]])
    got, expected = database_augmentation(x, 2, weighting="rank"), x[0] + 2 / 3 * x[1] + 1 / 3 * x[2]
    np.testing.assert_allclose(got[0], expected / np.linalg.norm(expected), atol=1e-6)
    with pytest.raises(ValueError, match="weighting is 'sum'"):
        database_augmentation(x, 2, weighting="sum")
    with pytest.raises(ValueError, match="k is 3; wanted an integer from 1 to 2"):
        database_augmentation(x, 3)
    with pytest.raises(ValueError, match="exponent is -1"):
        alpha_query_expansion(x, x, 2, -1)


@pytest.mark.parametrize("own", [None, [2, -1, 0]])
@pytest.mark.parametrize("name", ["none", "aqe", "alpha_qe", "dba", "alpha_qe_dba"])
def test_a_part_ranks_by_what_it_made(name, own):
    part, parameters = load_part(name, "rerank"), {"none": {}, "aqe": {"k": 5}}.get(name, {"k": 5, "exponent": 3})
    database = database_augmentation(X, 5, 3) if name.endswith("dba") else X
    queries = X[:3] * 2  # lengths do not matter
    if "qe" in name:
        queries = alpha_query_expansion(queries, database, 5, 0 if name == "aqe" else 3, query_ids=own)
    expected, first = rank(queries, database, exclude=own), first_ranking(X[:3] * 2, X, own)
    found = [part.rerank(X[:3] * 2, X, first, **parameters)]
    if hasattr(part, "prepare"):
        stored = part.prepare(prepare(X), **parameters)
        found.append(part.rerank(prepare(X[:3] * 2), X, first, prepared=stored, **parameters))
    if own is None:
        found.append(part.rerank(X[:3] * 2, X, None, **parameters))
    for result in found:
        assert np.array_equal(result.ranks, expected)
        cosines = np.take_along_axis(result.queries @ result.database.T, expected, 1)
        kept = result.scores > -np.inf  # the own image is last
        np.testing.assert_allclose(result.scores[kept], cosines[kept], atol=1e-6)
