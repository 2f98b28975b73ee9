"""CroW, cross-dimensional weighting: strong places count more, and channels that answer rarely count more.

Source: Kalantidis et al., Cross-dimensional weighting for aggregated deep convolutional features, ECCV workshops 2016,
sections 4.1 and 4.2: reference [10] of the paper. Differs from it: its PCA whitening is the network's own whitening.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from ssr_lib.pooling import crow


class Head(nn.Module):
    """Σ over places of I_k · S · X_k, where X = max(`project(last)`, 0), then L2, times the root of the width.

    S = (S′ / (Σ S′^a)^(1/a))^(1/b), S′ the sum over channels: a place's share of all that the map answers; `a`, `b`: 2
    and 2 in the paper. I_k = log(Σ_h Q_h / Q_k), Q_k the share of places where channel k answers: its rarity, as in
    tf-idf; 0 for one that never answers, where the paper has an ε. The last factor gives the feature the size of a
    GeM, for which learning rates were chosen. Start: as it stays, for nothing in it is learned.
    """

    def __init__(self, channels: tuple[int, int, int], *, seed: int = 0, a: float = 2.0, b: float = 2.0):
        super().__init__()
        self.width = channels[2]
        self.a, self.b = a, b

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        x = project(last).clamp(min=0)  # (B, C, H, W)
        return math.sqrt(self.width) * F.normalize(crow(x, self.a, self.b), dim=1)
