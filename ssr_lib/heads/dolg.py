"""Orthogonal fusion: the part of local features that the global descriptor does not have, set beside it.

Source: DOLG, Yang et al., ICCV 2021, the sections on the local branch and the orthogonal fusion module: reference [16]
of the paper.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssr_lib.backbones import seeded
from ssr_lib.heads._fitted import places, settle_norms, some_batches
from ssr_lib.pooling import GeM


class Head(nn.Module):
    """[f_g, mean over places of f_l − (f_l · f_g / |f_g|²) f_g], each standardised.

    f_g = GeM(`project(last)`). Local branch on `mid`: multi-atrous (a 1 × 1 convolution, 3 × 3 ones with `dilations`,
    and one of the mean, `mid_channels` each, joined by a 1 × 1 convolution), a 1 × 1 convolution to the length of f_g,
    batch norm: x; f_l = softplus(1 × 1 convolution of ReLU(x)) · x / |x|.
    Start: the 1 × 1 convolution before x is the linear regression of the projected map on `mid`, place by place; what
    multi-atrous adds to `mid` and the logits of the attention are 0; batch norms take the statistics of some batches.
    What differs from the paper: that start, and so a sum with `mid` and ReLU before the join, not after it; f_g has
    no layer of its own (the whitening behind is the fully connected one); standardised parts, whose lengths differ;
    smaller dilations (6, 12, 18 there for maps of 32 places a side, 1, 2, 3 here for 8).
    `orthogonal=False`: f_l as it is, which is the control of the fusion. On drawn landmarks kept from training the head
    gains as much without the fusion, and little where the branch gets `last`: the gain is that of a branch trained on
    the stride-16 map, not of orthogonality, nor of the untrained start.
    """

    uses_mid = True

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        seed: int = 0,
        mid_channels: int = 64,
        dilations: tuple[int, ...] = (1, 2, 3),
        orthogonal: bool = True,
        p: float = 3.0,
        learn_p: bool = False,
    ):
        super().__init__()
        self.width = 2 * channels[2]
        self.orthogonal = orthogonal
        inside, c = channels[0], mid_channels
        with seeded(seed, "embedding"):
            atrous = [nn.Conv2d(inside, c, 3, padding=d, dilation=d) for d in dilations]
            self.branches = nn.ModuleList([nn.Conv2d(inside, c, 1), *atrous])
            self.of_mean = nn.Conv2d(inside, c, 1)
            self.join = nn.Conv2d((len(self.branches) + 1) * c, inside, 1)
            self.expand = nn.Conv2d(inside, channels[2], 1, bias=False)
            self.attention = nn.Conv2d(channels[2], 1, 1)
        for layer in (self.join, self.attention):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.norm = nn.BatchNorm2d(channels[2])
        self.norm_global = nn.BatchNorm1d(channels[2], affine=False)
        self.norm_local = nn.BatchNorm1d(channels[2], affine=False)
        self.pooling = GeM(p, learn=learn_p)

    def forward(self, mid: Tensor, last: Tensor, project: nn.Module) -> Tensor:
        f_g = self.pooling(project(last))  # (B, C)
        f_l = self.local(mid).mean(dim=(2, 3))  # (B, C): what is orthogonal in the mean is the mean of what is so
        if self.orthogonal:
            f_l = f_l - (f_l * f_g).sum(dim=1, keepdim=True) / f_g.square().sum(dim=1, keepdim=True) * f_g
        return torch.cat([self.norm_global(f_g), self.norm_local(f_l)], dim=1)  # (B, width)

    def local(self, x: Tensor) -> Tensor:
        """f_l of `mid` (B, C16, H, W), (B, C, H, W)."""
        of_mean = self.of_mean(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        scales = torch.cat([*(branch(x) for branch in self.branches), of_mean], dim=1)
        x = self.norm(self.expand(x + self.join(scales.relu())))
        return F.softplus(self.attention(x.relu())) * F.normalize(x, dim=1)

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor, nn.Module]]) -> None:
        """The regression, with a ridge of a thousandth of the mean variance, then the batch norms."""
        batches = some_batches(batches)
        rows = []
        for mid, last, project in batches:
            y = project(last)
            near = F.adaptive_avg_pool2d(mid, y.shape[2:])  # as many places
            rows.append(places(torch.cat([near, y], dim=1)))
        rows = torch.cat(rows).double()
        x, y = (rows - rows.mean(dim=0)).split([self.expand.in_channels, self.expand.out_channels], dim=1)
        scatter = x.T @ x
        ridge = 1e-3 * scatter.diagonal().mean() * torch.eye(len(scatter)).to(scatter)
        self.expand.weight.copy_(torch.linalg.solve(scatter + ridge, x.T @ y).T[:, :, None, None])
        settle_norms(self, batches)
