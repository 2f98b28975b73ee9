"""Spatial context: to every place is added what kinds of descriptors surround it, and how far away they are.

The idea is that of SpCa (Zhang et al., Learning spatial-context-aware global visual feature representation, ICCV 2023):
a branch beside the visual one that tells of each local descriptor the types of its surrounding descriptors (there
"online token learning") and their spatial distribution ("distance encoding"), and a fusion of both to one global
feature: reference [36] of the paper. We could open the abstract only; the formulas here are ours.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssr_lib.backbones import seeded
from ssr_lib.heads._fitted import places, soft_assignment, some_batches
from ssr_lib.pooling import GeM


class Head(nn.Module):
    """X + S, where X is `last`; then `project` and GeM. S = batch norm(1 × 1 convolution of u).

    u_kr(p) = the mean of a_k(q) over the places q of the map at distance r from p (rounded, r = 1 … `radius`);
    a(q) = softmax(W x(q) + b): which of `types` (K) descriptors stands at q. u has K · radius channels.
    Start: identity, since the gain of the batch norm is 0; W, b assign to k-means centres and are trained on.
    What differs from the paper: types are weights of the network, not tokens made anew for every picture; distances
    are told by rings; the fusion is a sum before the frozen layers.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        seed: int = 0,
        types: int = 16,
        radius: int = 3,
        initial_gain: float = 0.0,
        p: float = 3.0,
        learn_p: bool = False,
    ):
        super().__init__()
        self.seed = seed
        self.width = channels[2]
        inside = channels[1]  # C
        with seeded(seed, "embedding"):
            self.assign = nn.Conv2d(inside, types, 1)
            self.expand = nn.Sequential(nn.Conv2d(types * radius, inside, 1, bias=False), nn.BatchNorm2d(inside))
        nn.init.constant_(self.expand[1].weight, initial_gain)
        offsets = torch.arange(-radius, radius + 1)
        distance = torch.hypot(offsets[:, None].float(), offsets[None].float()).round()
        rings = torch.stack([distance == r for r in range(1, radius + 1)])[:, None].float()  # (R, 1, U, V)
        self.register_buffer("rings", rings, persistent=False)
        self.pooling = GeM(p, learn=learn_p)

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        return self.pooling(project(last + self.embed(last)))  # (B, width)

    def embed(self, x: Tensor) -> Tensor:
        """S of X (B, C, H, W), same shape."""
        return self.expand(self.context(self.assign(x).softmax(dim=1)))

    def context(self, a: Tensor) -> Tensor:
        """u (B, K · R, H, W) of the types a (B, K, H, W); 0 where a ring has no place in the map."""
        half = self.rings.shape[2] // 2
        sums = F.conv2d(a.flatten(0, 1)[:, None], self.rings, padding=half)  # (B · K, R, H, W)
        counts = F.conv2d(torch.ones_like(a[:1, :1]), self.rings, padding=half)  # (1, R, H, W)
        return (sums / counts.clamp(min=1)).reshape(len(a), -1, *a.shape[2:])

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor | None, Tensor, nn.Module]]) -> None:
        """Let W and b assign to the k-means centres of the places of X."""
        x = torch.cat([places(last) for _, last, _ in some_batches(batches)])
        _, weight, bias = soft_assignment(x, self.assign.out_channels, self.seed)
        self.assign.weight.copy_(weight[:, :, None, None])
        self.assign.bias.copy_(bias)

    def added(self, mid: Tensor | None, last: Tensor) -> tuple[Tensor, Tensor]:
        """X and S."""
        return last, self.embed(last)
