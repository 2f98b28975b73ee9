"""Rows on disk are trusted only while their checksum, their source and their maker are the recorded ones."""

import os
import tracemalloc
from contextlib import nullcontext

import numpy as np
import pytest

from ssr_lib.files import digest
from ssr_lib.store import ShardedArray, load_sound, save_sound, stacked

ROWS = np.arange(50, dtype=np.float32).reshape(10, 5)
MADE_BY = {"model": "a", "scales": (1.0, 2.0)}


def store(directory, made_by=MADE_BY, items=None, shard_size=4):
    return ShardedArray(directory, made_by, items or [f"file {i}" for i in range(10)], (5,), np.float32, shard_size)


def write(array, shards=(0, 1, 2), failed=None):
    array.prepare()
    for shard in shards:
        array.write(shard, ROWS[array.shards[shard]], failed if shard == 1 else None)


def test_shards_become_one_memory_mapped_array_and_disappear(tmp_path):
    array = store(tmp_path)
    assert array.open() is None and array.missing(retry_failed=False) == [0, 1, 2]
    write(array)
    joined, failed = array.finish()
    assert isinstance(joined, np.memmap) and not joined.flags.writeable and failed == {}
    np.testing.assert_array_equal(joined, ROWS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["array.json", "array.npy", "made_by.json"]
    np.testing.assert_array_equal(store(tmp_path).open()[0], ROWS)


def test_a_finished_array_of_a_full_study_is_written_row_by_row_equal_to_numpy(tmp_path):
    write(store(tmp_path))
    store(tmp_path).finish()
    np.save(tmp_path / "numpy.npy", ROWS)
    np.testing.assert_array_equal(np.load(tmp_path / "array.npy"), np.load(tmp_path / "numpy.npy"))


def test_only_missing_shards_are_asked_for(tmp_path):
    write(store(tmp_path), shards=(0, 2))
    assert store(tmp_path).missing(retry_failed=False) == [1]
    with pytest.raises(RuntimeError, match=r"shard-00001\.npy is missing"):
        store(tmp_path).finish()


def test_asking_what_is_missing_holds_the_rows_of_one_shard_at_a_time(tmp_path):
    rows = np.ones((1000, 256), np.float32)  # 1 MB
    array = ShardedArray(tmp_path, MADE_BY, [str(i) for i in range(8000)], (256,), np.float32, 1000)
    array.prepare()
    for shard in range(7):
        array.write(shard, rows)
    tracemalloc.start()
    try:
        assert array.missing() == [7]
        assert tracemalloc.get_traced_memory()[1] < 1.5 * rows.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "no json", "half json", "other dtype"])
def test_damaged_shard_is_asked_for_again(tmp_path, damage):
    write(store(tmp_path))
    path = tmp_path / "shard-00001.npy"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-3] ^= 1
        path.write_bytes(content)
    elif damage in ("cut", "empty"):
        path.write_bytes(content[: len(content) - 8] if damage == "cut" else b"")
    elif damage == "no json":
        path.with_suffix(".json").unlink()
    elif damage == "half json":
        path.with_suffix(".json").write_text(path.with_suffix(".json").read_text()[:20])
    else:
        np.save(path, ROWS[4:8].astype(np.float64))
    told = nullcontext() if "json" in damage else pytest.warns(UserWarning, match="shard 1 is damaged")
    with told:
        assert store(tmp_path).missing() == [1]


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text('{"model": "a", "sc')])
def test_rows_of_an_unknown_maker_do_not_count(tmp_path, damage):
    write(store(tmp_path))
    store(tmp_path).finish()
    damage(tmp_path / "made_by.json")
    other = store(tmp_path, made_by={"model": "b"})
    with pytest.warns(UserWarning, match="nothing says what made the rows there"):
        assert other.open() is None and other.missing() == [0, 1, 2]
    other.prepare()
    assert other.open() is None and other.missing() == [0, 1, 2], "known now, but nothing is made yet"


