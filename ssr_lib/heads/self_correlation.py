"""The self-correlational representation: products of every place with its neighbourhood, before channels are reduced.

Source: RENet, Kang et al., ICCV 2021, the section on self-correlational representation, with the authors' code:
reference [25] of the paper.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ssr_lib.backbones import seeded
from ssr_lib.pooling import GeM
from ssr_lib.self_similarity import check_window


class Head(nn.Module):
    """X + g(R) with R[c, h, w, u, v] = F[c, h, w] · F[c, h + u, w + v]; X is `last`; then `project` and GeM.

    F = ReLU(X), L2 over channels. g: 1 × 1 × 1 × 1 convolution to `mid_channels`, then 3 × 3 convolutions over (u, v)
    until one place is left, each with batch norm and ReLU, then a 1 × 1 convolution to C and batch norm.
    `product` (Lee et al., CVPR 2023) reduces the channels before the product instead of after it.
    Start: identity; the gain of the last batch norm is 0. What differs from the paper: products are times C, for they
    are about 1/C and the first batch norm would divide them by its eps; no ReLU follows X + g(R), since the frozen
    layer behind was trained on signed maps; the cross-correlation with a second picture is left out.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        seed: int = 0,
        mid_channels: int = 64,
        window: int = 5,
        initial_gain: float = 0.0,
        p: float = 3.0,
        learn_p: bool = False,
    ):
        super().__init__()
        self.window = check_window(window)
        self.width = channels[2]
        inside, c = channels[1], mid_channels
        with seeded(seed, "embedding"):
            self.reduce = nn.Sequential(nn.Conv2d(inside, c, 1, bias=False), nn.BatchNorm2d(c), nn.ReLU())
            self.encoder = nn.Sequential()
            for _ in range(window // 2):
                self.encoder.extend([nn.Conv2d(c, c, 3, bias=False), nn.BatchNorm2d(c), nn.ReLU()])
            self.expand = nn.Sequential(nn.Conv2d(c, inside, 1, bias=False), nn.BatchNorm2d(inside))
        nn.init.constant_(self.expand[1].weight, initial_gain)
        self.pooling = GeM(p, learn=learn_p)

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        return self.pooling(project(last + self.embed(last)))  # (B, width)

    def embed(self, x: Tensor) -> Tensor:
        """g(R) of X (B, C, H, W), same shape."""
        (batch, channels, height, width), side = x.shape, self.window
        f = F.normalize(x.relu(), dim=1)
        around = F.unfold(f, side, padding=side // 2).reshape(batch, channels, side * side, height * width)
        r = channels * f.flatten(2)[:, :, None] * around  # (B, C, U · V, H · W)
        z = self.reduce(r)  # (B, c, U · V, H · W)
        z = self.encoder(z.permute(0, 3, 1, 2).reshape(batch * height * width, -1, side, side))  # (B · H · W, c, 1, 1)
        return self.expand(z.reshape(batch, height, width, -1).permute(0, 3, 1, 2))

    def added(self, mid: Tensor | None, last: Tensor) -> tuple[Tensor, Tensor]:
        """X and what is added to it."""
        return last, self.embed(last)
