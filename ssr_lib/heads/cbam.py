"""The convolutional block attention module: gates for the channels, then gates for the places of the map.

Source: Woo et al., ECCV 2018, equations 1 to 3: reference [26] of the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssr_lib.backbones import seeded
from ssr_lib.heads import check_choice
from ssr_lib.pooling import GeM
from ssr_lib.self_similarity import check_window


class Head(nn.Module):
    """X'' = M_s(X') ⊙ X' with X' = M_c(X) ⊙ X, where X is `last`; then `project` and GeM.

    `reduction`: r of the MLP C → C/r → C. `window`: side of the convolution over places.
    `start`: "random": both gates are σ(·), as published. "identity": they are 2σ(·) and the last layer under each σ
    starts at 0, so that every gate is 1 and the head starts as `plain`. Gates of about 1/2 would hand the pretrained
    layers that follow a map of a quarter of its size; gates near 1 = σ(∞) would learn too slowly.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        seed: int = 0,
        reduction: int = 16,
        window: int = 7,
        start: str = "identity",
        p: float = 3.0,
        learn_p: bool = False,
    ):
        super().__init__()
        check_choice("start", start, ("identity", "random"))
        self.width = channels[2]
        inside = channels[1]  # C
        hidden = max(1, inside // reduction)
        with seeded(seed, "embedding"):
            self.channel = nn.Sequential(nn.Conv2d(inside, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, inside, 1))
            self.spatial = nn.Conv2d(2, 1, check_window(window), padding=window // 2)
        self.scale = 1.0
        if start == "identity":
            self.scale = 2.0  # 2 σ(0) = 1
            for layer in (self.channel[2], self.spatial):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.pooling = GeM(p, learn=learn_p)

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        return self.pooling(project(self.fuse(last)))  # (B, width)

    def fuse(self, x: Tensor) -> Tensor:
        """X (B, C, H, W) through both gates, same shape."""
        mean, largest = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        x = x * self.scale * torch.sigmoid(self.channel(mean) + self.channel(largest))  # M_c: (B, C, 1, 1)
        summary = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)  # (B, 2, H, W)
        return x * self.scale * torch.sigmoid(self.spatial(summary))  # M_s: (B, 1, H, W)

    def added(self, mid: Tensor | None, last: Tensor) -> tuple[Tensor, Tensor]:
        """X and what the gates change of it."""
        return last, self.fuse(last) - last
