"""Correlation verification, after CVNet: the cosines of all places of two maps say if they show one landmark.

f, g: the places of two maps of s × s places, after a linear projection and of unit length.

    c(u, v) = max(0, f(u) · g(v))                 u, v: a place of the query, of the image; (s, s, s, s) numbers
    c ← ReLU( k₁ * c over v + k₂ * c over u )     a convolution in four dimensions, of two in two, some times
    z = MLP( mean of c over all u, v )            trained by binary cross-entropy: do they show one landmark?
    score = cos(q, j) + weight · σ(z)             cosine of the global descriptors: the score of the first ranking

Source: Lee et al., Correlation verification for image retrieval, CVPR 2022, section 3: reference [24] of the paper. It
has three scales of each map, so nine correlations, an encoder of nine such convolutions in four blocks with group norm
that makes both sides smaller, and pairs that grow harder and lose parts while it trains (curriculum, hide and seek):
all that is left out. Its projection is a learned 3 × 3 convolution; here it is of 1 × 1 and starts as a PCA
whitening.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssr_lib.backbones import seeded
from ssr_lib.local import batches_of
from ssr_lib.rerank._ranking import Ranking, Reranking
from ssr_lib.rerank._shortlist import learn_pairs, reorder, training_pairs
from ssr_lib.store import Maps
from ssr_lib.whitening import fit_pca

NEEDS = "maps"


class Convolution(nn.Module):
    """Correlations (B, A, h, w, s, t) → (B, C, h, w, s, t): 3 × 3 over each picture's places, the other's held fast."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.query = nn.Conv2d(channels, out, 3, padding=1)
        self.image = nn.Conv2d(channels, out, 3, padding=1, bias=False)

    def forward(self, c: Tensor) -> Tensor:
        b, _, h, w, s, t = c.shape
        over_image = self.image(c.permute(0, 2, 3, 1, 4, 5).flatten(0, 2))  # (B h w, C, s, t)
        over_query = self.query(c.permute(0, 4, 5, 1, 2, 3).flatten(0, 2))  # (B s t, C, h, w)
        over_image = over_image.view(b, h, w, -1, s, t).permute(0, 3, 1, 2, 4, 5)
        return over_image + over_query.view(b, s, t, -1, h, w).permute(0, 3, 4, 5, 1, 2)


class Verifier(nn.Module):
    """Maps (B, A, s, s) → places (B, D, s, s), and two of these → z (B,); `place`, `side`: which map, and s."""

    def __init__(self, raw: Tensor, *, width: int, channels: int, place: str, seed: int):
        super().__init__()
        self.place, self.side = place, raw.shape[2]
        axes = fit_pca(raw.movedim(1, 3).flatten(0, 2).numpy())  # of all places of the training maps
        start = torch.from_numpy(axes.projection[:width]).float()
        self.projection = nn.Conv2d(raw.shape[1], len(start), 1)
        with seeded(seed, "correlation"):
            self.layers = nn.ModuleList([Convolution(1, channels), Convolution(channels, channels)])
            self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.ReLU(), nn.Linear(4 * channels, 1))
        with torch.no_grad():
            self.projection.weight.copy_(start[:, :, None, None])
            self.projection.bias.copy_(-start @ torch.from_numpy(axes.mean).float())

    def places(self, raw: Tensor) -> Tensor:
        return F.normalize(self.projection(raw), dim=1)

    def forward(self, f: Tensor, g: Tensor) -> Tensor:
        c = torch.einsum("bdhw,bdst->bhwst", f, g).relu()[:, None]  # (B, 1, h, w, s, t)
        for layer in self.layers:
            c = layer(c).relu()
        return self.mlp(c.mean(dim=(2, 3, 4, 5)))[:, 0]


def brought_to(maps: Maps, place: str, side: int) -> Tensor:
    """The maps `place` averaged to `side` × `side` places, (N, C, s, s) float32: an aspect ratio is given up."""
    channels = next(batches_of(maps, place))[1].shape[1]
    found = torch.empty(len(maps), channels, side, side)
    for ids, x in batches_of(maps, place):
        found[ids] = F.adaptive_avg_pool2d(x, side)
    return found


def fit(
    maps: Maps,
    labels: Sequence,
    descriptors: np.ndarray,
    *,
    width: int = 64,
    channels: int = 8,
    side: int = 8,
    place: str = "mid",
    steps: int = 300,
    batch: int = 16,
    rate: float = 4e-3,
    shortlist: int = 100,
    seed: int = 0,
) -> Verifier:
    """The verifier that training pictures teach: maps, a label for each, and global descriptors (N, D) float32.

    `batch`: queries of a step, each with an image of its landmark and one of another, both from its shortlist.
    """
    raw = brought_to(maps, place, side)
    model = Verifier(raw, width=width, channels=channels, place=place, seed=seed)

    def logits(asked: np.ndarray, images: np.ndarray) -> Tensor:
        return model(model.places(raw[asked]), model.places(raw[images]))

    learn_pairs(model, logits, training_pairs(descriptors, labels, steps, batch, shortlist, seed), rate)
    return model


@torch.no_grad()
def prepare(database: Maps, *, learned: Verifier, **search) -> Tensor:
    """The places (N, D, s, s) of a database; what else `rerank` takes concerns the search and is not used here."""
    return learned.places(brought_to(database, learned.place, learned.side))


@torch.no_grad()
def rerank(
    queries: Maps,
    database: Maps,
    first: Ranking,
    *,
    learned: Verifier,
    prepared: Tensor | None = None,
    shortlist: int | None = None,
    weight: float = 0.5,
) -> Reranking:
    """Re-order the first `shortlist` images (400 or N unless given) by the score; `weight` 0.5 as in the public code.

    Ties and what is behind the shortlist stand as in the first ranking. `learned`: what `fit` returned. `cost`:
    seconds_per_query, seconds_per_image (the queries' places), bytes_per_image.
    """
    stored = prepare(database, learned=learned) if prepared is None else prepared

    def score(i: int, f: Tensor, ids: np.ndarray, before: np.ndarray) -> np.ndarray:
        g = stored[ids]
        return before + weight * learned(f.expand_as(g), g).sigmoid().double().numpy()

    each = stored.nbytes / len(stored)
    return reorder(first, shortlist, partial(prepare, queries, learned=learned), stored, score, each)
