"""Pictures to arrays on disk: descriptors of a whole network, or the maps that its frozen part gives to heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ssr_lib.benchmark import Benchmark
from ssr_lib.datasets.folder import listed
from ssr_lib.decode import ImageError
from ssr_lib.images import Preprocess
from ssr_lib.loading import batches_of_one_size, load_ahead
from ssr_lib.network import RetrievalNet, weights_digest
from ssr_lib.pooling import SmallMapError, combine_scales
from ssr_lib.store import SHARD, Maps, Store

Arrays = dict[str, np.ndarray]
Compute = Callable[[Sequence[Tensor]], Arrays]  # a batch at each scale, (B, 3, H, W) → arrays by name, first axis B


def pick_device(name: str) -> torch.device:
    """The device `name`, as "cuda:1"; "auto" is a GPU where there is one. Raises `ValueError` where there is not."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name}: {str(error).splitlines()[0]}") from error


def computed(
    compute: Compute, paths: Sequence, preprocess: Preprocess, *, boxes=None, batch_size=16, workers=None, progress=True
) -> Iterator[list[Arrays | ImageError]]:
    """Yield a list for every `SHARD` pictures, in order: the arrays of each, or why it has none."""
    loaded = load_ahead(paths, preprocess, boxes, workers=workers)
    loaded = iter(tqdm(loaded, total=len(paths), unit="image", disable=not progress))
    for start in range(0, len(paths), SHARD):
        done: dict[int, Arrays | ImageError] = {}
        for numbers, scales in batches_of_one_size(islice(loaded, SHARD), batch_size):
            if isinstance(scales, ImageError):
                done[numbers[0]] = scales
                continue
            try:
                arrays = compute(scales)
            except SmallMapError as error:
                done |= {i: ImageError(f"{paths[i]}: {error}") for i in numbers}
                continue
            for row, i in enumerate(numbers):
                done[i] = _usable({name: array[row] for name, array in arrays.items()}, paths[i])
        yield [done[i] for i in range(start, start + len(done))]


def _usable(arrays: Arrays, path: Path | str) -> Arrays | ImageError:
    """The arrays, or why they say nothing of the picture; `ValueError` where they are not finite."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{path}: its {name} is not finite in {array.dtype}; see the weights")
        if array.min() == array.max():  # GeM makes a small constant of a map of zeros
            return ImageError(f"{path}: its {name} is the same number everywhere, so the network sees nothing in it")
    return arrays


def _refuse_unusable(found: Sequence[Arrays | ImageError]) -> None:
    unusable = [str(picture) for picture in found if isinstance(picture, ImageError)]
    if unusable:
        raise ImageError(listed(unusable, "of the pictures cannot be used"))


def _stored(compute, made_by, files, preprocess, directory, *, root=".", boxes=None, **options) -> Store:
    """What `compute` makes of some pictures, in a complete store; `ImageError` at the end names all unusable ones."""
    store = Store(directory, {**made_by, "preprocess": preprocess.to_dict()}, files, root, boxes)

    def make(missing: list[int]) -> None:
        numbers = list(chain.from_iterable(store.shards[shard] for shard in missing))
        crops = None if boxes is None else [boxes[i] for i in numbers]
        found = computed(compute, [store.paths[i] for i in numbers], preprocess, boxes=crops, **options)
        unusable = []
        for shard, pictures in zip(missing, found, strict=True):
            failed = [picture for picture in pictures if isinstance(picture, ImageError)]
            unusable += failed
            if not failed:
                store.write(shard, pictures)
        _refuse_unusable(unusable)

    store.complete(make)
    return store


# ---- descriptors of whole networks


def descriptors_of(net: nn.Module, preprocess: Preprocess, device="cpu", dtype=torch.float32) -> Compute:
    """The step from a batch to "descriptor" (B, D) float32, L2-normalised, its scales joined as `preprocess` says.

    `net`: images (B, 3, H, W) → (B, D); it is moved to `device` and left in eval mode. It takes `normalize=False` where
    scales are joined without normalisation, as `RetrievalNet` does. `dtype`: of autocast.
    """
    device = torch.device(device)
    net.to(device).eval()
    options = {} if preprocess.normalize_scales else {"normalize": False}
    method = "mean" if preprocess.join == "mean" else "scale-gem"

    @torch.inference_mode()
    def compute(scales: Sequence[Tensor]) -> Arrays:
        rows = []
        for images in scales:
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                rows.append(net(images.to(device, non_blocking=True), **options))
        joined = combine_scales(torch.stack(rows).float(), method, normalize=preprocess.normalize_scales)
        return {"descriptor": joined.cpu().numpy()}  # (S, B, D) → (B, D)

    return compute


def describe(
    net: nn.Module, files: Sequence, preprocess: Preprocess, device="cpu", dtype=torch.float32, **options
) -> np.ndarray:
    """Descriptors (N, D) float32 of a few files, in memory. Options and errors are those of `extract`."""
    compute = descriptors_of(net, preprocess, device, dtype)
    found = list(chain.from_iterable(computed(compute, files, preprocess, progress=False, **options)))
    _refuse_unusable(found)
    return np.stack([arrays["descriptor"] for arrays in found])


def extract(
    net: nn.Module, files: Sequence, preprocess: Preprocess, directory, device="cpu", dtype=torch.float32, **options
) -> np.ndarray:
    """Describe N pictures into `directory` and return their descriptors (N, D) float32, L2-normalised.

    `net`, `dtype`: as for `descriptors_of`, with a JSON-able `net.config`. `options`: `root` of the files, `boxes` (for
    each file a crop (x0, y0, x1, y1) in pixels, or None), `batch_size`, `workers` (decoding threads), `progress`. An
    interrupted run goes on where it stopped, at most a shard of pictures earlier.

    Raises `ImageError` with all pictures that cannot be used, after the others are stored; `ValueError` for
    a `directory` that holds rows of another model, preprocessing or list of files, and for a descriptor that is
    not finite; `FolderBusyError` where another process is writing there; `OSError` where the disk is full.
    """
    made_by = {"format": "ssr-descriptors-2", "net": net.config, "weights": weights_digest(net)}
    made_by["dtype"] = str(dtype).removeprefix("torch.")
    store = _stored(descriptors_of(net, preprocess, device, dtype), made_by, files, preprocess, directory, **options)
    return np.stack(list(store.arrays("descriptor")))


def extract_benchmark(
    net: nn.Module, benchmark: Benchmark, preprocess: Preprocess, directory: Path | str, **options
) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors of a benchmark: queries (Q, D) and database (N, D), float32, below `directory`.

    Queries are cropped to their boxes. Where every query is a whole database image, its row is taken from there.
    `options` and what is raised: see `extract`.
    """
    options |= {"root": benchmark.root}
    database = extract(net, benchmark.database, preprocess, Path(directory, "database"), **options)
    if min(benchmark.query_ids, default=-1) >= 0 and all(box is None for box in benchmark.boxes):
        return database[np.asarray(benchmark.query_ids)], database
    options |= {"boxes": benchmark.boxes}
    return extract(net, benchmark.queries, preprocess, Path(directory, "queries"), **options), database


