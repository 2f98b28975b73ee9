"""On a GPU: search and re-ranking to the bits of the CPU, descriptors and a training to its rounding."""

import importlib

import numpy as np
import pytest
import torch
from test_search import clustered
from test_train import CONFIG, LABELS, make_maps, make_net

from ssr_lib.extract import describe_maps
from ssr_lib.rerank import first_ranking
from ssr_lib.search import knn, prepare, rank
from ssr_lib.train import train_head

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
QUERIES, DATABASE = clustered(17, 96, seed=1), clustered(700, 96, seed=2)
RERANKERS = {"alpha_qe_dba": {"k": 5, "exponent": 3.0}, "superglobal": {"k": 5}, "gfr": {"k": 5, "alpha": 0.5}}
RERANKERS |= {"adaptive": {}, "k_reciprocal": {"k": 10}, "diffusion": {"neighbours": 10, "truncation": 200}}
RERANKERS |= {"dqe": {"k": 5}}


def on(device, *arrays):
    return [prepare(array, device=device) for array in arrays]


@pytest.mark.parametrize("k", [1, 10, 50, 700])
def test_neighbours_and_rankings_are_those_of_the_cpu_to_the_bit(k):
    for found, wanted in zip(knn(*on("cuda", QUERIES, DATABASE), k), knn(QUERIES, DATABASE, k), strict=True):
        assert np.array_equal(np.asarray(found), wanted)
    assert np.array_equal(np.asarray(rank(*on("cuda", QUERIES, DATABASE))), rank(QUERIES, DATABASE))


@pytest.mark.parametrize("name", RERANKERS)
def test_a_reranker_ranks_as_on_the_cpu(name):
    found = []
    for device in ("cpu", "cuda"):
        queries, database = on(device, QUERIES, DATABASE)
        rerank = importlib.import_module(f"ssr_lib.rerank.{name}").rerank
        found.append(rerank(queries, database, first_ranking(queries, database), **RERANKERS[name]))
    assert np.array_equal(np.asarray(found[1].ranks), np.asarray(found[0].ranks))
    np.testing.assert_allclose(np.asarray(found[1].scores), np.asarray(found[0].scores), atol=1e-5)


@pytest.mark.parametrize("head", ["plain", "product", "attention"])
def test_descriptors_and_a_training_are_those_of_the_cpu_up_to_rounding(head, tmp_path):
    curves, described = [], []
    for device in ("cpu", "cuda"):
        net = make_net(head, protocol="frozen").to(device)
        described.append(describe_maps(net, make_maps("frozen")))
        curve = train_head(net, make_maps("frozen"), LABELS, CONFIG, directory=tmp_path / device, progress=False)
        curves.append([row["loss"] for row in curve])
    np.testing.assert_allclose(described[1], described[0], atol=1e-4)
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-2)
