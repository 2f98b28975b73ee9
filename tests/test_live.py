"""Live use: an approximate index that agrees with exact search where it should, follows its gallery, stays off figures."""

import re
from pathlib import Path

import numpy as np
import pytest

from ssr_lib import metrics
from ssr_lib.network import RetrievalNet
from ssr_lib.rerank import augment_database, global_rerank
from ssr_lib.scale.live import FILE, LiveIndex, refuse_for_figures
from ssr_lib.search import knn

K, ALPHA = 3, 0.5
DOCS = Path(__file__).resolve().parents[1] / "docs" / "live.md"


def pictures(n, seed=0):
    """Groups of ten alike: (n, 32), of unit length."""
    rng = np.random.default_rng(seed)
    x = np.random.default_rng(9).normal(size=(60, 32))[np.arange(n) % 60] + 0.5 * rng.normal(size=(n, 32))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


DATABASE, QUERIES, NAMES = pictures(600), pictures(12, seed=1), [f"{i}.jpg" for i in range(600)]


def build(kind="hnsw"):
    return LiveIndex.build(NAMES, DATABASE, K, ALPHA, kind=kind)


def found(live, query, **options):
    return [name for name, _ in live.search(query, 10, effort=8, **options)]


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_lists_are_those_of_exact_search_and_of_global_rerank_and_recall_says_so(kind):
    live = build(kind)
    exact, ranks = knn(QUERIES, DATABASE, 10), global_rerank(QUERIES, DATABASE, K, ALPHA).ranks
    for i, query in enumerate(QUERIES):
        assert found(live, query, rerank=False) == [NAMES[j] for j in exact[1][i]]
        assert found(live, query) == [NAMES[j] for j in ranks[i, :10]]
    assert live.search(QUERIES[0], 1, rerank=False)[0][1] == exact[0][0, 0]
    own = global_rerank(DATABASE[:1], DATABASE, K, ALPHA, query_ids=np.array([0])).ranks[0, :10]
    assert found(live, DATABASE[0], own=NAMES[0]) == [NAMES[j] for j in own]
    for shortlist in (12, 400):
        measured = live.measure(QUERIES, 10, shortlist=shortlist)
        lists = [[name for name, _ in live.search(query, 10, shortlist=shortlist)] for query in QUERIES]
        right = [len({NAMES[j] for j in row[:10]} & set(names)) for row, names in zip(ranks, lists, strict=True)]
        assert measured["recall@10"] == pytest.approx(np.mean(right) / 10)
        assert measured["ms"] > 0 and measured["bytes"] > 2 * DATABASE.nbytes


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_after_adding_and_removing_an_index_is_the_one_built_anew_and_survives_the_disk(kind, tmp_path):
    live, more = build(kind), pictures(70, seed=2)
    live.add([f"new {i}" for i in range(70)], more)
    live.remove([*NAMES[5:300:7], "new 3"])
    live.save(tmp_path)
    live = LiveIndex.load(tmp_path)
    there = dict(zip([*NAMES, *(f"new {i}" for i in range(70))], [*DATABASE, *more], strict=True))
    database = np.array([there[name] for name in live.names])
    assert len(live.names) == 600 + 70 - len(NAMES[5:300:7]) - 1
    np.testing.assert_array_equal(live.augmented, augment_database(database, K, ALPHA).rounds[0])
    for query, ranks in zip(QUERIES, global_rerank(QUERIES, database, K, ALPHA).ranks, strict=True):
        assert found(live, query) == [live.names[j] for j in ranks[:10]]


def test_what_cannot_be_is_refused_and_named(tmp_path):
    live = build()
    with pytest.raises(ValueError, match=r"names that are not there yet"):
        live.add(NAMES[:1], DATABASE[:1])
    with pytest.raises(ValueError, match=r"cannot go: unknown"):
        live.remove(["nobody.jpg"])
    with pytest.raises(ValueError, match=r"shape \(7,\), the index \(600, 32\)"):
        live.search(DATABASE[0, :7])
    with pytest.raises(ValueError, match=r"stands under no reported figure"):
        metrics.evaluate(live, None)
    live.save(tmp_path)
    with pytest.raises(ValueError, match=r"stands under no reported figure"):
        refuse_for_figures(tmp_path)
    content = bytearray((tmp_path / FILE).read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (bytes(content), bytes(content[:-9])):
        (tmp_path / FILE).write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{FILE} is damaged"):
            LiveIndex.load(tmp_path)


def test_the_example_of_a_vector_database_gives_the_ranks_of_global_rerank():
    pytest.importorskip("lancedb", reason="pip install .[lancedb]")
    exec(re.search(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[1], {})


@pytest.mark.parametrize("head", ["plain", "product"])
def test_a_network_as_onnx_gives_the_descriptors_of_torch_at_two_sizes(head, tmp_path):
    pytest.importorskip("onnxruntime", reason="pip install .[onnx]")
    from ssr_lib.scale.onnx import export

    net = RetrievalNet(head=head, options={"initial_gain": 0.5} if head == "product" else {}, descriptor_dim=64)
    assert export(net, tmp_path / "net.onnx") < 1e-5 and (tmp_path / "net.onnx").stat().st_size > 10**6
