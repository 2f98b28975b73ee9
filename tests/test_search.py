"""search: exact neighbours, the same whatever the backend, the block, the kind of array; ties by id."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssr_lib import search
from ssr_lib.descriptors import as_pair
from ssr_lib.search import knn, rank


def naive(queries, database):
    """Float64 cosines sorted by (−score, id)."""
    q, x = (
        a.astype(np.float64) / np.linalg.norm(a.astype(np.float64), axis=1, keepdims=True) for a in (queries, database)
    )
    scores = q @ x.T
    ids = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, ids, axis=1), ids


def clustered(n, dimension, seed=0, clusters=40, noise=1.0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dimension))
    return (centres[rng.integers(clusters, size=n)] + noise * rng.standard_normal((n, dimension))).astype(np.float32)


@pytest.fixture
def candidates(monkeypatch):
    """Small databases take the way of large ones: float32 candidates, scored again."""
    monkeypatch.setattr(search, "EXACT_BELOW", 0)


QUERIES, DATABASE = clustered(9, 48, seed=1), clustered(600, 48)


def test_rank_is_the_float64_order():
    assert np.array_equal(rank(QUERIES, DATABASE), naive(QUERIES, DATABASE)[1])


@pytest.mark.parametrize("backend", ["torch", "faiss"])
@pytest.mark.parametrize("block", [None, 1, 7, 600])
def test_knn_is_the_head_of_the_full_ranking_on_every_backend_and_block(candidates, backend, block):
    scores, ids = knn(QUERIES, DATABASE, 11, backend=backend, block=block)
    expected_scores, expected = naive(QUERIES, DATABASE)
    assert np.array_equal(ids, expected[:, :11])
    np.testing.assert_allclose(scores, expected_scores[:, :11], atol=1e-13)


def test_no_block_backend_thread_count_or_shard_changes_a_bit(candidates):
    queries, database = clustered(31, 257, seed=3), clustered(700, 257, seed=4)
    scores, ids = knn(queries, database, 13)
    full = search.full_ranking(*as_pair(queries, database), None)
    assert torch.equal(full[0][:, :13], torch.from_numpy(scores))  # two algorithms, the same bits
    for options in ({"backend": "faiss"}, {"block": 5}, {"block": 64, "backend": "faiss"}):
        again = knn(queries, database, 13, **options)
        assert np.array_equal(scores, again[0]) and np.array_equal(ids, again[1])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert np.array_equal(scores, knn(queries, database, 13)[0])
    finally:
        torch.set_num_threads(threads)
    one_by_one = [knn(queries[i : i + 1], database, 13) for i in range(len(queries))]
    assert np.array_equal(scores, np.concatenate([part[0] for part in one_by_one]))


def test_scores_do_not_depend_on_the_order_of_the_dimensions():
    """Every partial sum is exact, so even another order of summation gives the same bits."""
    order = np.random.default_rng(0).permutation(257)
    queries, database = (
        torch.nn.functional.normalize(torch.from_numpy(clustered(40, 257, seed=s)).double()) for s in (1, 2)
    )
    straight = search.products(search.split(queries.clone()), search.split(database.clone()))
    shuffled = search.products(search.split(queries[:, order]), search.split(database[:, order]))
    assert torch.equal(straight, shuffled)
    assert not torch.equal(queries @ database.T, queries[:, order] @ database[:, order].T)  # plain float64 is not
    np.testing.assert_allclose(straight, queries @ database.T, atol=1e-13)


@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_ties_go_to_the_lower_id_even_when_they_outnumber_the_margin(candidates, backend):
    database = DATABASE.copy()
    copies = np.random.default_rng(5).choice(600, 200, replace=False)
    database[copies] = QUERIES[0]  # 200 equal images, of which 10 are wanted
    scores, ids = knn(QUERIES, database, 10, backend=backend)
    assert np.array_equal(ids[0], np.sort(copies)[:10]) and (scores[0] == scores[0, 0]).all()
    assert np.array_equal(ids, rank(QUERIES, database)[:, :10])


def test_neighbours_that_float32_cannot_tell_apart_are_found(candidates):
    """300 images within float32's error of each other around the border of the k nearest."""
    rng = np.random.default_rng(0)
    base = clustered(1, 64)[0]
    query = base[None] + clustered(1, 64, seed=2) / 3  # at an angle: the cosine falls at first order
    near = np.repeat(base[None], 300, axis=0)
    near *= 1 + 2e-7 * rng.integers(0, 2, near.shape).astype(np.float32)
    database = np.concatenate([clustered(400, 64, seed=9), near])
    for backend in ("torch", "faiss"):
        assert np.array_equal(knn(query, database, 20, backend=backend)[1], naive(query, database)[1][:, :20])


