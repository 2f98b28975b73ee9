"""Local features of pictures, one file a kind, and what matches pictures by them.

A kind's file on stored maps has `extract(maps, *, count, **options) -> list[LocalFeatures]`, for each of the N pictures
of `maps` the `count` strongest. Optional: `fit(maps, labels, **options)` learns something on training landmarks only;
`extract` takes its result as `learned=`. `ssr_lib.files.load_part(name, "local")` finds a kind by its name, a dotted
module path or a .py file. A place of a map stands for the centre of its square: 16 pixels wide in `mid`, 32 in `last`;
of a ViT, whose patches are of another size, points are right up to that factor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssr_lib.heads import check_choice
from ssr_lib.store import Maps
from ssr_lib.whitening import Whitening

STRIDE = {"mid": 16, "last": 32}  # pixels of the network's input
Describe = Callable[[Tensor], tuple[Tensor, Tensor]]  # maps (B, C, H, W) → descriptors (B, D, H, W), weights (B, H, W)


@dataclass(frozen=True)
class LocalFeatures:
    """The n local features of a picture, the strongest first; n may be 0.

    `points` (n, 2) float32: x, y in pixels of the network's input. `descriptors` (n, D) float32, of unit length.
    `weights` (n,) float32: how strong each is, 0 or more, in the unit of its kind.
    """

    points: np.ndarray
    descriptors: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    @property
    def nbytes(self) -> int:
        return self.points.nbytes + self.descriptors.nbytes + self.weights.nbytes


def batches_of(maps: Maps, place: str, batch_size: int = 64) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Ids (B,) and the maps `place` ("mid" or "last"), float32 (B, C, H, W), of all pictures, each batch of one shape.

    Raises `ValueError` where that map was not stored.
    """
    check_choice("place", place, tuple(STRIDE))
    stored = getattr(maps, place)
    if stored is None:
        raise ValueError(f"the {place} maps are not stored; store them, or take the other place")
    alone = Maps(stored, None, maps.digest, maps.preprocess)
    for ids in alone.batches(batch_size):
        yield ids, alone.batch(ids)[0].clone()  # the next batch overwrites its buffer


def grid(height: int, width: int, stride: int) -> np.ndarray:
    """Centres (H · W, 2) float32 of the places of a map, row after row: x, y in pixels."""
    y, x = np.mgrid[:height, :width]
    return ((np.stack([x, y], axis=2).reshape(-1, 2) + 0.5) * stride).astype(np.float32)


def strongest(descriptors, weights, points, count: int, whitening: Whitening | None = None) -> LocalFeatures:
    """The `count` features of largest weight above 0, of (n, D), (n,) and (n, 2); equal ones in the order they came.

    Descriptors are whitened, then divided by their lengths; one without a length has no direction and is left out.
    """
    usable = np.flatnonzero((weights > 0) & (descriptors != 0).any(axis=1))
    kept = usable[np.argsort(-weights[usable], kind="stable")[:count]]
    rows = descriptors[kept].astype(np.float32)
    if whitening is not None:
        rows = whitening.apply(rows)
    lengths = np.linalg.norm(rows, axis=1)
    right = lengths > 0
    rows, kept = rows[right] / lengths[right, None], kept[right]
    return LocalFeatures(points[kept].astype(np.float32), rows, weights[kept].astype(np.float32))


def features_of(
    maps: Maps, place: str, describe: Describe, count: int, whitening: Whitening | None = None
) -> list[LocalFeatures]:
    """For each picture its `count` strongest places in the map `place`, as `strongest` takes them."""
    found: dict[int, LocalFeatures] = {}
    for ids, x in batches_of(maps, place):
        descriptors, weights = _numbers(describe, x)
        points = grid(*x.shape[2:], STRIDE[place])
        for i, rows, strength in zip(ids, descriptors, weights, strict=True):
            found[int(i)] = strongest(rows, strength, points, count, whitening)
    return [found[i] for i in range(len(maps))]


def sample(maps: Maps, place: str, describe: Describe, count: int, seed: int = 0) -> np.ndarray:
    """About `count` descriptors (n, D) float32 of random places, as many of each picture; all if there are fewer."""
    rng = np.random.default_rng(seed)
    each = -(-count // len(maps))  # rounded up
    found = []
    for _, x in batches_of(maps, place):
        rows = _numbers(describe, x)[0]  # (B, HW, D)
        for own in rows:
            found.append(own[rng.permutation(len(own))[:each]])
    return np.concatenate(found)


@torch.no_grad()
def _numbers(describe: Describe, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors (B, HW, D) and weights (B, HW), float32."""
    descriptors, weights = describe(x)
    rows = descriptors.flatten(2).transpose(1, 2)
    return rows.float().cpu().numpy(), weights.flatten(1).float().cpu().numpy()
