"""Cached maps: equal to the trunk's, made once, continued after a break, refused when they are other maps."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import ssr_lib.maps as maps_module
from ssr_lib.files import FolderBusyError, folder_lock
from ssr_lib.images import ImageError, Preprocess, load_image, to_tensors
from ssr_lib.maps import MapReader, compute_maps, head_descriptors, maps_digest
from ssr_lib.network import RetrievalNet
from ssr_lib.store import ShardedArray

PREPROCESS = Preprocess(size_rule="fixed", size=32)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """These nets are too small to share between threads, and on a busy machine threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def net():
    return RetrievalNet("test_efficientnet", "plain", descriptor_dim=8, pretrained="none").eval()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Ten noise pictures of different sizes: their folder and names."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    names = [f"{i}.png" for i in range(10)]
    for i, name in enumerate(names):
        Image.fromarray(rng.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8)).save(root / name)
    return root, names


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(maps_module, "SHARD", 4)


@pytest.fixture
def trunk_calls(net, monkeypatch):
    """How many images went through the trunk."""
    calls = []
    trunk = net.trunk
    monkeypatch.setattr(net, "trunk", lambda images: calls.extend(range(len(images))) or trunk(images))
    return calls


def make(net, photos, folder, **changes):
    root, names = photos
    return compute_maps(net, names, PREPROCESS, folder, **{"root": root, "batch_size": 3, "progress": False, **changes})


def test_maps_are_those_of_the_trunk_in_half_precision(net, photos, tmp_path):
    maps = make(net, photos, tmp_path / "maps")
    assert maps.shape == (10, 48, 2, 2) and maps.dtype == np.float16
    for i in (0, 3, 9):
        image = to_tensors(load_image(photos[0] / photos[1][i]), PREPROCESS)[0]
        with torch.inference_mode():
            expected = net.trunk(image[None])[0]
        np.testing.assert_allclose(maps[i], expected.numpy(), rtol=2e-3, atol=1e-4)


def test_a_complete_file_is_opened_without_a_forward_pass(net, photos, tmp_path, trunk_calls):
    first = make(net, photos, tmp_path / "maps").copy()
    trunk_calls.clear()
    assert np.array_equal(make(net, photos, tmp_path / "maps"), first)
    assert not trunk_calls


def test_an_interrupted_file_is_continued_with_the_same_bits(net, photos, tmp_path, monkeypatch, trunk_calls):
    whole = make(net, photos, tmp_path / "whole").copy()
    trunk_calls.clear()
    write = ShardedArray.write

    def write_once(store, shard, maps):
        write(store, shard, maps)
        raise KeyboardInterrupt

    monkeypatch.setattr(ShardedArray, "write", write_once)
    with pytest.raises(KeyboardInterrupt):
        make(net, photos, tmp_path / "broken")
    monkeypatch.setattr(ShardedArray, "write", write)
    trunk_calls.clear()
    assert np.array_equal(make(net, photos, tmp_path / "broken"), whole)
    assert len(trunk_calls) == 1 + 6, "a look at the first, and all but the shard of four that was finished"


def test_a_damaged_shard_is_found_and_computed_again(net, photos, tmp_path, trunk_calls):
    whole = make(net, photos, tmp_path / "maps").copy()
    with open(tmp_path / "maps" / "array.npy", "r+b") as file:
        file.seek(-10, 2)  # in the last shard
        file.write(b"\xff\xff")
    trunk_calls.clear()
    with pytest.warns(UserWarning, match="shard 2 is damaged"):
        assert np.array_equal(make(net, photos, tmp_path / "maps"), whole)
    assert len(trunk_calls) == 2


def test_maps_of_other_images_preprocessing_or_weights_are_refused_by_name(net, photos, tmp_path):
    folder = tmp_path / "maps"
    make(net, photos, folder)
    root, names = photos
    with pytest.raises(ValueError, match="something else: files is"):
        compute_maps(net, names[::-1], PREPROCESS, folder, root=root)
    with pytest.raises(ValueError, match="something else: images is 10 there, 9 now"):
        compute_maps(net, names[:9], PREPROCESS, folder, root=root)
    with pytest.raises(ValueError, match="something else: preprocess is"):
        compute_maps(net, names, Preprocess(size_rule="fixed", size=48), folder, root=root)
    with pytest.raises(ValueError, match="something else: trunk is"):
        make(RetrievalNet("test_efficientnet", "plain", pretrained="none", seed=1), photos, folder)
    with pytest.raises(ValueError, match="something else: files is"):
        make(net, photos, folder, boxes=[None] * 9 + [(0, 0, 20, 20)])