@pytest.mark.parametrize("record", ['{"shards": [1, 2, 3]}', '{"shards": [{}, {}, {}]}', '{"shards": 3}', "[]"])
def test_a_malformed_record_of_the_whole_is_no_record(tmp_path, record):
    write(store(tmp_path))
    store(tmp_path).finish()
    (tmp_path / "array.json").write_text(record)
    assert store(tmp_path).open() is None and store(tmp_path).missing() == [0, 1, 2]


def test_damage_in_the_finished_array_costs_one_shard_only(tmp_path):
    write(store(tmp_path))
    store(tmp_path).finish()
    content = bytearray((tmp_path / "array.npy").read_bytes())
    content[-5 * 4 * 4] ^= 1  # a bit of row 6: shard 1
    (tmp_path / "array.npy").write_bytes(content)
    array = store(tmp_path)
    with pytest.warns(UserWarning, match="shard 1 is damaged"):
        assert array.open() is None and array.missing() == [1]
    write(array, shards=(1,))
    np.testing.assert_array_equal(array.finish()[0], ROWS)


def test_changed_source_costs_its_shard(tmp_path):
    write(store(tmp_path))
    store(tmp_path).finish()
    items = [f"file {i}" for i in range(10)]
    items[9] = "file 9, edited"
    assert store(tmp_path, items=items).missing(retry_failed=False) == [2]


def test_folder_of_another_model_is_refused_by_what_differs(tmp_path):
    write(store(tmp_path))
    with pytest.raises(ValueError, match=r'model is "a" there, "b" now; choose another folder'):
        store(tmp_path, {**MADE_BY, "model": "b"})
    store(tmp_path, {"model": "a", "scales": [1.0, 2.0]})


def test_resumed_folder_keeps_the_shard_size_it_began_with(tmp_path):
    write(store(tmp_path), shards=(0,))
    assert store(tmp_path, shard_size=7).missing(retry_failed=False) == [1, 2]


def test_failed_rows_are_remembered_and_retried_on_request(tmp_path):
    write(store(tmp_path), failed={5: "x.jpg: truncated"})
    assert store(tmp_path).missing(retry_failed=True) == [1]
    assert store(tmp_path).finish()[1] == {5: "x.jpg: truncated"}
    assert store(tmp_path).open()[1] == {5: "x.jpg: truncated"}


def test_rows_of_a_wrong_shape_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shard 2 has shape \(4, 5\); \(2, 5\) is wanted"):
        store(tmp_path).write(2, ROWS[:4])


def test_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


def test_an_array_with_a_checksum_is_given_back_only_as_it_was_written(tmp_path):
    path = tmp_path / "below" / "rows.npy"
    assert load_sound(path) is None, "nothing there: no warning either"
    save_sound(path, ROWS)
    assert np.array_equal(load_sound(path), ROWS)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    for damage in (data, data[:-8], b""):
        path.write_bytes(damage)
        with pytest.warns(UserWarning, match=r"rows\.npy is damaged; it is made again"):
            assert load_sound(path) is None


def test_arrays_are_stacked_on_disk_block_by_block(tmp_path):
    path = tmp_path / "below" / "both.npy"
    both = stacked(path, (ROWS, 2 * ROWS), block=3)
    assert isinstance(both, np.memmap) and np.array_equal(both, np.concatenate([ROWS, 2 * ROWS]))


def test_a_stack_is_copied_again_where_a_part_was_made_anew(tmp_path):
    path, part = tmp_path / "both.npy", tmp_path / "part.npy"
    for factor in (1, 3):
        np.save(part, factor * ROWS)
        if path.is_file():
            later = path.stat().st_mtime_ns + 10**9
            os.utime(part, ns=(later, later))
        both = stacked(path, (np.load(part, mmap_mode="r"), ROWS))
        assert np.array_equal(both, np.concatenate([factor * ROWS, ROWS]))
