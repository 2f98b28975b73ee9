"""R-MAC, regional maximum activations of convolutions: the maxima of many squares, each whitened, in one sum.

Source: Tolias et al., Particular object retrieval with integral max-pooling of CNN activations, ICLR 2016, the section
on encoding regions: reference [11] of the paper. Differs from it: the whole map counts as a region too, as in public
programs that followed (where the map is a square it is also the one region of the first size, and counts twice).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssr_lib.pooling import mac, rmac_regions
from ssr_lib.whitening import fit_pca

BATCHES = 64  # from which the PCA is computed, at most
PER_PICTURE = 5  # regions of each picture for the PCA, at random: enough for 1,280 channels, and 100 MB


class Head(nn.Module):
    """Σ over regions R of L2(PCA whitening(L2(max over R of `project(last)`))), then L2, times the root of the width.

    `levels`: L, the sizes of square regions, 3 in the paper. `dims`: directions that the PCA keeps; None: all. The last
    factor gives the feature the size of a GeM, for which learning rates were chosen.
    Start: the PCA of regions of training pictures, which is not trained. Before `fit` it is the identity.
    """

    def __init__(self, channels: tuple[int, int, int], *, seed: int = 0, levels: int = 3, dims: int | None = None):
        super().__init__()
        self.width = min(dims or channels[2], channels[2])
        self.levels, self.seed = levels, seed
        self.register_buffer("mean", torch.zeros(channels[2]))
        self.register_buffer("projection", torch.eye(self.width, channels[2]))  # (D, C)

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        vectors = (self.regions(project(last)) - self.mean) @ self.projection.T  # (B, R, D)
        return math.sqrt(self.width) * F.normalize(F.normalize(vectors, dim=2).sum(dim=1), dim=1)

    def regions(self, x: Tensor) -> Tensor:
        """L2-normalised maxima of the R regions of a map, (B, C, H, W) → (B, R, C)."""
        squares = rmac_regions(*x.shape[2:], self.levels)
        maxima = [mac(x[:, :, top : top + height, left : left + width]) for top, left, height, width in squares]
        return F.normalize(torch.stack(maxima, dim=1), dim=2)

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor | None, Tensor, nn.Module]]) -> None:
        """Fit the PCA whitening to regions of the pictures in the first `BATCHES` batches."""
        generator = torch.Generator().manual_seed(self.seed)
        vectors = []
        for _, last, project in islice(batches, BATCHES):
            regions = self.regions(project(last))
            chosen = torch.randperm(regions.shape[1], generator=generator)[:PER_PICTURE]
            vectors.append(regions[:, chosen.to(regions.device)].flatten(0, 1))
        pca = fit_pca(torch.cat(vectors).cpu().numpy())
        rows = torch.from_numpy(pca.projection[: self.width])  # fewer where a direction has no variance
        self.mean.copy_(torch.from_numpy(pca.mean))
        self.projection.zero_()[: len(rows)] = rows.to(self.projection)