def test_a_coarse_float32_product_is_not_trusted(candidates):
    """With matmul precision "medium" the bound is wider than any gap; the whole database is scored."""
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert np.array_equal(knn(QUERIES, DATABASE, 11)[1], naive(QUERIES, DATABASE)[1][:, :11])
    finally:
        torch.set_float32_matmul_precision(before)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 5), st.integers(1, 30), st.integers(1, 8), st.data())
def test_small_integers_full_of_ties(n_queries, n_database, dimension, data):
    k = data.draw(st.integers(1, n_database))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    queries, database = (rng.integers(-1, 2, (n, dimension)).astype(np.float32) for n in (n_queries, n_database))
    queries[:, 0] = database[:, 0] = 1  # no zero rows
    ids = knn(queries, database, k)[1]
    _, unique = np.unique(database, axis=0, return_inverse=True)
    squared = (
        (queries @ database.T) * abs(queries @ database.T) / (database**2).sum(axis=1)
    )  # orders as the cosine, exact
    expected = np.argsort(-squared, axis=1, kind="stable")[:, :k]
    same = (ids == expected) | (np.take_along_axis(squared, ids, 1) == np.take_along_axis(squared, expected, 1))
    assert same.all()
    for row in ids:  # equal images stand in the order of their ids
        for i in range(k - 1):
            assert unique[row[i]] != unique[row[i + 1]] or row[i] < row[i + 1]


@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_the_excluded_image_is_never_a_neighbour(candidates, backend):
    everyone = np.arange(200)
    scores, ids = knn(DATABASE[:200], DATABASE[:200], 5, exclude=everyone, backend=backend)
    assert not (ids == everyone[:, None]).any() and np.isfinite(scores).all()
    with_self = naive(DATABASE[:200], DATABASE[:200])[1]
    assert np.array_equal(ids, [row[row != i][:5] for i, row in enumerate(with_self)])
    some = np.where(everyone < 100, everyone, -1)
    assert np.array_equal(knn(DATABASE[:200], DATABASE[:200], 5, exclude=some)[1][100:], with_self[100:, :5])


def test_a_ranking_leaves_out_the_own_image():
    everyone = np.arange(40)
    ranks = rank(DATABASE[:40], DATABASE[:40], exclude=everyone)
    assert ranks.shape == (40, 39) and not (ranks == everyone[:, None]).any()
    mixed = rank(DATABASE[:40], DATABASE[:40], exclude=np.where(everyone == 3, 3, -1))
    assert mixed.shape == (40, 40) and mixed[3, -1] == 3 and mixed[4, 0] == 4


def test_memory_mapped_databases_are_read_by_blocks(tmp_path, candidates):
    mapped = np.memmap(tmp_path / "descriptors", dtype=np.float32, mode="w+", shape=DATABASE.shape)
    mapped[:] = DATABASE
    mapped.flush()
    mapped = np.memmap(tmp_path / "descriptors", dtype=np.float32, mode="r", shape=DATABASE.shape)
    assert np.array_equal(knn(QUERIES, mapped, 9, block=50)[1], knn(QUERIES, DATABASE, 9)[1])
    assert np.array_equal(rank(QUERIES, mapped, block=50), rank(QUERIES, DATABASE))


