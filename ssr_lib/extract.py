"""Pictures to arrays on disk: descriptors of a whole network, or the maps that its frozen part gives to heads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ssr_lib.backbones import Backbone, ReLUP
from ssr_lib.benchmark import Benchmark
from ssr_lib.datasets.folder import listed
from ssr_lib.decode import ImageError
from ssr_lib.images import Preprocess
from ssr_lib.loading import Loaded, batches_of_one_size, load_ahead
from ssr_lib.network import RetrievalNet, weights_digest
from ssr_lib.pooling import SmallMapError, combine_scales
from ssr_lib.store import Maps, Store

UNUSABLE = "of the pictures cannot be used"
Arrays = dict[str, np.ndarray]
Compute = Callable[[Sequence[Tensor]], Arrays]  # a batch at each scale, (B, 3, H, W) → arrays by name, first axis B


def pick_device(name: str) -> torch.device:
    """The device `name`, as "cuda:1"; "auto" is a GPU where there is one. Raises `ValueError` where there is not."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name}: {str(error).splitlines()[0]}") from error
    return device


def _computed(
    compute: Compute, loaded: Iterable[Loaded], paths: Sequence[Path | str], batch_size: int
) -> Iterator[tuple[int, Arrays | ImageError]]:
    """Yield each loaded picture's number with its arrays, or with why it has none; not in order. `paths`: by number."""
    unusable: dict[int, ImageError] = {}

    def usable() -> Iterator[tuple[int, list[Tensor]]]:
        for i, tensors in loaded:
            if isinstance(tensors, ImageError):
                unusable[i] = tensors
            else:
                yield i, tensors

    for numbers, scales in batches_of_one_size(usable(), batch_size):
        try:
            found = compute(scales)
        except SmallMapError as error:
            unusable |= {i: ImageError(f"{paths[i]}: {error}") for i in numbers}
            continue
        for row, i in enumerate(numbers):
            arrays = {name: array[row] for name, array in found.items()}
            for name, array in arrays.items():
                if not np.isfinite(array).all() or not array.any():
                    raise ValueError(f"{paths[i]}: its {name} is zero, or not finite in {array.dtype}; see the weights")
            yield i, arrays
    yield from unusable.items()


def _stored(
    compute, made_by, files, preprocess, directory, *, root=".", boxes=None, batch_size=16, workers=None, progress=True
) -> Store:
    """What `compute` makes of some pictures, in a complete store; `ImageError` at the end names all unusable ones."""
    store = Store(directory, {**made_by, "preprocess": preprocess.to_dict()}, files, root, boxes)

    def make(missing: list[int]) -> None:
        numbers = [i for shard in missing for i in store.shards[shard]]
        paths, failed = [store.paths[i] for i in numbers], []
        crops = None if boxes is None else [boxes[i] for i in numbers]
        loaded = load_ahead(paths, preprocess, crops, workers=workers)
        with tqdm(total=len(files), initial=len(files) - len(paths), unit="image", disable=not progress) as bar:
            for shard in missing:
                done = {}
                for place, arrays in _computed(compute, islice(loaded, len(store.shards[shard])), paths, batch_size):
                    done[numbers[place]] = arrays
                    bar.update()
                unusable = [str(done[i]) for i in store.shards[shard] if isinstance(done[i], ImageError)]
                failed += unusable
                if not unusable:
                    store.write(shard, [done[i] for i in store.shards[shard]])
        if failed:
            raise ImageError(listed(failed, UNUSABLE))

    store.complete(make)
    return store


# ---- descriptors of whole networks


@torch.inference_mode()
def _descriptors(net: nn.Module, preprocess: Preprocess, device, dtype, scales: Sequence[Tensor]) -> Arrays:
    """Descriptors (B, D) float32 of a batch, joined over its scales, each (B, 3, H, W), as `preprocess` says.

    `net` takes `normalize=False` where the scales are joined without normalisation, as `RetrievalNet` does.
    """
    device, options = torch.device(device), {} if preprocess.normalize_scales else {"normalize": False}
    rows = []
    for images in scales:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            rows.append(net(images.to(device, non_blocking=True), **options))
    method = "mean" if preprocess.join == "mean" else "scale-gem"
    stacked = torch.stack(rows).float()  # (S, B, D)
    joined = combine_scales(stacked, method, normalize=preprocess.normalize_scales)  # (B, D)
    return {"descriptor": joined.cpu().numpy()}


def described(
    net: nn.Module, files: Sequence, preprocess: Preprocess, device="cpu", dtype=torch.float32, batch_size=16, **loading
) -> Iterator[tuple[int, np.ndarray | ImageError]]:
    """Yield the number of each file with its descriptor (D,) float32, or with why it has none; not in order.

    `dtype`: of autocast. `loading`: `boxes` and `workers`, as for `load_ahead`.
    """
    compute = partial(_descriptors, net.to(device).eval(), preprocess, device, dtype)
    loaded = load_ahead(files, preprocess, **loading)
    for i, arrays in _computed(compute, loaded, files, batch_size):
        yield i, arrays if isinstance(arrays, ImageError) else arrays["descriptor"]


def describe(net: nn.Module, files: Sequence[Path | str], preprocess: Preprocess, **options) -> np.ndarray:
    """Descriptors (N, D) float32 of a few files, in memory. `options`: of `described`. Raises as `extract` does."""
    rows = dict(described(net, files, preprocess, **options))
    if failed := [str(row) for row in rows.values() if isinstance(row, ImageError)]:
        raise ImageError(listed(failed, UNUSABLE))
    return np.stack([rows[i] for i in range(len(files))])


