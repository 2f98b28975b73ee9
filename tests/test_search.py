"""search: exact neighbours, the same whatever the block, the threads, the kind of array; ties by id."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssr_lib import search
from ssr_lib.rerank import none
from ssr_lib.search import codes, knn, prepare, prepared, rank

LENGTHS = np.random.default_rng(2).choice([2.0**-60, 0.5, 2.0**30], (600, 1)).astype(np.float32)
ROW_5 = np.arange(600)[:, None] == 5


def naive(queries, database):
    q, x = (a / np.linalg.norm(a.astype(np.float64), axis=1, keepdims=True) for a in (queries, database))
    scores = q @ x.T
    ids = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, ids, axis=1), ids


def clustered(n, dimension, seed=0, clusters=40, noise=1.0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dimension))
    return (centres[rng.integers(clusters, size=n)] + noise * rng.standard_normal((n, dimension))).astype(np.float32)


def assert_same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))


QUERIES, DATABASE = clustered(9, 48, seed=1), clustered(600, 48) * LENGTHS


@pytest.fixture(params=["faiss", "torch"])
def backend(request, monkeypatch):
    monkeypatch.setattr(search, "WITH_FAISS", request.param == "faiss")


@pytest.mark.parametrize("k", [1, 11, 50, 600])  # the last two from scores of the whole database
def test_knn_is_the_head_of_the_float64_order(backend, k):
    scores, ids = knn(QUERIES, DATABASE, k)
    expected_scores, expected = naive(QUERIES, DATABASE)
    assert np.array_equal(ids, expected[:, :k]) and np.array_equal(rank(QUERIES, DATABASE), expected)
    np.testing.assert_allclose(scores, expected_scores[:, :k], atol=1e-7)


def test_scores_err_less_than_promised_and_no_block_thread_or_way_changes_a_bit(backend, monkeypatch, request):
    queries, database = clustered(31, 257, seed=3), clustered(700, 257, seed=4)
    scores, ids = knn(queries, database, 13)
    everything = knn(queries, database, 700)
    assert np.abs(everything[0] - naive(queries, database)[0]).max() < 2 * np.sqrt(257) * 2.0**-27 / 4
    assert np.array_equal(everything[0][:, :13], scores)  # two algorithms, the same bits
    threads = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    torch.set_num_threads(1)
    for numbers, piece, tile in ((1, 1, 1), (3000, 2000, 100), (10**6, 257 * 5, 7)):
        monkeypatch.setattr(codes, "TILE", tile)
        for module in (codes, search):
            monkeypatch.setattr(module, "NUMBERS", numbers)
        for module in (codes, prepared):
            monkeypatch.setattr(module, "PIECE", piece)
        assert_same(knn(queries, database, 13), (scores, ids))
        assert np.array_equal(rank(queries, database), everything[1])


@pytest.mark.parametrize("count", [300, 24])  # more than the candidates, and no more
def test_neighbours_that_float32_cannot_tell_apart_are_those_of_the_full_ranking(backend, count):
    """Images within float32's error of each other around the border of the 20 nearest."""
    rng, base = np.random.default_rng(0), clustered(1, 64)[0]
    query = base[None] + clustered(1, 64, seed=2) / 3  # at an angle: the cosine falls at first order
    near = np.repeat(base[None], count, axis=0)
    near *= 1 + 2e-7 * rng.integers(0, 2, near.shape).astype(np.float32)
    database = np.concatenate([clustered(400, 64, seed=9), near])
    scores, ids = knn(query, database, 20)
    assert np.array_equal(ids, rank(query, database)[:, :20])
    np.testing.assert_allclose(scores, naive(query, database)[0][:, :20], atol=1e-7)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 5), st.integers(1, 300), st.integers(1, 8), st.data())
def test_small_integers_full_of_ties(n_queries, n_database, dimension, data):
    k, rng = data.draw(st.integers(1, n_database)), np.random.default_rng(data.draw(st.integers(0, 1000)))
    queries, database = (rng.integers(-1, 2, (n, dimension)).astype(np.float32) for n in (n_queries, n_database))
    queries[:, 0] = database[:, 0] = 1  # no zero rows
    ids, products = knn(queries, database, k)[1], queries @ database.T
    squared = products * abs(products) / (database**2).sum(axis=1)  # orders as the cosine, exact
    assert np.array_equal(np.take_along_axis(squared, ids, 1), -np.sort(-squared, axis=1)[:, :k])
    kinds = np.unique(database, axis=0, return_inverse=True)[1][ids]
    assert (ids[:, 1:] > ids[:, :-1])[kinds[:, 1:] == kinds[:, :-1]].all(), "equal images stand by their ids"


