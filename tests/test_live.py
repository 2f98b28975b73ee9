"""Live use: an approximate index agrees with exact search where it should, and follows its gallery."""

import re
from pathlib import Path

import numpy as np
import pytest

from ssr_lib.network import RetrievalNet
from ssr_lib.rerank import augment_database, global_rerank
from ssr_lib.scale.live import FILE, GRAPH, LiveIndex
from ssr_lib.search import knn

K, ALPHA = 3, 0.5
DOCS = Path(__file__).resolve().parents[1] / "docs" / "live.md"


def pictures(n, seed=0):
    """Groups of ten alike: (n, 32), of unit length."""
    rng = np.random.default_rng(seed)
    x = np.random.default_rng(9).normal(size=(60, 32))[np.arange(n) % 60] + 0.5 * rng.normal(size=(n, 32))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


DATABASE, QUERIES, NAMES = pictures(600), pictures(12, seed=1), [f"{i}.jpg" for i in range(600)]
GALLERY = dict(zip(NAMES, DATABASE, strict=True))


def found(live, query, **options):
    return [name for name, _ in live.search(query, 10, effort=8, **options)]


@pytest.mark.parametrize("kind", [GRAPH, "IVF15,PQ8x4"])
def test_pictures_come_and_go_and_lists_are_those_of_exact_search_and_of_global_rerank(kind, tmp_path):
    live, there = LiveIndex.build(GALLERY, K, ALPHA, kind), GALLERY
    more = {f"new {i}": row for i, row in enumerate(pictures(70, seed=2))}
    more[NAMES[1]] = pictures(1, seed=3)[0]  # an old name, another picture
    for new, gone in ((more, NAMES[5:300:7]), ({}, ["new 3", NAMES[0]]), ({"new 4": more["new 4"]}, ["new 4"])):
        live.update(new, gone)
        there = {name: row for name, row in there.items() if name not in gone} | new
    live.save(tmp_path)
    live = LiveIndex.load(tmp_path)
    rows = live.rows()
    database = np.array([there[name] for name in rows])
    assert rows.keys() == there.keys()
    augmented = live.vectors["augmented"][list(rows.values())]
    np.testing.assert_allclose(augmented, augment_database(database, K, ALPHA).rounds[0], atol=1e-7)
    names, exact = np.array([*rows]), knn(QUERIES, database, 10)
    ranks = global_rerank(QUERIES, database, K, ALPHA).ranks
    for i, query in enumerate(QUERIES):
        assert found(live, query, rerank=False) == names[exact[1][i]].tolist()
        assert found(live, query) == names[ranks[i, :10]].tolist()
    assert live.search(QUERIES[0], 1, rerank=False)[0][1] == exact[0][0, 0]
    own = global_rerank(database[:1], database, K, ALPHA, query_ids=np.array([0])).ranks[0, :10]
    assert found(live, database[0], own=names[0]) == names[own].tolist()


def test_what_cannot_be_is_refused_and_named(tmp_path):
    live = LiveIndex.build(GALLERY, K, made_by="one network")
    for told, call in (
        ("k is 3; wanted an integer from 1 to 2", lambda: live.update({}, NAMES[K:])),
        (r"new has shape \(7,\); the index was made", lambda: live.update({"new": DATABASE[0, :7]}, NAMES[:9])),
        ("row 0 holds NaN", lambda: live.update({NAMES[0]: DATABASE[0] * np.nan}, NAMES[:9])),
        ("gone names 1.jpg;", lambda: live.update({}, "1.jpg")),
        ("gone names 600.jpg;", lambda: live.update({}, ["600.jpg"])),
        (r"the query has shape \(7,\)", lambda: live.search(DATABASE[0, :7])),
        ("top is 450; wanted .* 1 to 400", lambda: live.search(DATABASE[0], 450)),
        ("effort is 0; wanted .* from 1", lambda: live.search(DATABASE[0], effort=0)),
        ("k is 450; wanted .* 1 to 400", lambda: LiveIndex.build(GALLERY, 450)),
    ):
        with pytest.raises(ValueError, match=told):
            call()
    assert [*live.rows()] == NAMES
    live.save(tmp_path)
    with pytest.raises(ValueError, match=rf"{FILE} was made by one network, the query by another; `ssr index` makes"):
        LiveIndex.load(tmp_path, "another")
    content = bytearray((tmp_path / FILE).read_bytes())
    content[len(content) // 2] ^= 1
    np.savez(tmp_path / "foreign.npz", DATABASE)
    np.savez(tmp_path / "older.npz", **{name: x for name, x in np.load(tmp_path / FILE).items() if name != "near"})
    made = ((tmp_path / name).read_bytes() for name in ("foreign.npz", "older.npz"))
    for damaged in (bytes(content), bytes(content[:-9]), *made):
        (tmp_path / FILE).write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{FILE} is damaged"):
            LiveIndex.load(tmp_path)
        assert LiveIndex.follow(tmp_path, GALLERY, "one network", K, 0.3).names == NAMES


def test_the_example_of_a_vector_database_gives_the_ranks_of_global_rerank():
    pytest.importorskip("lancedb", reason="pip install .[lancedb]")
    exec(re.search(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[1], names := {})
    assert names["found"] == names["ranks"][:20].tolist(), "of the last query; the example says it of each"


def test_a_network_as_onnx_gives_the_descriptors_of_torch_at_two_sizes(tmp_path):
    pytest.importorskip("onnxscript", reason="pip install .[onnx]", exc_type=ImportError)
    from ssr_lib.scale.onnx import export

    net = RetrievalNet(head="product", options={"initial_gain": 0.5}, descriptor_dim=64)
    assert export(net, tmp_path / "net.onnx") < 1e-5 and (tmp_path / "net.onnx").stat().st_size > 10**6