def extract(
    net: nn.Module, files: Sequence, preprocess: Preprocess, directory, device="cpu", dtype=torch.float32, **options
) -> np.ndarray:
    """Describe N pictures into `directory` and return their descriptors (N, D) float32, L2-normalised.

    `net`: images (B, 3, H, W) → (B, D), with a JSON-able `.config` and `.descriptor_dim`; it is moved to `device` and
    left in eval mode. `dtype`: of autocast. `options`: `root` of the files, `boxes` (for each file a crop (x0, y0, x1,
    y1) in pixels, or None), `batch_size`, `workers` (decoding threads), `progress`. An interrupted run goes on where it
    stopped, at most a shard of pictures earlier.

    Raises `ImageError` with all pictures that cannot be used, after the others are stored; `ValueError` for
    a `directory` that holds rows of another model, preprocessing or list of files, and for a descriptor that is zero or
    not finite; `FolderBusyError` where another process is writing there; `OSError` where the disk is full.
    """
    made_by = {"format": "ssr-descriptors-2", "net": net.config, "weights": weights_digest(net)}
    made_by["dtype"] = str(dtype).removeprefix("torch.")
    compute = partial(_descriptors, net.to(device).eval(), preprocess, device, dtype)
    store = _stored(compute, made_by, files, preprocess, directory, **options)
    rows = np.empty((len(files), net.descriptor_dim), dtype=np.float32)
    for i, row in enumerate(store.arrays("descriptor")):
        rows[i] = row
    return rows


def extract_benchmark(
    net: nn.Module, benchmark: Benchmark, preprocess: Preprocess, directory: Path | str, **options
) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors of a benchmark: queries (Q, D) and database (N, D), float32, below `directory`.

    Queries are cropped to their boxes. Where every query is a whole database image, its row is taken from there.
    `options` and what is raised: see `extract`.
    """
    options |= {"root": benchmark.root}
    database = extract(net, benchmark.database, preprocess, Path(directory) / "database", **options)
    if min(benchmark.query_ids, default=-1) >= 0 and all(box is None for box in benchmark.boxes):
        return database[np.asarray(benchmark.query_ids)], database
    options |= {"boxes": benchmark.boxes}
    return extract(net, benchmark.queries, preprocess, Path(directory) / "queries", **options), database


# ---- maps of the frozen part


@torch.inference_mode()
def _frozen_maps(net: RetrievalNet | Backbone, scales: Sequence[Tensor]) -> Arrays:
    """Maps (B, H, W, C) float16 of a batch of one scale, by name: those that the network needs."""
    images = scales[0].to(next(net.parameters()).device, memory_format=torch.channels_last)
    maps = net.maps(images) if isinstance(net, RetrievalNet) else net(images)
    named = zip(("mid", "last"), maps, strict=True)
    return {name: x.permute(0, 2, 3, 1).half().cpu().numpy() for name, x in named if x is not None}


def compute_maps(
    net: RetrievalNet | Backbone, files: Sequence, preprocess: Preprocess, directory: Path | str, **options
) -> Maps:
    """Maps of N pictures by the frozen part of `net`, or by a whole backbone, stored in `directory`.

    Stored are the maps that the network needs: end to end `mid` only. The network runs on the device that it is on.
    `options`: as for `extract`. Raises `ValueError` where an activation does not fit float16 or `preprocess` has
    several scales, and otherwise as `extract`.
    """
    if len(preprocess.scales) != 1:
        raise ValueError(f"maps are of one scale; preprocess has scales {preprocess.scales}")
    backbone = net.backbone if isinstance(net, RetrievalNet) else net
    backbone.eval()
    names = list(_frozen_maps(net, [torch.zeros(1, 3, 64, 64)]))
    pieces = [backbone.mid] if names == ["mid"] else [backbone.mid, backbone.last]
    made_by = {"format": "ssr-maps-3", "backbone": backbone.name, "maps": names}
    made_by["weights"] = [weights_digest(piece) for piece in pieces]
    made_by["relup"] = next((layer.threshold for layer in backbone.modules() if isinstance(layer, ReLUP)), None)
    store = _stored(partial(_frozen_maps, net), made_by, files, preprocess, directory, **options)
    maps = {name: list(store.arrays(name, mapped=True)) for name in names}
    return Maps(maps.get("mid"), maps.get("last"), store.digest, preprocess.to_dict())


def describe_maps(net: RetrievalNet, maps: Maps, batch_size: int = 128) -> np.ndarray:
    """Descriptors (N, D) float32, L2-normalised, of stored maps: `net.from_maps` in eval mode."""
    return _rows_of(net, net.from_maps, maps, batch_size)


def pooled_features(net: RetrievalNet, maps: Maps, batch_size: int = 128) -> np.ndarray:
    """What the whitening sees, (N, C) float32, of stored maps: `net.pooled` in eval mode."""
    return _rows_of(net, net.pooled, maps, batch_size)


@torch.inference_mode()
def _rows_of(net: RetrievalNet, describe: Callable[..., Tensor], maps: Maps, batch_size: int) -> np.ndarray:
    training, device, rows = net.training, next(net.parameters()).device, {}
    net.eval()
    for ids in maps.batches(batch_size):
        rows |= zip(ids, describe(*maps.batch(ids, device)).float().cpu().numpy(), strict=True)
    net.train(training)
    return np.stack([rows[i] for i in range(len(maps))])
