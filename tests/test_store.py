"""Arrays on disk are trusted only while their checksum, their pictures and their maker are the recorded ones."""

import multiprocessing
import os
import random
import shutil
import time

import numpy as np
import pytest
import torch

from ssr_lib import store as store_module
from ssr_lib.files import FolderBusyError, locked
from ssr_lib.store import Maps, Store

FILES = [f"{i}.bin" for i in range(10)]
MADE_BY = {"model": "a", "scales": (1.0, 2.0)}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(store_module, "SHARD", 4)


@pytest.fixture
def root(tmp_path):
    """A folder of ten files."""
    (tmp_path / "files").mkdir()
    for i, name in enumerate(FILES):
        (tmp_path / "files" / name).write_bytes(bytes([i]) * 3)
    return tmp_path / "files"


def arrays_of(path):
    """What is stored of a file: a row made of its bytes, and a map of a size of its own."""
    value = path.read_bytes()[0]
    return {"row": np.full(5, value, np.float32), "map": np.full((1, 1 + value % 3, 2), value, np.float16)}


def complete(root, directory, made_by=MADE_BY, files=FILES):
    """A store with all its shards, and the numbers of those that were made just now."""
    store, made = Store(directory, made_by, files, root), []

    def make(missing):
        for shard in missing:
            store.write(shard, [arrays_of(store.paths[i]) for i in store.shards[shard]])
            made.append(shard)

    store.complete(make)
    return store, made


def check(store):
    for name in ("row", "map"):
        for path, array in zip(store.paths, store.arrays(name), strict=True):
            np.testing.assert_array_equal(array, arrays_of(path)[name])


def test_shards_are_made_once_and_arrays_come_back_in_their_own_shapes(root, tmp_path):
    store, made = complete(root, tmp_path / "out")
    assert made == [0, 1, 2]
    check(store)
    again, made = complete(root, tmp_path / "out")
    assert made == [] and again.digest == store.digest
    check(again)


@pytest.mark.parametrize("name,damage", [
    ("row.npy", lambda content: content[:-1] + b"?"), ("row.npy", lambda content: content[:-8]), ("row.npy", None),
    ("json", lambda content: b"{}"), ("json", lambda content: content[:20]), ("json", None),
])  # fmt: skip
def test_a_damaged_shard_is_made_again(root, tmp_path, name, damage, recwarn):
    complete(root, tmp_path / "out")
    file = tmp_path / "out" / f"shard-00001.{name}"
    content = file.read_bytes()
    file.unlink()
    if damage is not None:
        file.write_bytes(damage(content))
    store, made = complete(root, tmp_path / "out")
    assert made == [1]
    assert all("shard-00001 is damaged; it is made again" in str(told.message) for told in recwarn.list)
    check(store)


@pytest.mark.parametrize("keep_date", [False, True])
def test_a_file_overwritten_by_another_of_the_same_size_is_described_anew(root, tmp_path, keep_date):
    first, _ = complete(root, tmp_path / "out")
    path = root / FILES[9]
    before = path.stat()
    path.write_bytes(b"zzz")
    if keep_date:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    store, made = complete(root, tmp_path / "out")
    assert made == [2] and store.digest != first.digest
    check(store)


def test_a_file_overwritten_while_it_is_described_is_described_anew_under_another_name(root, tmp_path):
    first = Store(tmp_path / "out", MADE_BY, FILES, root)

    def make(missing):
        for shard in missing:
            pictures = [arrays_of(first.paths[i]) for i in first.shards[shard]]
            (root / FILES[9]).write_bytes(b"new bytes")
            first.write(shard, pictures)

    first.complete(make)
    store, made = complete(root, tmp_path / "out")
    assert made == [2] and store.digest != first.digest
    check(store)


def test_files_of_another_folder_are_described_anew_and_only_other_bytes_change_the_name(root, tmp_path):
    first, _ = complete(root, tmp_path / "out")
    for folder, content in (("same", None), ("other", b"new")):
        shutil.copytree(root, tmp_path / folder)  # with the dates
        if content:
            (tmp_path / folder / FILES[3]).write_bytes(content)
        store, made = complete(tmp_path / folder, tmp_path / "out")
        assert made == [0, 1, 2] and (store.digest == first.digest) == (content is None)
        check(store)


def test_a_folder_made_by_something_else_is_refused_by_what_differs(root, tmp_path):
    complete(root, tmp_path / "out")
    for changes, words in (
        ({"made_by": {**MADE_BY, "model": "b"}}, r'model is "a" there, "b" now; choose another folder'),
        ({"made_by": {"model": "a"}}, r"scales is \[1.0, 2.0\] there, null now"),
        ({"files": FILES[::-1]}, "files is"),
        ({"files": FILES[:9]}, "pictures is 10 there, 9 now"),
        ({"files": []}, "no files to describe"),
    ):
        with pytest.raises(ValueError, match=words):
            complete(root, tmp_path / "out", **changes)


def test_a_second_writer_is_refused_and_a_finished_store_is_only_read(root, tmp_path):
    with locked(tmp_path / "out"), pytest.raises(FolderBusyError, match="another run is writing here"):
        complete(root, tmp_path / "out")
    complete(root, tmp_path / "out")
    with locked(tmp_path / "out"):
        assert complete(root, tmp_path / "out")[1] == []


def test_a_store_killed_at_random_ends_as_one_that_was_not(root, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "SHARD", 1)
    process = multiprocessing.get_context("fork").Process(target=complete, args=(root, tmp_path / "out"))
    process.start()
    time.sleep(random.uniform(0, 0.02))
    process.kill()
    process.join()
    check(complete(root, tmp_path / "out")[0])
    assert not list(tmp_path.glob("out/.*.part"))


def test_maps_are_read_by_shape_in_buffers_that_are_used_again():
    rng = np.random.default_rng(0)
    shapes = [(2, 4, 3), (4, 2, 3), (2, 4, 3), (2, 4, 3)]
    mid = [rng.standard_normal(shape).astype(np.float16) for shape in shapes]
    maps = Maps(mid, None, "name", {})
    assert [ids.tolist() for ids in maps.batches(2)] == [[0, 2], [3], [1]] and len(maps) == 4
    first, last = maps.batch([3, 0])
    assert last is None and first.dtype == torch.float32 and first.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(first, torch.from_numpy(np.stack([mid[3], mid[0]])).float().permute(0, 3, 1, 2))
    second = maps.batch([1])[0]
    assert second.data_ptr() == first.data_ptr() and second.shape == (1, 3, 4, 2)
    with pytest.raises(ValueError, match=r"picture 1 has a map \(4, 2, 3\), 0 one of \(2, 4, 3\)"):
        maps.batch([0, 1])
    both = Maps(None, mid, "name", {})
    assert both.batch([2])[0] is None and len(both) == 4


def test_maps_that_were_first_read_in_inference_mode_can_be_trained_on():
    maps = Maps([np.ones((2, 2, 3), np.float16)], None, "name", {})
    with torch.inference_mode():
        maps.batch([0])
    weight = torch.ones(3, 1, 1, requires_grad=True)
    (maps.batch([0])[0] * weight).sum().backward()
    assert weight.grad.flatten().tolist() == [4, 4, 4]
