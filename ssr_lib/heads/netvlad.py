"""NetVLAD: for each visual word, how the local features near it differ from it, with assignments that can be trained.

Source: Arandjelović et al., NetVLAD: CNN architecture for weakly supervised place recognition, CVPR 2016, section 3.1:
reference [1] of the paper; the start: its appendix on implementation. Differs from it: local features go through a PCA,
so that the feature has as many numbers as that of `plain`; the paper's PCA whitening from K · D to 4,096 is the
network's own whitening.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssr_lib.backbones import seeded
from ssr_lib.heads._fitted import soft_assignment
from ssr_lib.whitening import fit_pca

BATCHES = 64  # from which PCA and k-means are computed, at most
PER_PICTURE = 8  # places of each picture for it, at random
RATIO = 100.0  # of a place's largest weight to its second at the start, on average


class Head(nn.Module):
    """V_k = Σ_i a_k(x_i) · (x_i − c_k), each V_k L2-normalised, then all, times the root of the width.

    x_i: the features of `project(last)` at the places, reduced to D and L2-normalised; a: the softmax over the K words
    of w_k · x_i + b_k. `clusters`: K, 64 in the paper, for larger maps. `dims`: D; None: the map's channels, over K.
    Trained: the reduction, w, b and c, each by itself. The last factor gives the feature the size of a GeM.
    Start: the reduction is a PCA, c are centres of k-means, w = 2α c, b = −α |c|². Before `fit` all is random.
    """

    def __init__(self, channels: tuple[int, int, int], *, seed: int = 0, clusters: int = 8, dims: int | None = None):
        super().__init__()
        dims = min(dims or max(1, channels[2] // clusters), channels[2])
        self.width = clusters * dims
        self.seed = seed
        with seeded(seed, "embedding"):
            self.reduce = nn.Linear(channels[2], dims)
            self.assign = nn.Linear(dims, clusters)  # w, b
            self.centres = nn.Parameter(F.normalize(torch.randn(clusters, dims), dim=1))  # c: (K, D)

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        x = self.local(project(last).flatten(2).transpose(1, 2))  # (B, HW, D)
        a = self.assign(x).softmax(dim=2)  # (B, HW, K)
        v = a.transpose(1, 2) @ x - a.sum(dim=1)[:, :, None] * self.centres  # (B, K, D)
        v = F.normalize(v, dim=2)  # intra-normalisation
        return math.sqrt(self.width) * F.normalize(v.flatten(1), dim=1)

    def local(self, x: Tensor) -> Tensor:
        """Local features (..., C) → (..., D), L2-normalised."""
        return F.normalize(self.reduce(x), dim=-1)

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor | None, Tensor, nn.Module]]) -> None:
        """Start from places of the pictures in the first `BATCHES` batches."""
        generator = torch.Generator().manual_seed(self.seed)
        places = []
        for _, last, project in islice(batches, BATCHES):
            x = project(last).flatten(2).transpose(1, 2)  # (B, HW, C)
            chosen = torch.randperm(x.shape[1], generator=generator)[:PER_PICTURE]
            places.append(x[:, chosen.to(x.device)].flatten(0, 1))
        places = torch.cat(places)
        pca = fit_pca(places.cpu().numpy())
        rows = F.normalize(torch.from_numpy(pca.projection[: len(self.reduce.weight)]), dim=1)  # turned, not whitened
        self.reduce.weight.zero_()[: len(rows)] = rows.to(self.reduce.weight)
        self.reduce.bias.copy_(-self.reduce.weight.double().cpu() @ torch.from_numpy(pca.mean))
        x = self.local(places)
        tries = 3  # of k-means, for some end in a bad optimum
        start = soft_assignment(x, len(self.centres), self.seed, ratio=RATIO, tries=tries)
        for own, found in zip((self.centres, self.assign.weight, self.assign.bias), start, strict=True):
            own.copy_(found)
