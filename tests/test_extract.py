"""Extraction gives each picture its own descriptor, survives being killed, and never hides a bad file."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from ssr_lib.benchmark import Benchmark
from ssr_lib.extract import UnreadableImagesError, describe, describe_batch, extract, extract_benchmark
from ssr_lib.files import FolderBusyError, folder_lock
from ssr_lib.images import Preprocess, load_image, to_tensors
from ssr_lib.network import RetrievalNet, weights_digest

PREPROCESS = Preprocess(size=24)


class TinyNet(nn.Module):
    """One convolution, average pooling, L2; counts the pictures it has seen."""

    def __init__(self, seed=0, dim=6):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, dim, 3)
        self.config, self.descriptor_dim, self.seen = {"name": "tiny", "dim": dim}, dim, 0

    def forward(self, images):
        self.seen += len(images)
        return F.normalize(self.conv(images).relu().mean(dim=(2, 3)), dim=1)


@pytest.fixture
def photos(tmp_path):
    """Thirty small pictures of three shapes."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    names = [f"{i:02d}.png" for i in range(30)]
    for i, name in enumerate(names):
        shape = [(24, 18, 3), (18, 24, 3), (40, 40, 3)][i % 3]
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / "photos" / name)
    return tmp_path / "photos", names


def run(photos, directory, net=None, **options):
    root, names = photos
    options = {"shard_size": 8, "batch_size": 4, "progress": False, **options}
    return extract(net or TinyNet(), names, PREPROCESS, directory, root=root, **options)


def one_by_one(photos, net, preprocess=PREPROCESS):
    root, names = photos
    with torch.no_grad():
        rows = []
        for name in names:
            scales = [F.normalize(net(t[None]), dim=1) for t in to_tensors(load_image(root / name), preprocess)]
            rows.append(F.normalize(torch.stack(scales).mean(dim=0), dim=1)[0])
        return torch.stack(rows).numpy()


def test_each_picture_gets_the_descriptor_it_has_alone(photos, tmp_path):
    descriptors = run(photos, tmp_path / "out")
    assert isinstance(descriptors, np.memmap) and descriptors.dtype == np.float32 and descriptors.shape == (30, 6)
    np.testing.assert_allclose(descriptors, one_by_one(photos, TinyNet()), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-6)


def test_scales_are_normalised_averaged_normalised(photos, tmp_path):
    preprocess = Preprocess(size=24, scales=(0.5, 1.0, 2.0))
    root, names = photos
    rows = extract(TinyNet(), names, preprocess, tmp_path / "out", root=root, progress=False)
    np.testing.assert_allclose(rows, one_by_one(photos, TinyNet(), preprocess), atol=1e-6)


def test_max_over_scales_is_taken_where_the_record_says_so():
    a, b = torch.tensor([[[[3.0]], [[4.0]], [[0.0]]]]), torch.tensor([[[[0.0]], [[1.0]], [[0.0]]]])
    net = lambda images: images.mean(dim=(2, 3))
    row = describe_batch(net, [a, b], Preprocess(join="max"), "cpu", torch.float32)
    np.testing.assert_allclose(row, np.array([[0.6, 1.0, 0.0]]) / np.hypot(0.6, 1.0), atol=1e-6)


def test_scales_can_be_joined_as_the_network_left_them():
    net = RetrievalNet("test_efficientnet", "plain", pretrained="none").eval()
    scales = [torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(side)) for side in (32, 64)]
    rows = describe_batch(net, scales, Preprocess(normalize_scales=False), "cpu", torch.float32)
    with torch.inference_mode():
        mean = sum(net(images, normalize=False) for images in scales) / 2
    np.testing.assert_allclose(rows, torch.nn.functional.normalize(mean, dim=1).numpy(), atol=1e-6)
    assert np.abs(rows - describe_batch(net, scales, Preprocess(), "cpu", torch.float32)).max() > 1e-4


def test_finished_extraction_is_read_not_made_again(photos, tmp_path):
    first = np.array(run(photos, tmp_path / "out"))
    net = TinyNet()
    np.testing.assert_array_equal(run(photos, tmp_path / "out", net), first)
    assert net.seen == 0


