"""Extraction gives each picture its own descriptor or map, goes on where it stopped, and never hides a bad file."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from ssr_lib.benchmark import Benchmark
from ssr_lib.decode import ImageError, load_image
from ssr_lib.extract import compute_maps, describe, extract, extract_benchmark
from ssr_lib.files import FolderBusyError, locked
from ssr_lib.images import Preprocess, to_tensors
from ssr_lib.network import RetrievalNet

PREPROCESS, SQUARE = Preprocess(size=48), Preprocess(size_rule="fixed", size=64)


class TinyNet(nn.Module):
    """One convolution, average pooling, L2; counts the pictures it has seen."""

    def __init__(self, seed=0, dim=6, killed_at=1000):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, dim, 3)
        self.config, self.descriptor_dim = {"name": "tiny", "dim": dim}, dim
        self.seen, self.killed_at = 0, killed_at

    def forward(self, images, normalize=True):
        if self.seen >= self.killed_at:
            raise KeyboardInterrupt
        self.seen += len(images)
        x = self.conv(images).relu().mean(dim=(2, 3))
        return F.normalize(x, dim=1) if normalize else x


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setattr("ssr_lib.extract.SHARD", 8)
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    names = [f"{i:02d}.png" for i in range(30)]
    for name, shape in zip(names, 10 * [(48, 36, 3), (36, 48, 3), (60, 60, 3)], strict=True):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / "photos" / name)
    return tmp_path / "photos", names


def run(photos, directory, net=None, preprocess=PREPROCESS, files=30, **options):
    root, names = photos
    options = {"batch_size": 4, "progress": False, **options}
    return extract(net or TinyNet(), names[:files], preprocess, directory, root=root, **options)


def one_by_one(photos, net, preprocess=PREPROCESS):
    """Descriptors by the shortest way: scale by scale normalised, averaged, normalised."""
    rows = []
    for name in photos[1]:
        scales = [net(t[None], normalize=False) for t in to_tensors(load_image(photos[0] / name), preprocess)]
        if preprocess.normalize_scales:
            scales = [F.normalize(x, dim=1) for x in scales]
        stacked = torch.cat(scales)
        rows.append(stacked.amax(dim=0) if preprocess.join == "max" else stacked.mean(dim=0))
    return F.normalize(torch.stack(rows), dim=1).detach().numpy()


@pytest.mark.parametrize("changes", [{"scales": (1.0,)}, {}, {"normalize_scales": False}, {"join": "max"}])
def test_each_picture_gets_the_descriptor_it_has_alone(photos, tmp_path, changes):
    preprocess = Preprocess(**{"size": 48, "scales": (0.75, 1.0, 2.0)} | changes)
    alone = one_by_one(photos, TinyNet(), preprocess)
    np.testing.assert_allclose(run(photos, tmp_path / "out", preprocess=preprocess), alone, atol=1e-6)
    files = [photos[0] / name for name in photos[1]]
    np.testing.assert_allclose(describe(TinyNet(), files, preprocess), alone, atol=1e-6)
    half = run(photos, tmp_path / "half", preprocess=preprocess, dtype=torch.bfloat16)
    assert half.dtype == np.float32 and (half * alone).sum(axis=1).min() > 0.999 and abs(half - alone).max() > 1e-4


@pytest.mark.parametrize("change,what", [
    ({"net": TinyNet(seed=1)}, "weights is"), ({"net": TinyNet(dim=7)}, "net is"), ({"files": 29}, "files is"),
    ({"dtype": torch.bfloat16}, 'dtype is "torch.float32" there, "torch.bfloat16" now'),
    ({"boxes": [(0, 0, 40, 36)] * 30}, "boxes is"), ({"preprocess": SQUARE}, "preprocess is"),
])  # fmt: skip
def test_folder_made_by_something_else_is_refused(photos, tmp_path, change, what):
    run(photos, tmp_path / "out")
    with pytest.raises(ValueError, match=what):
        run(photos, tmp_path / "out", **change)


def test_unreadable_pictures_are_all_named_at_once_and_the_rest_is_kept(photos, tmp_path):
    damaged, lost = (photos[0] / photos[1][i] for i in (3, 20))
    good = damaged.read_bytes()
    damaged.write_bytes(good[:100])
    lost.unlink()
    for _ in range(2):
        with pytest.raises(ImageError, match=r"2 of the pictures .*03\.png: truncated.*20\.png: No such file"):
            run(photos, tmp_path / "out")
    damaged.write_bytes(good)
    lost.write_bytes(good)
    net = TinyNet()
    np.testing.assert_allclose(run(photos, tmp_path / "out", net), one_by_one(photos, TinyNet()), atol=1e-6)
    assert net.seen == 2


def test_a_killed_extraction_goes_on_where_it_stopped_and_a_second_one_at_once_is_refused(photos, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "out", TinyNet(killed_at=20))
    for name in (".shard-1f.safetensors.9c.part", ".holiday.zip.part"):  # of a killed writer, and the user's own
        (tmp_path / "out" / name).touch()
    with locked(tmp_path / "out"), pytest.raises(FolderBusyError, match="another run is writing here"):
        run(photos, tmp_path / "out")
    net = TinyNet()
    np.testing.assert_allclose(run(photos, tmp_path / "out", net), one_by_one(photos, TinyNet()), atol=1e-6)
    with locked(tmp_path / "out"):  # a finished one is only read
        run(photos, tmp_path / "out", net)
    assert net.seen == 14 and [path.name for path in tmp_path.glob("out/*.part")] == [".holiday.zip.part"]


@pytest.mark.parametrize("weight,error,words", [
    (float("nan"), ValueError, r"\d\d\.png: its descriptor is not finite in float32"),
    (0.0, ImageError, r"30 of the pictures .*00\.png: its descriptor is the same number everywhere"),
])  # fmt: skip
def test_useless_descriptors_name_their_pictures(photos, tmp_path, weight, error, words):
    net = TinyNet()
    nn.init.constant_(net.conv.weight, weight)
    nn.init.constant_(net.conv.bias, 0)
    with pytest.raises(error, match=words):
        run(photos, tmp_path / "out", net)


def test_benchmark_queries_are_cropped_to_their_boxes_and_whole_database_images_not_described_twice(photos, tmp_path):
    root, names = photos
    fields = ["test", root, names, names[1::-1], [[4], [5]], [[], []], [[], []]]
    benchmark = Benchmark(*fields, boxes=[None, (2, 3, 30, 40)])
    queries, database = extract_benchmark(TinyNet(), benchmark, PREPROCESS, tmp_path / "a", progress=False)
    np.testing.assert_allclose(database, one_by_one(photos, TinyNet()), atol=1e-6)
    np.testing.assert_allclose(queries[0], database[1], atol=1e-6)
    (tensor,) = to_tensors(load_image(root / names[0]), PREPROCESS, (2, 3, 30, 40))
    np.testing.assert_allclose(queries[1], TinyNet()(tensor[None])[0].detach(), atol=1e-6)
    net, benchmark = TinyNet(), Benchmark(*fields, query_ids=[1, 0])
    queries, database = extract_benchmark(net, benchmark, PREPROCESS, tmp_path / "b", progress=False)
    np.testing.assert_array_equal(queries, database[[1, 0]])
    assert net.seen == 30


@pytest.fixture(scope="module")
def net():
    return RetrievalNet("test_efficientnet", descriptor_dim=8, pretrained="none").eval()


def maps_of(net, photos, folder, preprocess=SQUARE):
    return compute_maps(net, photos[1], preprocess, folder, root=photos[0], batch_size=3, progress=False)


@pytest.mark.parametrize("head,protocol,stored", [
    ("product", "end_to_end", [True, False]), ("plain", "frozen", [False, True]), ("structural", "frozen", [True, True])
])  # fmt: skip
@torch.inference_mode()
def test_the_maps_that_a_head_asks_for_are_those_of_the_frozen_part(photos, tmp_path, head, protocol, stored):
    net = RetrievalNet("test_efficientnet", head, protocol=protocol, pretrained="none").eval()
    maps = maps_of(net, photos, tmp_path / head, PREPROCESS)
    assert [maps.mid is not None, maps.last is not None] == stored and len(maps) == 30
    for i, name in enumerate(photos[1]):
        alone = net.backbone(to_tensors(load_image(photos[0] / name), PREPROCESS)[0][None])
        for found, wanted in zip(maps.batch([i]), alone, strict=True):
            assert found is None or torch.allclose(found, wanted, rtol=2e-3, atol=1e-4)


def test_every_head_shares_the_maps_and_their_name_and_other_weights_do_not(net, photos, tmp_path, monkeypatch):
    folder = tmp_path / "maps"
    maps, made = maps_of(net, photos, folder), {path: path.stat().st_mtime_ns for path in folder.glob("shard-*")}
    other = RetrievalNet("test_efficientnet", "product", {"mid_channels": 4, "window": 3}, pretrained="none", seed=0)
    assert maps_of(other, photos, folder).digest == maps_of(net, photos, tmp_path / "again").digest == maps.digest
    assert made == {path: path.stat().st_mtime_ns for path in folder.glob("shard-*")}
    with pytest.raises(ValueError, match="something else: weights is"):
        maps_of(RetrievalNet("test_efficientnet", pretrained="none", seed=1), photos, folder)
    with monkeypatch.context() as patch, pytest.raises(ValueError, match=r"relup is null there, 0\.014 now"):
        patch.setitem(net.config, "relup", 0.014)
        maps_of(net, photos, folder)
    shutil.copytree(photos[0], tmp_path / "moved")
    assert maps_of(net, (tmp_path / "moved", photos[1]), folder).digest == maps.digest
    Image.new("RGB", (48, 36), "red").save(photos[0] / photos[1][1])
    assert maps_of(net, photos, folder).digest != maps.digest


def test_maps_of_a_picture_that_changes_meanwhile_have_a_name_of_their_own(net, photos, tmp_path, monkeypatch):
    def overwriting(images):
        Image.new("RGB", (48, 36), "red").save(photos[0] / photos[1][0])
        return RetrievalNet.maps(net, images)

    with monkeypatch.context() as patch:
        patch.setattr(net, "maps", overwriting)
        first = maps_of(net, photos, tmp_path / "maps")
    assert maps_of(net, photos, tmp_path / "maps").digest != first.digest


def test_maps_refuse_several_scales_and_what_float16_cannot_hold(net, photos, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="maps are of one scale"):
        maps_of(net, photos, tmp_path / "maps", Preprocess(scales=(1.0, 0.5)))
    mid = net.backbone.mid.forward
    monkeypatch.setattr(net.backbone.mid, "forward", lambda images: mid(images) + 1e5)
    with pytest.raises(ValueError, match=r"\d\d\.png: its mid is not finite in float16"):
        maps_of(net, photos, tmp_path / "maps")
