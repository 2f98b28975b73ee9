"""HOW: smoothed, whitened places of a map, of which those of the longest descriptors are kept.

    w(u) = ‖u‖                                attention of a place u of the map
    ū = mean of the 3 × 3 places around u     local smoothing
    v = P (ū − m), then v / ‖v‖               whitening with reduction

Source: Tolias, Jenicek & Chum, Learning and aggregating deep local descriptors for instance-level recognition, ECCV
2020, section 4: reference [21] of the paper. The source trains the network through the sum Σ w(u) v with a contrastive
loss, and keeps P fixed as PCA made it. Here the network is frozen, so P and m are all that is learned, and pictures are
seen at one scale instead of seven. The map of the source is that of stride 16 too.
"""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from ssr_lib.local import LocalFeatures, features_of, sample
from ssr_lib.store import Maps
from ssr_lib.whitening import Whitening, fit_pca


def smooth(x: Tensor) -> tuple[Tensor, Tensor]:
    """ū (B, C, H, W) and w (B, H, W) of a map (B, C, H, W); at the border the mean is over the places there are."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False), x.norm(dim=1)


def fit(maps: Maps, labels=None, *, dims: int = 128, place: str = "mid", rows: int = 2**16, seed: int = 0) -> Whitening:
    """The PCA whitening to at most `dims` numbers of up to `rows` smoothed places of training maps; needs no labels."""
    raw = sample(maps, place, smooth, rows, seed)
    whitening = fit_pca(raw)
    return replace(whitening, projection=whitening.projection[:dims])


def extract(
    maps: Maps, *, count: int = 400, learned: Whitening | None = None, place: str = "mid"
) -> list[LocalFeatures]:
    """The `count` strongest places of each map, whitened by what `fit` returned; without it as they are."""
    return features_of(maps, place, smooth, count, learned)
