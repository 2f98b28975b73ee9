"""The frozen trunk's maps: computed once, kept on disk, read by every head that is trained or tested on them.

The trunk never changes in this study and costs most of a forward pass, so its maps are stored as one memory-mapped array
of float16 (N, C, H, W), made shard by shard (`data/shards.py`), with a record of what made it and a checksum a shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ssr_lib.benchmark import Box
from ssr_lib.files import digest
from ssr_lib.images import ImageError, Preprocess
from ssr_lib.loading import Loaded, load_ahead, load_tensors
from ssr_lib.network import RetrievalNet, weights_digest
from ssr_lib.pooling import grid_gem
from ssr_lib.self_similarity import structural_descriptor
from ssr_lib.store import ShardedArray, made_by_of, stored_shape

FORMAT = "ssr-maps-2"
SHARD = 256  # images under one checksum, and the most that a killed run repeats


def describe_maps(
    net: RetrievalNet,
    files: Sequence[str | Path],
    preprocess: Preprocess,
    root: str | Path = ".",
    boxes: Sequence[Box | None] | None = None,
) -> dict[str, Any]:
    """All that maps depend on, JSON-able; images are known by name and size in bytes."""
    sizes = [(Path(root) / file).stat().st_size for file in files]
    boxes = [None if box is None else [float(v) for v in box] for box in boxes or [None] * len(files)]
    return {
        "backbone": net.config["backbone"],
        "relup": net.config["relup"],
        "trunk": weights_digest(net.backbone.trunk),
        "preprocess": preprocess.to_dict(),
        "images": len(files),
        "files": digest([[Path(file).as_posix(), *rest] for file, *rest in zip(files, sizes, boxes, strict=True)]),
    }


def compute_maps(
    net: RetrievalNet,
    files: Sequence[str | Path],
    preprocess: Preprocess,
    directory: str | Path,
    *,
    root: str | Path = ".",
    boxes: Sequence[Box | None] | None = None,
    batch_size: int = 32,
    workers: int = 2,
    progress: bool = True,
) -> np.memmap:
    """Maps of `net.trunk` for `files` under `root`, float16 (N, C, H, W), read-only, memory-mapped from `directory`.

    What is on disk already is checked and kept: complete maps are only opened, interrupted ones are continued, a
    damaged shard is computed again with a warning. `boxes`: for each image a crop or None. `workers` threads decode
    ahead of the trunk, which runs on the device that `net` is on. All maps need one size: `preprocess` with size_rule
    "fixed", or images of one shape. Raises `ImageError` naming a file that cannot be used, `ValueError` where `directory`
    was made from something else or an activation does not fit float16, `FolderBusyError` where another process computes
    them, `OSError` where the disk is full.
    """
    if not files:
        raise ValueError(f"no images to compute the maps of {directory} from")
    if len(preprocess.scales) != 1:
        raise ValueError(f"maps are of one scale; preprocess has scales {preprocess.scales}")
    paths = [Path(root) / file for file in files]
    boxes = boxes or [None] * len(files)
    made_by, names = describe_maps(net, files, preprocess, root, boxes), [str(file) for file in files]
    shape = stored_shape(directory)
    if shape is None:
        shape = _trunk_maps(net, load_tensors(paths[0], preprocess, boxes[0])[0][None]).shape[1:]  # (C, H, W)
    store = ShardedArray(directory, {"format": FORMAT, **made_by}, names, shape, np.float16, SHARD)
    load = partial(load_ahead, preprocess=preprocess, workers=workers, ahead=2 * batch_size)
    fill = lambda missing: _fill(net, store, missing, names, paths, boxes, load, batch_size, progress)
    return store.completed(fill)[0]


def maps_provenance(maps: np.ndarray) -> dict[str, Any] | None:
    """What made `maps`, as `describe_maps` says it; None for an array that is not a whole one of `compute_maps`."""
    filename = getattr(maps, "filename", None)
    if filename and maps.flags.c_contiguous and maps.shape[1:] == stored_shape(Path(filename).parent):
        made_by = made_by_of(Path(filename).parent) or {}
        if made_by.pop("format", None) == FORMAT and made_by["images"] == len(maps):
            return made_by
    return None


def maps_digest(maps: np.ndarray) -> str:
    """A name for `maps`: of their provenance where it is known, else of their values.

    Provenance is the same on every machine, while the last bit of a map is not.
    """
    if made_by := maps_provenance(maps):
        return digest(made_by)
    values = np.ascontiguousarray(maps)
    return hashlib.sha256(f"{values.dtype} {values.shape}".encode() + values.tobytes()).hexdigest()


class MapReader:
    """Batches of cached maps as float32 on a device, through two buffers that are filled again for each batch.

    The tensor that comes back is overwritten by the next call. A fresh buffer for each step would cost more in page
    faults than the copy itself; channels last is the order in which the CPU convolves fastest.
    """

    def __init__(self, maps: np.ndarray, batch_size: int, device: torch.device | str = "cpu"):
        if maps.ndim != 4:
            raise ValueError(f"maps have shape {maps.shape}; (N, C, H, W) is wanted")
        self.maps = maps
        self._stored = np.empty((batch_size, *maps.shape[1:]), maps.dtype)
        self._batch = torch.empty(self._stored.shape, device=device).to(memory_format=torch.channels_last)

    def __call__(self, ids: np.ndarray) -> Tensor:
        """The maps `ids` (B,), at most batch_size of them: float32 (B, C, H, W)."""
        stored, batch = self._stored[: len(ids)], self._batch[: len(ids)]
        np.take(self.maps, ids, axis=0, out=stored, mode="clip")  # "raise" would buffer the output
        return batch.copy_(torch.from_numpy(stored))


def head_descriptors(net: RetrievalNet, maps: np.ndarray, batch_size: int = 128, progress: bool = False) -> np.ndarray:
    """Descriptors (N, D) float32, L2-normalised, of cached maps (N, C, H, W): `net.head` in eval mode."""
    return _rows_of(net, net.head, maps, batch_size, progress)


def pooled_features(net: RetrievalNet, maps: np.ndarray, batch_size: int = 128, progress: bool = False) -> np.ndarray:
    """What the whitening sees, (N, C) float32, of cached maps (N, C, H, W): `net.pooled` in eval mode."""
    return _rows_of(net, net.pooled, maps, batch_size, progress)


@torch.inference_mode()
def _rows_of(
    net: RetrievalNet, describe: Callable[[Tensor], Tensor], maps: np.ndarray, batch_size: int, progress: bool
) -> np.ndarray:
    training = net.training
    net.eval()
    reader, rows = MapReader(maps, min(batch_size, len(maps)), next(net.parameters()).device), None
    for start in tqdm(range(0, len(maps), batch_size), unit="batch", desc="descriptors", disable=not progress):
        ids = np.arange(start, min(start + batch_size, len(maps)))
        found = describe(reader(ids)).float().cpu().numpy()
        rows = np.empty((len(maps), found.shape[1]), np.float32) if rows is None else rows
        rows[ids] = found
    net.train(training)
    return rows


@torch.inference_mode()
def _trunk_maps(net: RetrievalNet, images: Tensor) -> Tensor:
    training = net.training
    net.eval()
    device = next(net.parameters()).device
    maps = net.trunk(images.to(device, memory_format=torch.channels_last))  # (B, 3, H, W) → (B, C, H/16, W/16)
    net.train(training)
    return maps.half().cpu()


def _fill(
    net: RetrievalNet,
    store: ShardedArray,
    missing: list[int],
    names: list[str],
    paths,
    boxes,
    load,
    batch_size: int,
    progress: bool,
) -> None:
    """Compute the missing shards of `store`, the pictures of the next already being decoded."""
    rows = [i for shard in missing for i in store.rows(shard)]
    loaded = load([paths[i] for i in rows], boxes=[boxes[i] for i in rows])
    with tqdm(total=len(rows), unit="img", desc=store.directory.name, disable=not (progress and rows)) as bar:
        for shard in missing:
            of_shard = [names[i] for i in store.rows(shard)]
            store.write(shard, _shard_maps(net, loaded, of_shard, store.row_shape, batch_size, bar))


def _shard_maps(
    net: RetrievalNet, loaded: Iterator[Loaded], names: Sequence, shape: Sequence[int], batch_size: int, bar: tqdm
) -> np.ndarray:
    """Maps (len(names), C, H, W) float16 of the next pictures of `loaded`."""
    maps = np.empty((len(names), *shape), np.float16)
    for start in range(0, len(names), batch_size):
        batch_names = names[start : start + batch_size]
        batch = []
        for name in batch_names:
            _, image = next(loaded)
            if isinstance(image, ImageError):
                raise image
            batch += image
            if image[0].shape != batch[0].shape:
                raise ValueError(
                    f"{name} gives a tensor {tuple(image[0].shape)}, {batch_names[0]} one of {tuple(batch[0].shape)}; "
                    "cached maps need one size: use a Preprocess with size_rule 'fixed'"
                )
        found = _trunk_maps(net, torch.stack(batch))
        if tuple(found.shape[1:]) != tuple(shape):
            raise ValueError(
                f"{batch_names[0]} gives a map {tuple(found.shape[1:])}, the first image one of {tuple(shape)}; "
                "cached maps need one size: use a Preprocess with size_rule 'fixed'"
            )
        finite = torch.isfinite(found).flatten(1).all(1)
        if not finite.all():
            worst = batch_names[int(finite.int().argmin())]
            raise ValueError(f"{worst}: an activation of the trunk is not finite in float16 (largest value 65504)")
        maps[start : start + len(batch)] = found.numpy()
        bar.update(len(batch))
    return maps


def describe_cached(variant: str, net: RetrievalNet, maps: np.ndarray, batch_size: int = 128) -> np.ndarray:
    """Descriptors (N, D) float32 of cached maps: the network's, or one of the training-free ones of the maps themselves."""
    if variant not in ("structural", "grid"):
        return head_descriptors(net, maps, batch_size)
    describe = structural_descriptor if variant == "structural" else grid_gem
    batches = (maps[start : start + batch_size] for start in range(0, len(maps), batch_size))
    with torch.inference_mode():
        return np.concatenate([describe(torch.from_numpy(np.asarray(batch, np.float32))).numpy() for batch in batches])
