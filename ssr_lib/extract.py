"""Pictures to global descriptors on disk: resumable, memory-mapped, with a record of what made them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ssr_lib.benchmark import Benchmark
from ssr_lib.files import digest
from ssr_lib.images import ImageError, Preprocess
from ssr_lib.loading import Loaded, batches_of_one_size, load_ahead
from ssr_lib.network import weights_digest
from ssr_lib.pooling import SmallMapError, combine_scales
from ssr_lib.store import ShardedArray

NAMES_SHOWN = 10  # unreadable files an error message lists


class UnreadableImagesError(ImageError):
    """Pictures that could not be described; `.failed` maps their number to the reason."""

    def __init__(self, failed: dict[int, str]):
        self.failed = failed
        shown = "; ".join(list(failed.values())[:NAMES_SHOWN])
        more = f"; and {len(failed) - NAMES_SHOWN} more" if len(failed) > NAMES_SHOWN else ""
        super().__init__(f"{len(failed)} of the pictures cannot be used: {shown}{more}")


def pick_device(name: str) -> torch.device:
    """The device `name`, such as "cpu" or "cuda:1"; "auto": a GPU where there is one. Raises `ValueError` where it is not."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name}: {str(error).splitlines()[0]}") from error
    return device


@torch.inference_mode()
def describe_batch(net: nn.Module, scales: Sequence[torch.Tensor], preprocess: Preprocess, device, dtype) -> np.ndarray:
    """Descriptors (B, D) float32 of a batch, joined over its scales, each (B, 3, H, W), as `preprocess` says.

    `net` takes `normalize=False` where the scales are joined without normalisation, as `RetrievalNet` does.
    """
    device, options = torch.device(device), {} if preprocess.normalize_scales else {"normalize": False}
    described = []
    for images in scales:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            described.append(net(images.to(device, non_blocking=True), **options))
    stacked = torch.stack(described).float()  # (S, B, D)
    method = "mean" if preprocess.join == "mean" else "scale-gem"
    return combine_scales(stacked, method, normalize=preprocess.normalize_scales).cpu().numpy()  # (B, D)


def _described(
    net: nn.Module, loaded: Iterable[Loaded], files: Sequence, preprocess: Preprocess, batch_size: int, device, dtype
) -> Iterator[tuple[int, np.ndarray | ImageError]]:
    """Yield each loaded picture's number with its descriptor (D,), or with why it has none; not in order. `files`: by number."""
    unusable = []

    def usable() -> Iterator[tuple[int, list[torch.Tensor]]]:
        for i, tensors in loaded:
            if isinstance(tensors, ImageError):
                unusable.append((i, tensors))
            else:
                yield i, tensors

    for numbers, scales in batches_of_one_size(usable(), batch_size):
        try:
            rows = describe_batch(net, scales, preprocess, device, dtype)  # (B, D)
        except SmallMapError as error:
            unusable += [(i, ImageError(f"{files[i]}: {error}")) for i in numbers]
            continue
        if rows.shape != (len(numbers), net.descriptor_dim):
            raise ValueError(
                f"the net gave {rows.shape} for {len(numbers)} pictures; its descriptor_dim is {net.descriptor_dim}"
            )
        yield from zip(numbers, rows, strict=True)
    yield from unusable


def _refuse_useless(row: np.ndarray, path: Path | str) -> None:
    if not np.isfinite(row).all() or not row.any():
        what = "is zero" if np.isfinite(row).all() else "holds NaN or infinity"
        raise ValueError(f"{path}: its descriptor {what}; the weights are damaged, or the dtype is too narrow for them")


