"""The frozen trunk's maps: computed once, kept on disk, read by every head that is trained or tested on them.

The trunk never changes in this study and costs most of a forward pass, so its maps are stored as one .npy file of
float16 (N, C, H, W) with a JSON sidecar that says what made it and holds a checksum for each chunk of images.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ssr_lib.data.benchmark import Box, write_atomic
from ssr_lib.data.images import ImageError, Preprocess
from ssr_lib.data.loading import Loaded, load_ahead, load_tensors
from ssr_lib.data.locking import folder_lock
from ssr_lib.data.shards import digest
from ssr_lib.models.network import RetrievalNet
from ssr_lib.models.pooling import grid_gem
from ssr_lib.models.self_similarity import structural_descriptor

FORMAT = "ssr-maps-1"
CHUNK = 256  # images under one checksum, and the most that a killed run repeats


def weights_digest(module: nn.Module) -> str:
    """SHA-256 in hexadecimal of a module's parameters and buffers with their names."""
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def describe_maps(
    net: RetrievalNet,
    files: Sequence[str | Path],
    preprocess: Preprocess,
    root: str | Path = ".",
    boxes: Sequence[Box | None] | None = None,
) -> dict[str, Any]:
    """All that a map file depends on, JSON-able; images are known by name and size in bytes."""
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
    path: str | Path,
    *,
    root: str | Path = ".",
    boxes: Sequence[Box | None] | None = None,
    batch_size: int = 32,
    workers: int = 2,
    progress: bool = True,
) -> np.memmap:
    """Maps of `net.trunk` for `files` under `root`, float16 (N, C, H, W), read-only, in the file `path` (.npy).

    What is on disk already is checked and kept: a complete file is only opened, an interrupted one is continued, a
    damaged chunk is computed again with a warning. `boxes`: for each image a crop or None. `workers` threads decode
    ahead of the trunk, which runs on the device that `net` is on. All maps need one size: `preprocess` with size_rule
    "fixed", or images of one shape. Raises `ImageError` naming a file that cannot be used, `ValueError` where `path`
    was made from something else or an activation does not fit float16, `FolderBusyError` where another process computes
    them, `OSError` where the disk is too small.
    """
    if not files:
        raise ValueError(f"no images to compute the maps of {path} from")
    if len(preprocess.scales) != 1:
        raise ValueError(f"maps are of one scale; preprocess has scales {preprocess.scales}")
    paths = [Path(root) / file for file in files]
    boxes = boxes or [None] * len(files)
    made_by = describe_maps(net, files, preprocess, root, boxes)
    store = MapFile(Path(path), made_by)
    if store.exists() and not store.unfinished_chunks():
        return store.finish()
    with folder_lock(store.path.parent, f".{store.path.name}.lock"):
        store = MapFile(Path(path), made_by)  # as it is now that nobody else writes
        if not store.exists():
            first = load_tensors(paths[0], preprocess, boxes[0])[0]
            store.create((len(files), *_trunk_maps(net, first[None]).shape[1:]))
        missing = store.unfinished_chunks()
        rows = [i for chunk in missing for i in store.rows(chunk)]
        loaded = load_ahead(
            [paths[i] for i in rows], preprocess, [boxes[i] for i in rows], workers=workers, ahead=2 * batch_size
        )
        with tqdm(total=len(rows), unit="img", desc=store.path.stem, disable=not (progress and rows)) as bar:
            for chunk in missing:
                names = [files[i] for i in store.rows(chunk)]
                store.write(chunk, _chunk_maps(net, loaded, names, store.shape[1:], batch_size, bar))
        return store.finish()