def test_every_variant_shares_the_maps(net, photos, tmp_path):
    make(net, photos, tmp_path / "maps")
    other = RetrievalNet("test_efficientnet", "self-similarity", mid_channels=4, window=3, pretrained="none", seed=0)
    made = (tmp_path / "maps" / "array.npy").stat().st_mtime_ns
    make(other, photos, tmp_path / "maps")
    assert (tmp_path / "maps" / "array.npy").stat().st_mtime_ns == made


def test_a_box_crops_the_image(net, photos, tmp_path):
    boxes = [(5, 5, 30, 30)] + [None] * 9
    cropped, whole = make(net, photos, tmp_path / "a", boxes=boxes), make(net, photos, tmp_path / "b")
    assert not np.array_equal(cropped[0], whole[0])
    assert np.array_equal(cropped[3:], whole[3:])


def test_unusable_images_are_named(net, photos, tmp_path):
    root, names = photos
    (tmp_path / "empty.jpg").touch()
    Image.new("RGB", (64, 32)).save(tmp_path / "wide.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "square.png")
    with pytest.raises(ImageError, match=r"empty\.jpg"):
        compute_maps(net, [root / names[0], tmp_path / "empty.jpg"], PREPROCESS, tmp_path / "maps", progress=False)
    any_size = Preprocess(size_rule="none", size=None)
    files = [tmp_path / "square.png", tmp_path / "wide.png"]
    with pytest.raises(ValueError, match=r"wide\.png gives a tensor \(3, 32, 64\).*'fixed'"):
        compute_maps(net, files, any_size, tmp_path / "sizes", progress=False)
    with pytest.raises(ValueError, match="one scale"):
        compute_maps(net, files, Preprocess(scales=(1.0, 0.5)), tmp_path / "scales")


def test_an_activation_beyond_half_precision_is_named(net, photos, tmp_path, monkeypatch):
    trunk = net.trunk
    monkeypatch.setattr(
        net, "trunk", lambda images: trunk(images) + 1e5 * (images.amax((1, 2, 3)) < 0).view(-1, 1, 1, 1)
    )
    Image.new("RGB", (8, 8)).save(tmp_path / "black.png")
    files = [photos[0] / photos[1][0], tmp_path / "black.png"]
    with pytest.raises(ValueError, match=r"black\.png.*float16"):
        compute_maps(net, files, PREPROCESS, tmp_path / "maps", progress=False)


def test_the_digest_follows_what_made_the_maps_not_their_bits(net, photos, tmp_path):
    maps = make(net, photos, tmp_path / "maps")
    twin = make(net, photos, tmp_path / "twin")
    assert maps_digest(maps) == maps_digest(twin)
    assert maps_digest(maps[:5]) != maps_digest(maps)
    assert maps_digest(np.array(maps[:5])) == maps_digest(maps[:5])
    record = tmp_path / "twin" / "made_by.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"trunk": "other"}))
    assert maps_digest(maps) != maps_digest(twin)


def test_the_reader_gives_the_rows_asked_for_in_one_buffer():
    maps = np.random.default_rng(0).standard_normal((7, 3, 2, 4)).astype(np.float16)
    reader = MapReader(maps, batch_size=4)
    first = reader(np.array([6, 0, 0]))
    assert torch.equal(first, torch.from_numpy(maps[[6, 0, 0]]).float())
    second = reader(np.array([1, 2, 3, 4]))
    assert second.data_ptr() == first.data_ptr() and second.is_contiguous(memory_format=torch.channels_last)


def test_descriptors_of_cached_maps_are_those_of_the_images(net, photos, tmp_path):
    maps = make(net, photos, tmp_path / "maps")
    net.train()
    descriptors = head_descriptors(net, maps, batch_size=4)
    assert net.training, "the mode is put back"
    net.eval()
    images = torch.stack([to_tensors(load_image(photos[0] / name), PREPROCESS)[0] for name in photos[1]])
    with torch.inference_mode():
        expected = net(images).numpy()
    assert descriptors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(descriptors, expected, atol=5e-3)


def test_an_array_that_was_cut_short_is_computed_again(net, photos, tmp_path):
    first = make(net, photos, tmp_path / "maps").copy()
    array = tmp_path / "maps" / "array.npy"
    array.write_bytes(array.read_bytes()[:500])
    assert np.array_equal(make(net, photos, tmp_path / "maps"), first)


def test_two_processes_do_not_compute_the_same_maps(net, photos, tmp_path):
    with folder_lock(tmp_path / "maps"), pytest.raises(FolderBusyError, match="another run is writing here"):
        make(net, photos, tmp_path / "maps")
    make(net, photos, tmp_path / "maps")
    with folder_lock(tmp_path / "maps"):
        make(net, photos, tmp_path / "maps")  # finished ones are only read
