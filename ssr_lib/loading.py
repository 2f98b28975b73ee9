"""Pictures decoded in threads, ahead of the model that uses them, and put together in batches of one size."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from ssr_lib.images import ImageError, Preprocess, load_image, to_tensors

MEMORY_BUDGET = 512 * 2**20  # bytes of tensors that may wait for others of their size

Loaded = tuple[int, "list[torch.Tensor] | ImageError"]  # number of the picture, its tensors for each scale


def load_tensors(path: Path | str, preprocess: Preprocess, box=None) -> list[torch.Tensor]:
    """A file's normalised float32 tensors (3, H, W), one for each scale. Raises `ImageError` naming the file."""
    image = load_image(path, exif_orientation=preprocess.exif_orientation)
    try:
        return to_tensors(image, preprocess, box)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def load_ahead(
    paths: Sequence[Path | str],
    preprocess: Preprocess,
    boxes: Sequence | None = None,
    *,
    workers: int | None = None,
    ahead: int = 32,
    memory_budget: int = MEMORY_BUDGET,
) -> Iterator[Loaded]:
    """Yield each picture's number and tensors, in order, with at most `ahead` of them decoded before their turn.

    Of large pictures fewer: as many as fit in `memory_budget` bytes if all were like the largest so far. In place of the
    tensors of a picture that cannot be used comes its `ImageError`. `workers`: threads, by default one for each core, 16
    at most (decoders and OpenCV let other threads run).
    """
    workers = workers or min(os.cpu_count() or 1, 16)

    def load(i: int) -> Loaded:
        try:
            return i, load_tensors(paths[i], preprocess, None if boxes is None else boxes[i])
        except ImageError as error:
            return i, error

    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting, largest = deque(), 0
        try:
            for i in range(len(paths)):
                waiting.append(pool.submit(load, i))
                while len(waiting) > (max(workers, min(ahead, memory_budget // largest)) if largest else workers):
                    loaded = waiting.popleft().result()
                    largest = max(largest, _bytes(loaded[1]))
                    yield loaded
            while waiting:
                yield waiting.popleft().result()
        finally:  # the caller stopped early: do not decode what nobody will see
            for future in waiting:
                future.cancel()


def batches_of_one_size(
    loaded: Iterable[tuple[int, list[torch.Tensor]]], batch_size: int, memory_budget: int = MEMORY_BUDGET
) -> Iterator[tuple[list[int], list[torch.Tensor]]]:
    """Yield (numbers, one tensor (B, 3, H, W) for each scale) with B ≤ `batch_size`, each batch of one picture size.

    Pictures wait for others of their size; where those waiting pass `memory_budget` bytes the fullest batch leaves.
    """
    groups: dict[tuple, list[tuple[int, list[torch.Tensor]]]] = {}
    waiting = 0

    def leave(shape: tuple) -> tuple[list[int], list[torch.Tensor]]:
        nonlocal waiting
        group = groups.pop(shape)
        waiting -= sum(_bytes(tensors) for _, tensors in group)
        return [i for i, _ in group], [torch.stack(scale) for scale in zip(*(t for _, t in group), strict=True)]

    for i, tensors in loaded:
        shape = tuple(tensor.shape for tensor in tensors)
        groups.setdefault(shape, []).append((i, tensors))
        waiting += _bytes(tensors)
        if len(groups[shape]) == batch_size:
            yield leave(shape)
        while waiting > memory_budget and groups:
            yield leave(max(groups, key=lambda s: sum(_bytes(t) for _, t in groups[s])))
    for shape in list(groups):
        yield leave(shape)


def _bytes(tensors: list[torch.Tensor] | ImageError) -> int:
    return 0 if isinstance(tensors, ImageError) else sum(tensor.nbytes for tensor in tensors)
