"""Past one machine: shards that are checked, and a join that equals one machine to the bit, by whatever engine."""

import os
import shutil
import signal
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from ssr_lib import rerank
from ssr_lib.rerank._augmented import NeighbourSum
from ssr_lib.scale import join
from ssr_lib.scale.descriptors import Shards, describe_pictures, store_rows
from ssr_lib.scale.engine import on_ray, one_machine
from ssr_lib.search import knn


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
def test_the_join_gfr_and_query_expansion_equal_one_machine_to_the_bit(tmp_path, dtype, per_shard):
    (q, d), (queries, database) = draw(dtype), stored(tmp_path, dtype, per_shard)
    for own in (None, np.r_[np.arange(10), np.full(20, -1)]):
        found = join.knn_join(queries, database, 20, tmp_path / f"near-{own is None}", own=own)
        assert same(found, *knn(q, d, 20, exclude=own))
        for how in (NeighbourSum(5, 0.4), NeighbourSum(3, 0.5, "rank", rounds=2)):
            found = join.global_rerank(queries, database, how, 30, tmp_path / f"{how.k}-{own is None}", own=own)
            options = {"weighting": how.weighting, "rounds": how.rounds, "query_ids": own}
            wanted = rerank.global_rerank(q, d, how.k, how.alpha, **options)
            assert same(found, wanted.scores, wanted.ranks)
    power = NeighbourSum(4, 1.0, "power", 3.0)
    expanded = join.refine(queries, database, power, tmp_path / "qe")
    assert np.array_equal(expanded[:], rerank.alpha_query_expansion(q, d, 4, 3.0))
    augmented = join.augment_database(database, power, tmp_path / "dba")
    assert np.array_equal(augmented[:], rerank.database_augmentation(d, 4, 3.0))


def test_shards_come_in_any_order_and_a_killed_join_goes_on(tmp_path):
    (q, d), (queries, database), done = draw(), stored(tmp_path), []

    def killed(work, pieces):
        for piece in pieces[:15][::-1]:  # all 6 shards of two blocks, and a part of the third
            yield piece, work(piece)
        raise KeyboardInterrupt

    def counted(work, pieces):
        done.extend(pieces)
        return one_machine(work, pieces[::-1])

    with pytest.raises(KeyboardInterrupt):
        join.knn_join(queries, database, 9, tmp_path / "near", engine=killed)
    assert same(join.knn_join(queries, database, 9, tmp_path / "near", engine=counted), *knn(q, d, 9))
    assert len(done) == 2 * 6  # two of the four blocks lay on disk


def test_a_missing_damaged_or_foreign_shard_is_named_and_made_again_alone(tmp_path):
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
    other = store_rows(tmp_path / "other", draw()[1], 70, model="another network")
    foreign = shutil.copy(next(Path(other.folder).glob("shard-*")), database.folder)
    with pytest.raises(ValueError, match=f'{foreign} was made by something else: model is "another network" there'):
        database.missing()
    with pytest.raises(ValueError, match='stored is "float32" there, "float16" now'):
        store_rows(tmp_path / "other", draw()[1], 70, dtype="float16", model="another network")


def test_pictures_of_the_same_names_in_another_folder_are_not_taken_for_those_described(tmp_path):
    made = {"descriptors_of": mock.Mock(return_value=(None, {})), "describe": mock.Mock(return_value=draw()[1][:2])}
    what = mock.Mock(descriptor_dim=48), ["1.jpg", "2.jpg"], None, 2
    with mock.patch.multiple("ssr_lib.scale.descriptors", **made):
        describe_pictures(tmp_path, *what, root=tmp_path / "one")
        with pytest.raises(ValueError, match=r"data is .* there"):
            describe_pictures(tmp_path, *what, root=tmp_path / "other")


def test_two_workers_of_ray_one_killed_in_the_middle_give_the_same(tmp_path):
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
        found = join.knn_join(queries, database, 30, tmp_path / "near", engine=deadly)
        (tmp_path / "killed").unlink()
        copy = Shards(tmp_path / "copy", {}, (400, 48), "float32", 70)
        copy.fill(lambda shard: d[copy.rows(shard)], deadly)
    finally:
        ray.shutdown()
    assert same(found, *knn(q, d, 30)) and np.array_equal(copy[:], d) and (tmp_path / "killed").exists()