class MapFile:
    """A .npy file of maps that grows chunk by chunk under the name path.part, with its sidecar path.json.

    Raises `ValueError` where there is a sidecar that says other than `made_by`.
    """

    def __init__(self, path: Path, made_by: dict[str, Any]):
        if path.suffix != ".npy":
            raise ValueError(f"maps are kept in a .npy file; {path} is not named so")
        self.path, self.partial = path, path.with_name(path.name + ".part")
        self.sidecar_file = sidecar_file(path)
        self.sidecar: dict[str, Any] = {"format": FORMAT, "made_by": made_by, "chunk": CHUNK, "shape": [], "crc32": {}}
        if self.sidecar_file.is_file():
            self.sidecar = self._read_sidecar(made_by)

    def _read_sidecar(self, made_by: dict[str, Any]) -> dict[str, Any]:
        remedy = f"choose another path, or delete {self.path.name} and its .json"
        try:
            sidecar = json.loads(self.sidecar_file.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.sidecar_file} is damaged ({error}); {remedy}") from error
        if sidecar.get("format") != FORMAT or sidecar.get("chunk") != CHUNK:
            raise ValueError(f"{self.sidecar_file} is not of format {FORMAT} with chunks of {CHUNK}; {remedy}")
        for key, wanted in made_by.items():
            found = sidecar["made_by"].get(key)
            if found != wanted:
                raise ValueError(f"{self.path} holds maps of another {key}: {found!r}, wanted {wanted!r}; {remedy}")
        return sidecar

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.sidecar["shape"])

    @property
    def data_file(self) -> Path:
        return self.path if self.path.is_file() else self.partial

    def exists(self) -> bool:
        """Whether there is a file to go on with; one that is cut short counts as none, with a warning."""
        if not (self.shape and self.data_file.is_file()):
            return False
        try:
            np.load(self.data_file, mmap_mode="r")
        except (ValueError, EOFError) as error:
            warnings.warn(f"{self.data_file} is damaged ({error}); it is computed again", stacklevel=3)
            self.data_file.unlink()
            return False
        return True

    def rows(self, chunk: int) -> range:
        return range(self.shape[0])[chunk * CHUNK : (chunk + 1) * CHUNK]

    def create(self, shape: tuple[int, ...]) -> None:
        """Make the partial file at its full length. Raises `OSError` where the disk is too small."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        needed, free = 2 * int(np.prod(shape)), shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise OSError(f"{self.path} needs {needed / 1e6:.0f} MB; {free / 1e6:.0f} MB are free on its disk")
        np.lib.format.open_memmap(self.partial, mode="w+", dtype=np.float16, shape=shape).flush()
        self.sidecar |= {"shape": list(shape), "crc32": {}}

    def unfinished_chunks(self) -> list[int]:
        """Chunks that are not on disk, or whose bytes no longer have the checksum in the sidecar."""
        maps = np.load(self.data_file, mmap_mode="r")
        if maps.shape != self.shape:
            raise ValueError(f"{self.data_file} holds maps {maps.shape}, its sidecar says {self.shape}; delete both")
        unfinished = []
        for chunk in range(math.ceil(len(maps) / CHUNK)):
            recorded, rows = self.sidecar["crc32"].get(str(chunk)), self.rows(chunk)
            if recorded is None:
                unfinished.append(chunk)
            elif recorded != zlib.crc32(maps[rows.start : rows.stop]):
                warnings.warn(f"{self.data_file}: chunk {chunk} is damaged; it is computed again", stacklevel=3)
                unfinished.append(chunk)
        return unfinished

    def write(self, chunk: int, maps: np.ndarray) -> None:
        """Store the maps (rows, C, H, W) float16 of a chunk, then its checksum: a chunk without one does not count."""
        offset = np.load(self.data_file, mmap_mode="r").offset
        with open(self.data_file, "r+b") as file:
            file.seek(offset + self.rows(chunk).start * maps[0].nbytes)
            file.write(maps.data)
        self.sidecar["crc32"][str(chunk)] = zlib.crc32(maps)
        write_atomic(self.sidecar_file, json.dumps(self.sidecar, indent=1) + "\n")

    def finish(self) -> np.memmap:
        """Give the file its name and open it."""
        if self.data_file == self.partial:
            os.replace(self.partial, self.path)
        return np.load(self.path, mmap_mode="r")


def sidecar_file(path: Path) -> Path:
    """Where the sidecar of a map file lies."""
    return path.with_name(path.name + ".json")


def maps_provenance(maps: np.ndarray) -> dict[str, Any] | None:
    """What made `maps`, as `describe_maps` says it; None for an array that is not a whole file of `compute_maps`."""
    filename = getattr(maps, "filename", None)
    if filename and sidecar_file(Path(filename)).is_file():
        sidecar = json.loads(sidecar_file(Path(filename)).read_text(encoding="utf-8"))
        if tuple(sidecar["shape"]) == maps.shape and maps.flags.c_contiguous:
            return sidecar["made_by"]
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


@torch.inference_mode()
def head_descriptors(net: RetrievalNet, maps: np.ndarray, batch_size: int = 128, progress: bool = False) -> np.ndarray:
    """Descriptors (N, D) float32, L2-normalised, of cached maps (N, C, H, W): `net.head` in eval mode."""
    training = net.training
    net.eval()
    descriptors = np.empty((len(maps), net.descriptor_dim), np.float32)
    reader = MapReader(maps, min(batch_size, len(maps)), next(net.parameters()).device)
    for start in tqdm(range(0, len(maps), batch_size), unit="batch", desc="descriptors", disable=not progress):
        ids = np.arange(start, min(start + batch_size, len(maps)))
        descriptors[ids] = net.head(reader(ids)).float().cpu().numpy()
    net.train(training)
    return descriptors


@torch.inference_mode()
def _trunk_maps(net: RetrievalNet, images: Tensor) -> Tensor:
    training = net.training
    net.eval()
    device = next(net.parameters()).device
    maps = net.trunk(images.to(device, memory_format=torch.channels_last))  # (B, 3, H, W) → (B, C, H/16, W/16)
    net.train(training)
    return maps.half().cpu()


def _chunk_maps(
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