def describe(
    net: nn.Module,
    files: Sequence[Path | str],
    preprocess: Preprocess,
    *,
    boxes: Sequence | None = None,
    batch_size: int = 16,
    workers: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> np.ndarray:
    """Descriptors (N, D) float32 of a few files, in memory. Raises as `extract` does."""
    net = net.to(device).eval()
    loaded = load_ahead(files, preprocess, boxes, workers=workers, ahead=2 * batch_size)
    rows, failed = np.empty((len(files), net.descriptor_dim), dtype=np.float32), {}
    for i, row in _described(net, loaded, files, preprocess, batch_size, device, dtype):
        if isinstance(row, ImageError):
            failed[i] = str(row)
        else:
            _refuse_useless(row, files[i])
            rows[i] = row
    if failed:
        raise UnreadableImagesError(failed)
    return rows


def extract(
    net: nn.Module,
    files: Sequence[Path | str],
    preprocess: Preprocess,
    directory: Path | str,
    *,
    boxes: Sequence | None = None,
    root: Path | str | None = None,
    batch_size: int = 16,
    workers: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    shard_size: int = 256,
    on_error: str = "raise",
    progress: bool = True,
) -> np.memmap | tuple[np.memmap, dict[int, str]]:
    """Describe N pictures into `directory` and return their descriptors (N, D) float32, L2-normalised, memory-mapped.

    `net`: images (B, 3, H, W) → (B, D), with a JSON-able `.config` and `.descriptor_dim`; it is moved to `device` and
    left in eval mode. `files`: names relative to `root`. `boxes`: for each file a crop (x0, y0, x1, y1) in pixels, or
    None. `dtype`: of autocast. An interrupted run goes on where it stopped, at most `shard_size` pictures earlier.

    Pictures that cannot be used: `on_error="raise"` raises `UnreadableImagesError` with all of them, after the others
    are stored; `on_error="list"` returns (descriptors, reasons by number), and their rows are NaN.
    Raises `ValueError` where `directory` holds rows of another model, preprocessing or list of files, or a descriptor
    is not finite, `FolderBusyError` where another process is writing there, `OSError` where the disk is full.
    """
    if on_error not in ("raise", "list"):
        raise ValueError(f"on_error is {on_error!r}; 'raise' or 'list' is wanted")
    if len(files) == 0:
        raise ValueError("no files to describe")
    if boxes is not None and len(boxes) != len(files):
        raise ValueError(f"{len(boxes)} boxes for {len(files)} files; one for each (or None) is wanted")
    paths = [Path(root or ".") / file for file in files]
    net = net.to(device).eval()
    store = ShardedArray(
        directory,
        made_by={
            "format": "ssr-descriptors-1",
            "net": net.config,
            "weights_sha256": weights_digest(net),
            "preprocess": preprocess.to_dict(),
            "dtype": str(dtype).removeprefix("torch."),
            "n_files": len(files),
            "files_sha256": digest([str(file) for file in files]),
            "boxes_sha256": digest([None if box is None else [float(v) for v in box] for box in boxes or []]),
        },
        items=[f"{file} {_size(path)}" for file, path in zip(files, paths, strict=True)],
        row_shape=(net.descriptor_dim,),
        dtype=np.float32,
        shard_size=shard_size,
    )
    run = partial(_described, net, preprocess=preprocess, batch_size=batch_size, device=device, dtype=dtype)
    load = partial(load_ahead, preprocess=preprocess, workers=workers, ahead=2 * batch_size)
    fill = lambda missing: _fill(store, missing, paths, boxes, load, run, progress)
    descriptors, failed = store.completed(fill, retry_failed=on_error == "raise")
    if on_error == "list":
        return descriptors, failed
    if failed:
        raise UnreadableImagesError(failed)
    return descriptors


def _fill(store: ShardedArray, missing: list[int], paths, boxes, load, run, progress: bool) -> None:
    """Make the missing shards of `store`, the pictures of the next already being decoded."""
    numbers = [i for shard in missing for i in store.rows(shard)]
    files = [paths[i] for i in numbers]
    loaded = load(files, boxes=None if boxes is None else [boxes[i] for i in numbers])
    with tqdm(total=len(paths), initial=len(paths) - len(numbers), unit="image", disable=not progress) as bar:
        for shard in missing:
            of_shard = store.rows(shard)
            rows, failed = np.full((len(of_shard), *store.row_shape), np.nan, dtype=np.float32), {}
            for j, row in run(loaded=islice(loaded, len(of_shard)), files=files):
                i = numbers[j]
                if isinstance(row, ImageError):
                    failed[i] = str(row)
                else:
                    _refuse_useless(row, paths[i])
                    rows[i - of_shard.start] = row
                bar.update()
            store.write(shard, rows, failed)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1  # it will be reported when it is opened


def extract_benchmark(
    net: nn.Module, benchmark: Benchmark, preprocess: Preprocess, directory: Path | str, **options
) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors of a benchmark: queries (Q, D) and database (N, D), float32, below `directory`.

    Queries are cropped to their boxes. Where every query is a whole database image, its row is taken from there.
    `options` and what is raised: see `extract`.
    """
    of = lambda files, part, **more: extract(
        net, files, preprocess, Path(directory) / part, root=benchmark.root, on_error="raise", **more, **options
    )
    database = of(benchmark.database, "database")
    ids = np.asarray(benchmark.query_ids, dtype=np.int64)
    if len(ids) and (ids >= 0).all() and all(box is None for box in benchmark.boxes):
        return database[ids], database
    return of(benchmark.queries, "queries", boxes=benchmark.boxes), database
