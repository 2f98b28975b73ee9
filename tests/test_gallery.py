"""The index of a folder follows the folder: what is new is described, what is known is not, nothing is lost."""

import errno
import json
import os
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from test_extract import TinyNet

from ssr_lib import gallery as gallery_module
from ssr_lib import images
from ssr_lib.extract import describe
from ssr_lib.gallery import index_folder
from ssr_lib.images import Preprocess

PREPROCESS = Preprocess(size=24)


def add(folder, *names, seed=0):
    rng = np.random.default_rng([seed, len(names)])
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)).save(folder / name)


@pytest.fixture
def folder(tmp_path):
    add(tmp_path / "photos", "a.png", "b.png", "sub/c.png")
    return tmp_path / "photos"


def index(folder, net=None, **options):
    return index_folder(net or TinyNet(), folder, PREPROCESS, progress=False, **options)


def check(gallery):
    paths = [gallery.folder / name for name in gallery.files]
    np.testing.assert_allclose(gallery.descriptors, describe(TinyNet(), paths, PREPROCESS), atol=1e-6)


def test_pictures_are_described_once_and_the_index_is_no_part_of_the_gallery(folder):
    first = index(folder)
    assert first.files == ["a.png", "b.png", "sub/c.png"] and first.n_new == 3
    check(first)
    net = TinyNet()
    again = index(folder, net)
    assert net.seen == 0 and again.n_new == 0 and again.files == first.files
    np.testing.assert_array_equal(again.descriptors, first.descriptors)


def test_added_pictures_alone_are_described_and_removed_ones_leave(folder):
    index(folder)
    add(folder, "d.png", "0.png", seed=1)
    (folder / "b.png").unlink()
    net = TinyNet()
    gallery = index(folder, net)
    assert net.seen == gallery.n_new == 2
    assert gallery.files == ["0.png", "a.png", "d.png", "sub/c.png"]
    check(gallery)


def test_changed_picture_is_described_again(folder):
    index(folder)
    add(folder, "b.png", seed=2)
    gallery = index(folder)
    assert gallery.n_new == 1
    check(gallery)


def test_unreadable_pictures_are_reported_every_time_and_tried_again_when_changed(folder):
    good = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(good[:60])
    for n_new in (2, 0):
        gallery = index(folder)
        assert gallery.files == ["a.png", "sub/c.png"] and gallery.n_new == n_new
        assert list(gallery.unreadable) == ["b.png"] and "truncated" in gallery.unreadable["b.png"]
        check(gallery)
    (folder / "b.png").write_bytes(good)
    gallery = index(folder)
    assert gallery.unreadable == {} and gallery.n_new == 1
    check(gallery)


@contextmanager
def failing(monkeypatch, name, error):
    """The system will not let `name` be decoded."""

    def opened(path, *args, _open=Image.open, **options):
        if path.name == name:
            raise error
        return _open(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(images.Image, "open", opened)
        yield


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_picture_that_the_system_kept_back_is_tried_again_though_unchanged(folder, monkeypatch, number):
    with failing(monkeypatch, "b.png", OSError(number, os.strerror(number), "b.png")):
        for n_new in (2, 0):
            gallery = index(folder)
            assert gallery.files == ["a.png", "sub/c.png"] and gallery.n_new == n_new
            assert gallery.unreadable == {"b.png": f"{folder / 'b.png'}: {os.strerror(number)}"}
            check(gallery)
    gallery = index(folder)
    assert gallery.unreadable == {} and gallery.n_new == 1
    check(gallery)


def test_picture_that_the_system_kept_back_from_a_killed_run_is_tried_again(folder, monkeypatch):
    def killed(*args, **options):
        raise KeyboardInterrupt

    with failing(monkeypatch, "b.png", OSError(errno.EIO, os.strerror(errno.EIO))), monkeypatch.context() as patch:
        patch.setattr(gallery_module, "_save", killed)
        with pytest.raises(KeyboardInterrupt):
            index(folder)
    gallery = index(folder)
    assert gallery.unreadable == {} and gallery.n_new == 3
    check(gallery)


def test_picture_without_permission_does_not_ask_a_read_only_index_to_be_written(folder, monkeypatch):
    (folder / "b.png").rename(folder / "late.png")
    index(folder)
    (folder / "late.png").rename(folder / "b.png")
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "b.png")
    monkeypatch.setattr(gallery_module, "folder_lock", lambda place: 1 / 0)
    gallery = index(folder)
    assert gallery.unreadable == {"b.png": f"{folder / 'b.png'}: Permission denied"}
    check(gallery)


