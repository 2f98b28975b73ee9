"""SPoC, sum-pooled convolutional features with the centre prior: what stands in the middle of a picture counts more.

Source: Babenko & Lempitsky, Aggregating local deep features for image retrieval, ICCV 2015: reference [2] of the paper.
Differs from it: the weights sum to 1, so that the feature does not grow with the map; its PCA whitening is the
network's own whitening.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """Σ α(y, x) · f(y, x) over the places (y, x) of f = `project(last)`.

    α is a Gaussian around the centre of the map; σ is a third of the way from there to the nearest edge.
    `centre_prior=False`: the mean, α the same everywhere. `projected=False`: of `last` itself, which is the control of
    heads that pool it so. Start: as it stays, for nothing in it is learned.
    """

    def __init__(
        self, channels: tuple[int, int, int], *, seed: int = 0, centre_prior: bool = True, projected: bool = True
    ):
        super().__init__()
        self.width = channels[2] if projected else channels[1]
        self.centre_prior = centre_prior
        self.projected = projected

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        f = project(last) if self.projected else last  # (B, C, H, W)
        if not self.centre_prior:
            return f.mean(dim=(2, 3))
        alpha = centre_weights(*f.shape[2:]).to(f)
        return (f * alpha).sum(dim=(2, 3)) / alpha.sum()  # (B, C)


def centre_weights(height: int, width: int) -> Tensor:
    """α (H, W) = exp(−((y − H/2)² + (x − W/2)²) / 2σ²), where y and x are the middles of the places."""
    sigma = min(height, width) / 2 / 3
    y = torch.arange(height)[:, None] + 0.5 - height / 2
    x = torch.arange(width) + 0.5 - width / 2
    return torch.exp(-(y**2 + x**2) / (2 * sigma**2))
