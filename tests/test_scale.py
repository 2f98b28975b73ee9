"""Past one machine: shards that are checked, and a join that equals one machine to the bit, by whatever engine."""

import os
import signal
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from ssr_lib import rerank
from ssr_lib.rerank._augmented import NeighbourSum
from ssr_lib.scale import join
from ssr_lib.scale.descriptors import describe_pictures, store_rows
from ssr_lib.scale.engine import on_ray, one_machine
from ssr_lib.search import knn

GFR = NeighbourSum(5, 0.4)


def draw(dtype="float32"):
    """Queries (30, 48) and database (400, 48) with many equal rows, as a store of this dtype gives them back."""
    x = np.random.default_rng(0).standard_normal((400, 48)).astype(np.float32)
    x[200:260] = x[:60]
    return [rows.astype(dtype).astype(np.float32) for rows in (np.concatenate([x[:10], x[190:210] + 0.1]), x)]


def stored(folder, dtype="float32", per_shard=70):
    sizes = zip("qd", draw(), (8, per_shard), strict=True)
    return [store_rows(folder / name, x, n, dtype=dtype) for name, x, n in sizes]


def same(found, scores, ids):
    return np.array_equal(found[:], np.stack([scores, ids], axis=1)[:, :, : found.shape[2]])


@pytest.mark.parametrize("dtype,per_shard", [("float32", 70), ("float16", 70), ("float32", 400)])
def test_the_join_and_gfr_of_all_weights_equal_one_machine_to_the_bit(tmp_path, dtype, per_shard):
    (q, d), (queries, database) = draw(dtype), stored(tmp_path, dtype, per_shard)
    for own in (None, np.r_[np.arange(10), np.full(20, -1)]):
        found = join.knn_join(queries, database, 20, tmp_path / f"near-{own is None}", own=own)
        assert same(found, *knn(q, d, 20, exclude=own))
        for how in (GFR, NeighbourSum(3, 0.5, "rank", rounds=2), NeighbourSum(4, 1.0, "power", 3.0)):
            found = join.global_rerank(queries, database, how, 30, tmp_path / f"{how.k}-{own is None}", own=own)
            options = {"weighting": how.weighting, "power": how.power, "rounds": how.rounds, "query_ids": own}
            wanted = rerank.global_rerank(q, d, how.k, how.alpha, **options)
            assert same(found, wanted.scores, wanted.ranks)


@pytest.mark.parametrize("told,call", [
    ("own ids are torch.float64", lambda q, d, at: join.knn_join(d, d, 9, at, own=np.arange(400) + 0.5)),
    ("400 integers from -1", lambda q, d, at: join.knn_join(d, d, 9, at, own=np.arange(400) - 2)),
    ("wanted 30 integers", lambda q, d, at: join.global_rerank(q, d, GFR, 9, at, own=np.arange(9))),
    ("queries have 7", lambda q, d, at: join.global_rerank(store_rows(at.parent, q[:][:, :7], 8), d, GFR, 9, at)),
    ("top is 401", lambda q, d, at: join.global_rerank(q, d, GFR, 401, at)),
    ("k is 400", lambda q, d, at: join.global_rerank(q, d, NeighbourSum(400, 0.4), 9, at)),
    ("per_shard is -5", lambda q, d, at: store_rows(at, d[:], -5)),
    ("int32 rows .* float32 or float16", lambda q, d, at: store_rows(at, d[:], 70, dtype="int32")),
    ("wanted 1 row or more", lambda q, d, at: store_rows(at, d[:0], 70)),
    (r"pip install .\[ray\]", lambda q, d, at: [*on_ray()(str, [1])]),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_made(tmp_path, told, call):
    with pytest.raises(ValueError, match=told), mock.patch.dict("sys.modules", {"ray": None}):
        call(*stored(tmp_path), tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_shards_come_in_any_order_and_a_killed_join_goes_on(tmp_path):
    (q, d), (queries, database), done = draw(), stored(tmp_path), []

    def counted(work, pieces):
        done.extend(pieces)
        return one_machine(work, pieces[::-1])

    # All 6 shards of two blocks, a part of the third, and no more.
    join.knn_join(queries, database, 9, tmp_path / "near", engine=lambda work, ids: one_machine(work, ids[:15][::-1]))
    assert same(join.knn_join(queries, database, 9, tmp_path / "near", engine=counted), *knn(q, d, 9))
    assert len(done) == 2 * 6  # two of the four blocks lay on disk


def test_a_missing_or_damaged_shard_is_named_and_made_again_alone(tmp_path):
    queries, database = stored(tmp_path)
    files = sorted(Path(database.folder).glob("shard-*"))
    files[0].unlink()
    files[3].write_bytes(files[3].read_bytes()[:-1] + b"x")
    with pytest.warns(match=f"{files[3]} is damaged"):
        database.missing()
    with pytest.raises(ValueError, match=r"2 of 6 shards are missing"):
        join.knn_join(queries, database, 9, tmp_path / "near")
    kept = files[1].stat().st_mtime_ns
    with pytest.warns(match="damaged"):
        again = stored(tmp_path)[1]
    assert np.array_equal(again[:], draw()[1]) and files[1].stat().st_mtime_ns == kept
    with mock.patch("ssr_lib.store.hash_file", side_effect=AssertionError("verified rows are read again")):
        again.name()


def test_pictures_of_the_same_names_in_another_folder_are_not_taken_for_those_described(tmp_path):
    described, describe = mock.Mock(return_value=(None, {})), mock.Mock(return_value=draw()[1][:1])
    what = mock.Mock(descriptor_dim=48), ["1.jpg", "2.jpg"], None, 1
    with mock.patch.multiple("ssr_lib.scale.descriptors", descriptors_of=described, describe=describe):
        describe_pictures(tmp_path, *what, root=tmp_path / "one")
        os.makedirs(tmp_path / "one" / "2.jpg")  # something lies there now
        describe_pictures(tmp_path, *what, root=tmp_path / "one")
        assert [call.args[1] for call in describe.call_args_list] == [["1.jpg"], ["2.jpg"], ["2.jpg"]]
        with pytest.raises(ValueError, match=r"shard-.*safetensors was made by something else: data is .* there"):
            describe_pictures(tmp_path, *what, root=tmp_path / "other")


def test_gfr_by_two_workers_of_ray_one_killed_in_the_middle_equals_one_machine(tmp_path):
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install .[ray]")
    (q, d), (queries, database) = draw(), stored(tmp_path)

    def deadly(work, pieces, mark=tmp_path / "killed"):
        def once(piece):
            if piece == pieces[len(pieces) // 2] and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return work(piece)

        return on_ray(2)(once, pieces)

    try:
        found = join.global_rerank(queries, database, GFR, 30, tmp_path / "gfr", engine=deadly)
    finally:
        ray.shutdown()
    wanted = rerank.global_rerank(q, d, GFR.k, GFR.alpha)
    assert same(found, wanted.scores, wanted.ranks) and (tmp_path / "killed").exists()
