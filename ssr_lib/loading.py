"""Pictures decoded in threads, ahead of the model that uses them, and put together in batches of one size."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from ssr_lib.decode import ImageError, load_image
from ssr_lib.images import Preprocess, to_tensors

LEAST_SIDE = 17  # px: of less, next to nothing reaches the last map of an EfficientNet-Lite
WAITING = 1 << 28  # float32 numbers (1 GB) that wait for others of their size: 80 pictures of 1024 x 1024 px

Pictures = Mapping[str, tuple[Path, Sequence | None]]  # files and boxes (x0, y0, x1, y1) or None, by their keys


def load_tensors(path: Path | str, preprocess: Preprocess, box=None) -> list[torch.Tensor]:
    """A file's normalised float32 tensors (3, H, W), one for each scale.

    Raises `ImageError` naming the file, also where no scale has a side of `LEAST_SIDE` px.
    """
    image = load_image(path, exif_orientation=preprocess.exif_orientation)
    try:
        tensors = to_tensors(image, preprocess, box)
        _, height, width = max((tensor.shape for tensor in tensors), key=max)
        if max(height, width) < LEAST_SIDE:
            raise ImageError(f"the network would see {width} x {height} px; {LEAST_SIDE} px or more are wanted")
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    return tensors


def load_ahead(pictures: Pictures, preprocess: Preprocess, workers: int | None = None) -> Iterator[tuple[str, Future]]:
    """Yield each picture's key and what will be its `load_tensors`, in order; two a thread are decoded early.

    `workers`: threads, by default one for each core, 16 at most (decoders and OpenCV let other threads run).
    """
    workers = workers or min(os.cpu_count() or 1, 16)
    pool, waiting = ThreadPoolExecutor(workers), deque()
    try:
        for key, (path, box) in pictures.items():
            waiting.append((key, pool.submit(load_tensors, path, preprocess, box)))
            if len(waiting) > 2 * workers:
                yield waiting.popleft()
        yield from waiting
    finally:  # also where the caller stopped early: do not decode what nobody will see
        pool.shutdown(cancel_futures=True)


def batches_of_one_size(
    loaded: Iterable[tuple[str, Future]], batch_size: int, unusable: dict[str, ImageError]
) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Yield the tensors of `batch_size` pictures or fewer by their keys, each time of pictures of one size.

    `unusable` gets the errors of the pictures that could not be loaded, by their keys.
    """
    groups: dict[tuple, dict[str, list[torch.Tensor]]] = {}
    for key, future in loaded:
        try:
            tensors = future.result()
        except ImageError as error:
            unusable[key] = error
            continue
        shape = tuple(tensor.shape for tensor in tensors)
        groups.setdefault(shape, {})[key] = tensors
        sizes = {shape: len(group) * sum(scale.numel() for scale in shape) for shape, group in groups.items()}
        if len(groups[shape]) == batch_size:
            yield groups.pop(shape)
        elif sum(sizes.values()) > WAITING:  # the largest group leaves, not full
            yield groups.pop(max(sizes, key=sizes.get))
    yield from groups.values()