def test_link_to_nothing_is_unreadable_and_the_others_are_found(folder):
    (folder / "away.jpg").symlink_to(folder / "nowhere.jpg")
    for n_new in (3, 0):
        gallery = index(folder)
        assert gallery.files == ["a.png", "b.png", "sub/c.png"] and gallery.n_new == n_new
        assert gallery.unreadable == {"away.jpg": f"{folder / 'away.jpg'}: No such file or directory"}
        check(gallery)
    add(folder, "nowhere.jpg")
    assert index(folder).files == ["a.png", "away.jpg", "b.png", "nowhere.jpg", "sub/c.png"]


def test_links_to_nothing_alone_leave_an_empty_gallery(tmp_path):
    (tmp_path / "x.jpg").symlink_to(tmp_path / "nowhere.jpg")
    gallery = index(tmp_path)
    assert gallery.descriptors.shape == (0, 6) and list(gallery.unreadable) == ["x.jpg"]


def test_nothing_readable_leaves_an_empty_gallery_with_reasons(tmp_path):
    (tmp_path / "x.jpg").write_text("no picture")
    gallery = index(tmp_path)
    assert gallery.descriptors.shape == (0, 6) and "not a picture" in gallery.unreadable["x.jpg"]


@pytest.mark.parametrize("killed_in", ["extract", "_save", "rmtree"])
def test_killed_update_goes_on_even_if_the_folder_changed_meanwhile(folder, monkeypatch, killed_in):
    index(folder)
    add(folder, "d.png", "e.png", seed=1)

    def killed(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil if killed_in == "rmtree" else gallery_module, killed_in, killed)
        with pytest.raises(KeyboardInterrupt):
            index(folder)
    add(folder, "f.png", seed=3)
    (folder / "d.png").unlink()
    gallery = index(folder)
    assert gallery.files == ["a.png", "b.png", "e.png", "f.png", "sub/c.png"] and gallery.unreadable == {}
    check(gallery)


@pytest.mark.parametrize("damage", ["rows", "list", "rows gone"])
def test_damaged_index_is_made_again_with_a_warning(folder, damage):
    index(folder)
    (place,) = (folder / ".ssr-index").iterdir()
    (rows,) = place.glob("rows-*.npy")
    if damage == "rows":
        rows.write_bytes(rows.read_bytes()[:-4] + b"\0\1\2\3")
    elif damage == "list":
        (place / "index.json").write_text("{")
    else:
        rows.unlink()
    with pytest.warns(UserWarning, match="is damaged"):
        gallery = index(folder)
    assert gallery.n_new == 3
    check(gallery)


def test_each_model_has_its_own_part(folder):
    index(folder)
    other = index(folder, TinyNet(seed=5))
    assert other.n_new == 3 and len(list((folder / ".ssr-index").iterdir())) == 2
    check(index(folder))


def test_index_may_lie_elsewhere(folder, tmp_path):
    check(index(folder, index=tmp_path / "elsewhere"))
    assert not (folder / ".ssr-index").exists()


def test_read_only_gallery_asks_for_another_place(folder, monkeypatch):
    def refused(place):
        raise OSError(errno.EROFS, "Read-only file system", str(place))

    monkeypatch.setattr(gallery_module, "folder_lock", refused)
    with pytest.raises(PermissionError, match=r"\.ssr-index cannot be written \(Read-only file system\).*--index"):
        index(folder)


def test_up_to_date_index_of_a_read_only_gallery_is_used(folder, monkeypatch):
    index(folder)
    monkeypatch.setattr(gallery_module, "folder_lock", lambda place: 1 / 0)
    check(index(folder))


def test_index_is_plain_json_and_npy(folder):
    index(folder)
    (place,) = (folder / ".ssr-index").iterdir()
    record = json.loads((place / "index.json").read_text())
    assert np.load(place / record["rows"]).shape == (3, 6)
    assert sorted(p.name for p in place.iterdir()) == [".lock", "index.json", record["rows"]]