def test_the_kind_that_came_in_comes_back():
    as_torch = torch.from_numpy(QUERIES).requires_grad_(), torch.from_numpy(DATABASE)
    scores, ids = knn(*as_torch, 4)
    assert isinstance(ids, torch.Tensor) and ids.dtype == torch.int64 and not scores.requires_grad
    from_numpy = knn(QUERIES[:, ::-1], DATABASE[:, ::-1], 4)  # negative strides
    assert isinstance(from_numpy[1], np.ndarray) and np.array_equal(from_numpy[1], ids.numpy())
    assert isinstance(knn(as_torch[0], DATABASE, 4)[1], torch.Tensor) and isinstance(
        rank(QUERIES, as_torch[1]), np.ndarray
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_the_same_bits(candidates):
    on_gpu = torch.from_numpy(QUERIES).cuda(), torch.from_numpy(DATABASE).cuda()
    for got, expected in zip(knn(*on_gpu, 11), knn(QUERIES, DATABASE, 11), strict=True):
        assert got.is_cuda and np.array_equal(got.cpu().numpy(), expected)
    assert np.array_equal(rank(*on_gpu).cpu().numpy(), rank(QUERIES, DATABASE))


def test_autocast_around_a_search_changes_nothing(candidates):
    close = clustered(600, 48, clusters=1, noise=0.01)  # bfloat16 hardly tells them apart
    queries = close[:9] + QUERIES
    wanted = knn(queries, close, 11)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = knn(queries, close, 11)
    assert np.array_equal(found[1], wanted[1]) and np.array_equal(found[0], wanted[0])


def test_lengths_do_not_matter():
    factors = np.random.default_rng(2).choice([2.0**-60, 0.5, 2.0**30], (len(DATABASE), 1)).astype(np.float32)
    assert np.array_equal(rank(QUERIES * 8, DATABASE * factors), rank(QUERIES, DATABASE))


def bad(value, row=5):
    database = DATABASE.copy()
    database[row] = value
    return database


@pytest.mark.parametrize(
    ("queries", "database", "k", "message"),
    [
        (QUERIES, bad(np.nan), 3, "row 5 holds NaN"),
        (QUERIES, bad(np.inf), 3, "row 5 holds NaN or infinity"),
        (QUERIES, bad(0), 3, "row 5 is zero"),
        (QUERIES * 0, DATABASE, 3, "queries: row 0 is zero"),
        (QUERIES[:, :7], DATABASE, 3, "dimension 48 but queries have 7"),
        (QUERIES, DATABASE, 601, "k is 601"),
        (QUERIES, DATABASE, 0, "k is 0"),
        (QUERIES, DATABASE, 2.0, "k is 2.0"),
        (QUERIES[0], DATABASE, 3, r"shape \(48,\)"),
        (QUERIES[:0], DATABASE, 3, r"shape \(0, 48\)"),
        (QUERIES.astype(np.float64), DATABASE, 3, "float64; wanted float32"),
        (QUERIES, torch.from_numpy(DATABASE).half(), 3, "float16; wanted float32"),
        (QUERIES.tolist(), DATABASE, 3, "are a list"),
    ],
)
def test_what_cannot_be_searched_is_refused(queries, database, k, message):
    with pytest.raises(ValueError, match=message):
        knn(queries, database, k)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="backend is 'annoy'"):
        knn(QUERIES, DATABASE, 3, backend="annoy")
    with pytest.raises(ValueError, match="k is 600"):
        knn(QUERIES, DATABASE, 600, exclude=np.zeros(9, int))
    with pytest.raises(ValueError, match="own ids"):
        knn(QUERIES, DATABASE, 3, exclude=np.zeros(8, int))
    with pytest.raises(ValueError, match="own ids go from 0 to 600"):
        rank(QUERIES, DATABASE, exclude=np.array([600] + [0] * 8))
    with pytest.raises(ValueError, match="block is -1"):
        rank(QUERIES, DATABASE, block=-1)