# ---- maps of the frozen part


@torch.inference_mode()
def _frozen_maps(net: RetrievalNet, scales: Sequence[Tensor]) -> Arrays:
    """Maps (B, H, W, C) float16 of a batch of one scale, by name: those that the network needs."""
    images = scales[0].to(next(net.parameters()).device, memory_format=torch.channels_last)
    named = zip(("mid", "last"), net.maps(images), strict=True)
    return {name: x.permute(0, 2, 3, 1).half().cpu().numpy() for name, x in named if x is not None}


def compute_maps(net: RetrievalNet, files: Sequence, preprocess: Preprocess, directory: Path | str, **options) -> Maps:
    """Maps of N pictures by the frozen part of `net`, on the device that it is on, stored in `directory`.

    Stored are the maps that the network needs: end to end `mid` only. `options`: as for `extract`. Raises `ValueError`
    where an activation does not fit float16 or `preprocess` has several scales, and otherwise as `extract`.
    """
    if len(preprocess.scales) != 1:
        raise ValueError(f"maps are of one scale; preprocess has scales {preprocess.scales}")
    names = list(_frozen_maps(net, [torch.zeros(1, 3, 64, 64)]))
    pieces = [net.backbone.mid] if net.end_to_end else [net.backbone.mid, net.backbone.last]
    made_by = {"format": "ssr-maps-3", "backbone": net.backbone.name, "maps": names}
    made_by |= {"weights": [weights_digest(piece) for piece in pieces], "relup": net.config["relup"]}
    store = _stored(partial(_frozen_maps, net), made_by, files, preprocess, directory, **options)
    maps = {name: list(store.arrays(name)) for name in names}
    return Maps(maps.get("mid"), maps.get("last"), store.digest, preprocess.to_dict())


def describe_maps(net: RetrievalNet, maps: Maps, batch_size: int = 128) -> np.ndarray:
    """Descriptors (N, D) float32, L2-normalised, of stored maps: `net.from_maps` in eval mode."""
    return _rows_of(net, net.from_maps, maps, batch_size)


def pooled_features(net: RetrievalNet, maps: Maps, batch_size: int = 128) -> np.ndarray:
    """What the whitening sees, (N, C) float32, of stored maps: `net.pooled` in eval mode."""
    return _rows_of(net, net.pooled, maps, batch_size)


@torch.inference_mode()
def _rows_of(net: RetrievalNet, describe: Callable[..., Tensor], maps: Maps, batch_size: int) -> np.ndarray:
    training, rows = net.training, {}
    device = next(net.parameters()).device
    net.eval()
    for ids in maps.batches(batch_size):
        rows |= zip(ids, describe(*maps.batch(ids, device)).float().cpu().numpy(), strict=True)
    net.train(training)
    return np.stack([rows[i] for i in range(len(maps))])
