"""Which picture a step of training sees, and a random view of it: crop, mirror, light.

The values are those of the public landmark training program bassyess/CFCD (datasets/commondataset.py and
transforms.py), which it shares with feymanpriv/DELG and DOLG: crops of 8 % to all of the area with an aspect ratio of
3/4 to 4/3, mirrored half of the time, with PCA lighting of deviation 0.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
from torch.utils.data import Dataset

from recipes.gldv2.recipe import Recipe
from ssr_lib.datasets.gldv2 import read_clean, read_ids
from ssr_lib.decode import load_image
from ssr_lib.images import Preprocess, to_tensors
from ssr_lib.train import epoch_order

SCALES = (0.7071, 1.0, 1.4142)  # at test, as the descendants of DELG (sungonce/SENet, core/config.py)
SMALLEST_AREA = 0.08  # share of the picture
ASPECT = (3 / 4, 4 / 3)
LIGHTING = 0.1
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])  # of the colours of ImageNet's pixels in [0, 1], RGB (ibid.)
EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


def random_box(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A crop (x0, y0, x1, y1) in whole pixels; the largest central square if ten draws do not fit."""
    for _ in range(10):
        area, aspect = rng.uniform(SMALLEST_AREA, 1.0) * height * width, rng.uniform(*ASPECT)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return x, y, x + w, y + h
    side = min(height, width)
    x, y = (width - side) // 2, (height - side) // 2
    return x, y, x + side, y + side


def random_light(rng: np.random.Generator) -> np.ndarray:
    """A shift of red, green and blue, (3,), along the main axes of natural colour (Krizhevsky et al., NeurIPS 2012)."""
    return EIGENVECTORS @ (rng.normal(0.0, LIGHTING, 3) * EIGENVALUES)


def random_view(image: np.ndarray, size: int, preprocess: Preprocess, rng: np.random.Generator) -> torch.Tensor:
    """A training view (3, size, size) float32 of a picture (H, W, 3) uint8 RGB; colours as `preprocess` says."""
    x0, y0, x1, y1 = random_box(*image.shape[:2], rng)
    view = cv2.resize(image[y0:y1, x0:x1], (size, size), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        view = np.ascontiguousarray(view[:, ::-1])
    tensor = to_tensors(view, replace(preprocess, size_rule="none", size=None, scales=(1.0,)))[0]
    light = random_light(rng)
    light = light[::-1] if preprocess.color_order == "bgr" else light
    return tensor + torch.tensor(light / np.asarray(preprocess.std), dtype=torch.float32)[:, None, None]


class TrainingViews(Dataset):
    """Item `position` of the endless stream of epochs: a random view (3, S, S) float32 of a picture, and its class.

    A function of (seed, position) alone: neither of the process nor of the worker that makes it. Raises `ValueError`
    where the table lists fewer than two landmarks.
    """

    def __init__(self, recipe: Recipe):
        leave_out = read_ids(recipe.leave_out) if recipe.leave_out else ()
        self.files, labels = read_clean(recipe.clean_csv, leave_out=leave_out)
        landmarks, self.classes = np.unique(labels, return_inverse=True)
        if len(landmarks) < 2:
            left_out = f" but those of {recipe.leave_out}" if recipe.leave_out else ""
            found = f"{recipe.clean_csv} lists {len(landmarks)} landmarks{left_out}"
            raise ValueError(f"{found}; two or more with pictures are wanted")
        self.class_count = len(landmarks)
        self.name = "GLDv2-clean without some landmarks" if recipe.leave_out else "GLDv2-clean"
        self.root, self.size, self.seed = Path(recipe.images), recipe.image_size, recipe.seed
        source = timm.get_pretrained_cfg(recipe.backbone)  # its pictures were prepared so
        if source is None:
            raise ValueError(f"backbone is {recipe.backbone!r}, of which timm has no weights")
        self.preprocess = Preprocess(size_rule="none", size=None, scales=SCALES, mean=source.mean, std=source.std)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        epoch, place = divmod(position, len(self.files))
        i = int(epoch_order(len(self.files), self.seed, epoch)[place])
        rng = np.random.default_rng([self.seed, 1, position])
        return random_view(load_image(self.root / self.files[i]), self.size, self.preprocess, rng), int(self.classes[i])


def positions(recipe: Recipe, rank: int, world: int, steps: range) -> Iterator[range]:
    """The stream positions of each part of the batches of `steps` that process `rank` of `world` trains on."""
    part = recipe.batch_size // (world * recipe.accumulate)
    for i in range(steps.start * recipe.accumulate, steps.stop * recipe.accumulate):
        start = (i * world + rank) * part
        yield range(start, start + part)
