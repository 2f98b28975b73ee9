"""A generalised mean of the last map beside an attention-weighted mean of the earlier one.

Source: DELG, Cao, Araujo & Sim, ECCV 2020, the section on the model: reference [33] of the paper. Taken are its global
head and the attention of its local head, without the local descriptors and their matching.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssr_lib.backbones import seeded
from ssr_lib.heads._fitted import settle_norms, some_batches
from ssr_lib.pooling import GeM


class Head(nn.Module):
    """[GeM(`project(last)`), Σ_p a(p) s(p) / Σ_p a(p)], each standardised; s is `mid`.

    a = softplus(1 × 1 convolution of ReLU(1 × 1 convolution of s to `mid_channels`)), one number a place.
    Start: the last convolution is 0, so that a is the same everywhere, batch norms without weights take the statistics
    of some batches, and the whitening behind is the LDA of both parts.
    What differs from the paper: the attention-weighted mean is part of the descriptor, where DELG only trains the
    attention through it, with a loss of its own; the sum is divided by Σ a, so that it does not grow with the picture;
    its code has a batch norm in the attention and L2-normalises places before the mean, here is neither;
    the autoencoder that makes local descriptors short is left out; the backbone is frozen, so that no gradient has to
    be stopped.
    """

    uses_mid = True

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        seed: int = 0,
        mid_channels: int = 512,
        p: float = 3.0,
        learn_p: bool = False,
    ):
        super().__init__()
        self.width = channels[2] + channels[0]
        with seeded(seed, "embedding"):
            hidden = nn.Conv2d(channels[0], mid_channels, 1)
            self.attention = nn.Sequential(hidden, nn.ReLU(), nn.Conv2d(mid_channels, 1, 1))
        nn.init.zeros_(self.attention[2].weight)
        nn.init.zeros_(self.attention[2].bias)
        self.norm_global = nn.BatchNorm1d(channels[2], affine=False)
        self.norm_local = nn.BatchNorm1d(channels[0], affine=False)
        self.pooling = GeM(p, learn=learn_p)

    def forward(self, mid: Tensor, last: Tensor, project: nn.Module) -> Tensor:
        whole = self.norm_global(self.pooling(project(last)))  # (B, width of project)
        return torch.cat([whole, self.norm_local(self.attended(mid))], dim=1)  # (B, width)

    def attended(self, s: Tensor) -> Tensor:
        """The weighted mean of s (B, C, H, W), (B, C)."""
        a = F.softplus(self.attention(s))  # (B, 1, H, W)
        return (a * s).sum(dim=(2, 3)) / a.sum(dim=(2, 3))

    def fit(self, batches: Iterable[tuple[Tensor, Tensor, nn.Module]]) -> None:
        """Let the batch norms see some batches."""
        settle_norms(self, some_batches(batches))