def test_the_own_image_is_never_a_neighbour_and_leaves_a_ranking(backend):
    images, everyone = DATABASE[:300], np.arange(300)
    scores, ids = knn(images, images, 5, exclude=everyone)
    with_self = rank(images, images)
    without = np.array([row[row != i] for i, row in enumerate(with_self)])
    assert np.array_equal(ids, without[:, :5]) and np.isfinite(scores).all()
    assert np.array_equal(rank(images, images, exclude=everyone), without)
    mixed = rank(images, images, exclude=np.where(everyone < 100, everyone, -1))
    assert mixed[3].tolist() == [*without[3], 3] and np.array_equal(mixed[100:], with_self[100:])


@pytest.mark.parametrize("rows", [DATABASE, DATABASE / np.linalg.norm(DATABASE, axis=1, keepdims=True)])
def test_mapped_files_are_read_by_blocks(tmp_path, backend, monkeypatch, rows):
    np.save(tmp_path / "descriptors.npy", rows)
    mapped = np.load(tmp_path / "descriptors.npy", mmap_mode="r")
    monkeypatch.setattr(search, "NUMBERS", 48 * 50)
    assert not isinstance(prepare(mapped).data, torch.Tensor) and none.rerank(QUERIES, mapped, None).database is None
    assert_same(knn(QUERIES, mapped, 9), knn(QUERIES, rows, 9))
    assert np.array_equal(rank(QUERIES, mapped), rank(QUERIES, rows))


def test_the_kind_that_came_in_comes_back():
    queries, database = torch.from_numpy(QUERIES).requires_grad_(), torch.from_numpy(DATABASE)
    scores, ids = knn(queries, database, 4)
    assert isinstance(ids, torch.Tensor) and ids.dtype == torch.int64 and not scores.requires_grad
    from_numpy = knn(QUERIES[:, ::-1], DATABASE[:, ::-1], 4)[1]  # negative strides
    assert isinstance(from_numpy, np.ndarray) and np.array_equal(from_numpy, ids.numpy())
    prepared = prepare(DATABASE)
    assert prepared.data.data_ptr() == DATABASE.ctypes.data and prepare(prepared) is prepared  # not a copy, once
    assert_same(knn(QUERIES, prepared, 4), knn(QUERIES, DATABASE, 4))


@pytest.mark.parametrize("coarse", [False, True])
def test_autocast_and_coarse_products_change_nothing(backend, request, coarse):
    request.addfinalizer(lambda: torch.set_float32_matmul_precision("highest"))  # turns both switches off
    close = clustered(600, 48, clusters=1, noise=0.1)  # bfloat16 hardly tells them apart
    queries = close[:9] + 0.1 * QUERIES
    wanted = knn(queries, close, 11)
    if coarse:
        torch.backends.cuda.matmul.fp32_precision = "tf32"  # the new switch
        torch.set_float32_matmul_precision("medium")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(knn(queries, close, 11), wanted)


@pytest.mark.parametrize("options,message", [
    ({"database": np.where(ROW_5, np.float32(np.nan), DATABASE)}, "database descriptors: row 5 holds NaN or infinity"),
    ({"database": np.where(ROW_5, np.float32(0), DATABASE)}, "row 5 is zero"),
    ({"queries": QUERIES[:, :7]}, "dimension 48 but queries have 7"), ({"k": 601}, "k is 601"),
    ({"queries": QUERIES[:0]}, r"shape \(0, 48\)"),
    ({"queries": QUERIES.astype(np.float64)}, "float64; wanted float32"),
    ({"k": 600, "exclude": np.zeros(9, int)}, "k is 600"),
    ({"exclude": [600] + [0] * 8}, "wanted 9 integers from -1 .none. to 599"),
])  # fmt: skip
def test_what_cannot_be_searched_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        knn(**{"queries": QUERIES, "database": DATABASE, "k": 3} | options)