def test_finished_extraction_can_be_read_where_nothing_can_be_written(photos, tmp_path):
    first = np.array(run(photos, tmp_path / "out"))
    (tmp_path / "out" / ".lock").unlink()
    os.chmod(tmp_path / "out", 0o500)
    try:
        np.testing.assert_array_equal(run(photos, tmp_path / "out"), first)
        assert not (tmp_path / "out" / ".lock").exists()
    finally:
        os.chmod(tmp_path / "out", 0o700)


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
from test_extract import TinyNet, run
from pathlib import Path
class Slow(TinyNet):
    def forward(self, images):
        time.sleep(0.05)
        return super().forward(images)
root = Path({root!r})
run((root, [f"{{i:02d}}.png" for i in range(30)]), {out!r}, Slow())
"""


def test_killed_run_goes_on_where_it_stopped_and_ends_the_same(photos, tmp_path):
    expected = np.array(run(photos, tmp_path / "whole"))
    out = tmp_path / "out"
    code = KILLED.format(tests=str(Path(__file__).parent), root=str(photos[0]), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    try:
        deadline = time.time() + 60
        while not (out / "shard-00001.json").exists():
            assert process.poll() is None and time.time() < deadline, process.stderr.read().decode()
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (out / "array.npy").exists()
    net = TinyNet()
    np.testing.assert_array_equal(run(photos, out, net), expected)
    assert 0 < net.seen <= 30 - 16


def test_damaged_piece_is_made_again(photos, tmp_path):
    expected = np.array(run(photos, tmp_path / "out"))
    content = bytearray((tmp_path / "out" / "array.npy").read_bytes())
    content[-1] ^= 255
    (tmp_path / "out" / "array.npy").write_bytes(content)
    net = TinyNet()
    with pytest.warns(UserWarning, match=r"out: shard 3 is damaged; it is made again"):
        np.testing.assert_array_equal(run(photos, tmp_path / "out", net), expected)
    assert net.seen == 6  # the last shard alone


def test_replaced_picture_is_described_again(photos, tmp_path):
    before = np.array(run(photos, tmp_path / "out"))
    Image.fromarray(np.full((24, 18, 3), 77, np.uint8)).save(photos[0] / "00.png")
    after = run(photos, tmp_path / "out")
    assert not np.allclose(after[0], before[0], atol=1e-4)
    np.testing.assert_array_equal(after[8:], before[8:])


@pytest.mark.parametrize(
    "change,what",
    [
        ({"net": TinyNet(seed=1)}, "weights_sha256"),
        ({"net": TinyNet(dim=7)}, "net is"),
        ({"dtype": torch.bfloat16}, 'dtype is "float32" there, "bfloat16" now'),
        ({"boxes": [(0, 0, 9, 9)] * 30}, "boxes_sha256"),
    ],
)
def test_folder_made_by_something_else_is_refused(photos, tmp_path, change, what):
    run(photos, tmp_path / "out")
    with pytest.raises(ValueError, match=what):
        run(photos, tmp_path / "out", **change)


def test_second_run_in_the_same_folder_is_told_so(photos, tmp_path):
    with folder_lock(tmp_path / "out"), pytest.raises(FolderBusyError, match="another run is writing"):
        run(photos, tmp_path / "out")


def test_unreadable_pictures_are_all_named_at_once_and_the_rest_is_kept(photos, tmp_path):
    root, names = photos
    good = (root / names[3]).read_bytes()
    (root / names[3]).write_bytes(good[:100])
    (root / names[20]).unlink()
    with pytest.raises(UnreadableImagesError, match=r"2 of the pictures") as caught:
        run(photos, tmp_path / "out")
    assert sorted(caught.value.failed) == [3, 20]
    assert "03.png: truncated" in str(caught.value) and "20.png: No such file" in str(caught.value)
    descriptors, failed = run(photos, tmp_path / "out", on_error="list")
    assert sorted(failed) == [3, 20]
    assert np.isnan(descriptors[[3, 20]]).all() and np.isfinite(np.delete(descriptors, [3, 20], axis=0)).all()
    (root / names[3]).write_bytes(good)
    (root / names[20]).write_bytes(good)
    net = TinyNet()
    np.testing.assert_allclose(run(photos, tmp_path / "out", net), one_by_one(photos, TinyNet()), atol=1e-6)
    assert net.seen == 16  # the two shards that held them


def test_nan_descriptor_names_the_picture(photos, tmp_path):
    net = TinyNet()
    with torch.no_grad():
        net.conv.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"\d\d\.png: its descriptor holds NaN"):
        run(photos, tmp_path / "out", net)


def test_zero_descriptor_names_the_picture(photos, tmp_path):
    net = TinyNet()
    with torch.no_grad():
        net.conv.weight.zero_()
        net.conv.bias.fill_(-1.0)
    with pytest.raises(ValueError, match=r"\d\d\.png: its descriptor is zero"):
        run(photos, tmp_path / "out", net)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_float32(photos, tmp_path, dtype):
    half = run(photos, tmp_path / "half", dtype=dtype)
    assert half.dtype == np.float32
    assert (half * one_by_one(photos, TinyNet())).sum(axis=1).min() > 0.999


def test_describe_gives_the_same_rows_in_memory(photos, tmp_path):
    root, names = photos
    rows = describe(TinyNet(), [root / name for name in names], PREPROCESS)
    np.testing.assert_allclose(rows, run(photos, tmp_path / "out"), atol=1e-6)
    with pytest.raises(UnreadableImagesError, match=r"nowhere\.png"):
        describe(TinyNet(), [root / "nowhere.png"], PREPROCESS)


def test_weights_digest_follows_the_weights_only():
    assert weights_digest(TinyNet()) == weights_digest(TinyNet()) != weights_digest(TinyNet(seed=1))


def make_benchmark(photos, **changes):
    root, names = photos
    fields = {"queries": names[:2], "easy": [[4], [5]], "hard": [[], []], "junk": [[], []], **changes}
    return Benchmark(name="test", root=root, database=names, **fields)


def test_benchmark_queries_are_cropped_to_their_boxes(photos, tmp_path):
    benchmark = make_benchmark(photos, boxes=[(2, 3, 15, 16), None])
    queries, database = extract_benchmark(TinyNet(), benchmark, PREPROCESS, tmp_path, progress=False)
    root, names = photos
    np.testing.assert_allclose(database, one_by_one(photos, TinyNet()), atol=1e-6)
    np.testing.assert_allclose(queries[1], database[1], atol=1e-6)
    (tensor,) = to_tensors(load_image(root / names[0]), PREPROCESS, (2, 3, 15, 16))
    with torch.no_grad():
        np.testing.assert_allclose(queries[0], TinyNet()(tensor[None])[0], atol=1e-6)


def test_queries_that_are_database_images_are_not_described_twice(photos, tmp_path):
    net = TinyNet()
    benchmark = make_benchmark(photos, query_ids=[0, 1])
    queries, database = extract_benchmark(net, benchmark, PREPROCESS, tmp_path, progress=False)
    np.testing.assert_array_equal(queries, database[:2])
    assert net.seen == 30


@pytest.mark.parametrize("wrong", [{"on_error": "skip"}, {"boxes": [None]}])
def test_wrong_arguments_are_refused(photos, tmp_path, wrong):
    with pytest.raises(ValueError):
        run(photos, tmp_path / "out", **wrong)


def test_no_files_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no files"):
        extract(TinyNet(), [], PREPROCESS, tmp_path)


def test_pictures_too_small_for_the_pooling_are_named_and_the_others_kept(photos, tmp_path):
    root, names = photos
    net = RetrievalNet("resnet18", "plain", pooling="gem+", regional=True, pretrained="none")
    wanted = Preprocess(size_rule="none", size=None)
    Image.new("RGB", (128, 128), (9, 99, 199)).save(root / "large.png")
    described, failed = extract(
        net, [*names[:2], "large.png"], wanted, tmp_path / "out", root=root, on_error="list", progress=False
    )
    assert sorted(failed) == [0, 1] and all(names[i] in failed[i] and "enlarge the image" in failed[i] for i in failed)
    assert np.isfinite(described[2]).all()
    with pytest.raises(UnreadableImagesError, match=rf"2 of the pictures cannot be used: .*{names[0]}: regional_gem"):
        describe(net, [root / names[0], root / names[1]], wanted)
