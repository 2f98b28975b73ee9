"""Arrays on disk are trusted only while their checksum and their maker are the recorded ones."""

import os
import time

import numpy as np
import pytest
import torch

from ssr_lib.store import Maps, Store, picture_key

KEYS, MADE_BY = [f"picture {i}" for i in range(10)], {"model": "a", "scales": (1.0, 2.0)}


def arrays_of(key):
    """What is stored under a key: a row made of its number, and a map of a size of its own."""
    value = int(key.split()[1])
    return {"row": np.full(5, value, np.float32), "map": np.full((1, 1 + value % 3, 2), value, np.float16)}


def complete(directory):
    store = Store(directory, MADE_BY)
    missing = store.missing(KEYS)
    for start in range(0, len(missing), 4):
        store.add({key: arrays_of(key) for key in missing[start : start + 4]})
    return store, missing


def check(store):
    for name in ("row", "map"):
        for key, array in zip(KEYS[::-1], store.arrays(name, KEYS[::-1]), strict=True):
            np.testing.assert_array_equal(array, arrays_of(key)[name], strict=True)


@pytest.mark.parametrize("damage", [lambda content: content[:-1] + b"?", lambda content: content[:20], lambda _: b""])
def test_arrays_come_back_by_their_keys_and_a_damaged_shard_is_made_again_and_its_rest_goes(tmp_path, damage):
    assert complete(tmp_path)[1] == KEYS and complete(tmp_path)[1] == []
    store = Store(tmp_path, MADE_BY)
    assert store.missing(["a", "picture 3", "b"]) == ["a", "b"]
    check(store)
    file = next(file for file in tmp_path.iterdir() if b"picture 5" in file.read_bytes())
    file.write_bytes(damage(file.read_bytes()))
    with pytest.warns(match=f"{file} is damaged; its pictures are described again"):
        store, missing = complete(tmp_path)
    assert missing == KEYS[4:8]
    check(store)


def test_a_key_is_of_a_file_as_it_is_by_whatever_name(tmp_path):
    path, link = tmp_path / "a", tmp_path / "link"
    link.symlink_to(path)
    absent = picture_key(path)
    path.write_bytes(b"abc")
    before, key = path.stat(), picture_key(path)
    assert picture_key(link) == picture_key(tmp_path / "b" / ".." / "a") == key
    others = {absent, key, picture_key(path, (0, 0, 5, 5))}
    time.sleep(0.02)  # clocks of file systems tick every 4 ms
    path.write_bytes(b"xyz")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len(others | {picture_key(path)}) == 4


def test_maps_are_read_by_shape_in_buffers_that_are_used_again():
    rng = np.random.default_rng(0)
    mid = [rng.standard_normal(shape).astype(np.float16) for shape in ((2, 4, 3), (4, 2, 3), (2, 4, 3), (2, 4, 3))]
    maps = Maps(mid, None, "name", {})
    assert [ids.tolist() for ids in maps.batches(2)] == [[0, 2], [3], [1]] and len(maps) == 4
    first, last = maps.batch([3, 0])
    assert last is None and first.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(first, torch.from_numpy(np.stack([mid[3], mid[0]])).float().permute(0, 3, 1, 2))
    second = maps.batch([1])[0]
    assert second.data_ptr() == first.data_ptr() and second.shape == (1, 3, 4, 2)
    with pytest.raises(ValueError, match="same shape"):
        maps.batch([0, 1])
