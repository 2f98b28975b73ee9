"""A global branch beside a local one that joins two layers and looks at neighbourhoods, after DToP.

From Song et al., Boosting vision transformers for image retrieval, WACV 2023 (reference [17] of the paper), come the
two branches, the local features
collected from several layers, the enhanced locality of the local branch and its plain mean. It is not that method: the
layers here are two of a convolutional network, not six and more of a transformer.
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
    """[GeM(`project(last)`), mean over places of y + ELM(y)], each standardised; y = W [`mid`, `last`].

    `mid` is averaged to the places of `last` before. W: a 1 × 1 convolution to the channels of `last`. ELM, the
    enhanced locality module: an inverted residual block, 1 × 1 convolution to `expansion` times the channels, 3 × 3
    convolution by channels, 1 × 1 convolution, with batch norms and ReLU6 between.
    Start: W is [0, identity] and the gain of the last batch norm is 0, so that the local part is the mean of `last`;
    batch norms take the statistics of some batches, and the whitening behind is the LDA of both parts.
    What differs from the paper: a generalised mean takes the place of classification tokens, which a convolutional
    network does not have, and comes from one layer; the pyramid of dilated convolutions and the wave block of ELM are
    left out; the whitening is the fully connected layer, without dropout.
    """

    uses_mid = True

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        seed: int = 0,
        expansion: int = 2,
        p: float = 3.0,
        learn_p: bool = False,
    ):
        super().__init__()
        inside = channels[1]
        self.width = channels[2] + inside
        hidden = expansion * inside
        with seeded(seed, "embedding"):
            self.join = nn.Conv2d(channels[0] + inside, inside, 1, bias=False)
            self.locality = nn.Sequential(
                *(nn.Conv2d(inside, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()),
                *(nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False), nn.BatchNorm2d(hidden)),
                *(nn.ReLU6(), nn.Conv2d(hidden, inside, 1, bias=False), nn.BatchNorm2d(inside)),
            )
        nn.init.zeros_(self.join.weight)
        nn.init.dirac_(self.join.weight.data[:, channels[0] :])
        nn.init.zeros_(self.locality[-1].weight)
        self.norm_global = nn.BatchNorm1d(channels[2], affine=False)
        self.norm_local = nn.BatchNorm1d(inside, affine=False)
        self.pooling = GeM(p, learn=learn_p)

    def forward(self, mid: Tensor, last: Tensor, project: nn.Module) -> Tensor:
        whole = self.norm_global(self.pooling(project(last)))  # (B, width of project)
        y = self.join(torch.cat([F.adaptive_avg_pool2d(mid, last.shape[2:]), last], dim=1))  # (B, C, H, W)
        local = (y + self.locality(y)).mean(dim=(2, 3))  # (B, C)
        return torch.cat([whole, self.norm_local(local)], dim=1)  # (B, width)

    def fit(self, batches: Iterable[tuple[Tensor, Tensor, nn.Module]]) -> None:
        """Let the batch norms see some batches."""
        settle_norms(self, some_batches(batches))
