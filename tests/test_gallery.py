"""The index of a folder follows the folder: what is new is described, what is known is not, nothing is lost."""

import errno
import os
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from cities import draw
from test_extract import TinyNet

from ssr_lib.extract import describe
from ssr_lib.gallery import index_folder
from ssr_lib.images import Preprocess
from ssr_lib.search import knn, prepare
from ssr_lib.store import Store

PREPROCESS = Preprocess(size=24)


def add(folder, *names, seed=0):
    for i, name in enumerate(names):
        draw(folder, name, 10 * seed + i, 0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("ssr_lib.extract.SHARD", 2)
    add(tmp_path / "photos", "a.png", "b.png", "sub/c.png")
    return tmp_path / "photos"


def index(folder, net=None, **options):
    return index_folder(net or TinyNet(), folder, PREPROCESS, progress=False, **options)


def check(gallery):
    paths = [gallery.folder / name for name in gallery.files]
    np.testing.assert_allclose(gallery.descriptors, describe(TinyNet(), paths, PREPROCESS), atol=1e-6)


def test_pictures_are_described_once_new_ones_alone_and_removed_ones_leave(folder):
    (folder / "notes.txt").write_text("not a picture")
    net = TinyNet()
    for n_new in (3, 0):
        gallery = index(folder, net)
        assert gallery.files == ["a.png", "b.png", "sub/c.png"] and gallery.n_new == n_new
        assert net.seen == 3 and list(gallery.skipped.values()) == [1]
        check(gallery)
    add(folder, "d.png", "0.png", seed=1)
    for gone in ("a.png", "b.png"):
        (folder / gone).unlink()
    gallery = index(folder, net)
    assert net.seen == 3 + 2 and gallery.n_new == 2 and gallery.files == ["0.png", "d.png", "sub/c.png"]
    assert len(list(gallery.place.iterdir())) == 2, "the shard of the removed ones is gone"
    check(gallery)


def test_two_galleries_of_equal_names_sizes_and_dates_share_an_index_without_mixing(tmp_path):
    for seed, place in enumerate(("one", "two")):
        add(tmp_path / place, "a.bmp", seed=seed)
        os.utime(tmp_path / place / "a.bmp", ns=(10**18, 10**18))
        gallery = index(tmp_path / place, index=tmp_path / "index")
        assert gallery.n_new == 1
        check(gallery)
    assert index(tmp_path / "one", index=tmp_path / "index").n_new == 0


def test_unreadable_pictures_are_reported_every_time_and_tried_again_when_changed(folder):
    good = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(good[:60])
    for n_new in (2, 0):
        gallery = index(folder)
        assert gallery.files == ["a.png", "sub/c.png"] and gallery.n_new == n_new
        assert list(gallery.unreadable) == ["b.png"] and "truncated" in gallery.unreadable["b.png"]
    (folder / "b.png").write_bytes(good)
    gallery = index(folder)
    assert gallery.unreadable == {} and gallery.n_new == 1
    check(gallery)


def test_a_gallery_that_cannot_be_written_asks_for_another_place_unless_nothing_is_new(folder):
    refused = mock.patch.object(Store, "add", side_effect=OSError(errno.EROFS, "Read-only file system"))
    with refused, pytest.raises(OSError, match=r"Read-only file system; name another folder .*--index.*\.ssr-index"):
        index(folder)
    (folder / "broken.jpg").write_text("no picture")
    index(folder)
    with refused:
        assert list(index(folder).unreadable) == ["broken.jpg"]


def test_neighbours_are_found_once_for_the_pictures_that_are_there(folder):
    part = SimpleNamespace(prepare=lambda database, *, k, neighbours: neighbours)
    add(folder, *(f"{i}.png" for i in range(5)), seed=9)
    with mock.patch("ssr_lib.gallery.knn", wraps=knn) as search:
        for k, gone, searches in ((3, None, 1), (3, None, 1), (4, None, 2), (4, "3.png", 3), (4, None, 3)):
            if gone is not None:
                (folder / gone).unlink()
            gallery = index(folder)
            scores, ids = gallery.prepared(part, prepare(gallery.descriptors), {"k": k})
            similarity = gallery.descriptors @ gallery.descriptors.T - 2 * np.eye(len(gallery.files))
            np.testing.assert_array_equal(ids, np.argsort(-similarity, axis=1)[:, :k])
            np.testing.assert_allclose(scores, -np.sort(-similarity, axis=1)[:, :k], atol=1e-5)
            assert search.call_count == searches
