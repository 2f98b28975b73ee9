"""No module: the projected map, pooled. What every other head is measured against.

The pooling is GeM of Radenović et al., TPAMI 2019: reference [12] of the paper. Its options make the GeM+ and the
regional GeM of SuperGlobal, Shao et al., ICCV 2023: reference [13] of the paper.
"""

from __future__ import annotations

from torch import Tensor, nn

from ssr_lib.backbones import seeded
from ssr_lib.heads import feed_forward_layers
from ssr_lib.pooling import GeM


class Head(nn.Module):
    """GeM of `project(last)`.

    `feed_forward`: two 1 × 1 convolutions before it, for a comparison with heads that have them. `p`, `learn_p`,
    `regional`, `eps`: see `pooling.GeM`; SuperGlobal (Shao et al., ICCV 2023) takes 4.6, fixed, regional, 1e-8.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        seed: int = 0,
        feed_forward: bool = False,
        p: float = 3.0,
        learn_p: bool = False,
        regional: bool = False,
        eps: float = 1e-6,
    ):
        super().__init__()
        self.width = channels[2]
        with seeded(seed, "embedding"):
            self.feed_forward = feed_forward_layers(self.width) if feed_forward else nn.Identity()
        self.pooling = GeM(p, learn=learn_p, regional=regional, eps=eps)

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        return self.pooling(self.feed_forward(project(last)))  # (B, width)
