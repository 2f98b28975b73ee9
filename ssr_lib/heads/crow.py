"""CroW, cross-dimensional weighting: strong places count more, and channels that answer rarely count more.

Source: Kalantidis et al., Cross-dimensional weighting for aggregated deep convolutional features, ECCV workshops 2016,
sections 4.1 and 4.2: reference [10] of the paper. Differs from it: its PCA whitening is the network's own whitening.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-12  # the paper's ε, for maps and channels of zeros


class Head(nn.Module):
    """Σ over places of I_k · S · X_k, where X = max(`project(last)`, 0), then L2, times the root of the width.

    S: a place's share of all that the map answers, to the 1/b; I: the rarity of a channel, as in tf-idf. `a`, `b`: see
    `spatial_weights`, 2 and 2 in the paper. The last factor gives the feature the size of a GeM, for which learning
    rates were chosen. Start: as it stays, for nothing in it is learned.
    """

    def __init__(self, channels: tuple[int, int, int], *, seed: int = 0, a: float = 2.0, b: float = 2.0):
        super().__init__()
        self.width = channels[2]
        self.a, self.b = a, b

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        x = project(last).clamp(min=0)  # (B, C, H, W)
        summed = (x * spatial_weights(x, self.a, self.b)[:, None]).sum(dim=(2, 3))
        return math.sqrt(self.width) * F.normalize(channel_weights(x) * summed, dim=1)


def spatial_weights(x: Tensor, a: float, b: float) -> Tensor:
    """S = (S′ / (Σ S′^a)^(1/a))^(1/b), S′ the sum over channels: (B, C, H, W) → (B, H, W)."""
    s = x.sum(dim=1)  # S′
    s = s / torch.linalg.vector_norm(s, a, dim=(1, 2), keepdim=True).clamp(min=EPS)
    return s.clamp(min=EPS).pow(1 / b)  # the root has no slope at 0


def channel_weights(x: Tensor) -> Tensor:
    """I_k = log((C ε + Σ_h Q_h) / (ε + Q_k)), Q_k the share of places where channel k answers: → (B, C)."""
    q = (x > 0).to(x.dtype).mean(dim=(2, 3))
    return torch.log((EPS * q.shape[1] + q.sum(dim=1, keepdim=True)) / (EPS + q))
