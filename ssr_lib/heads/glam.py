"""Global-local attention: four forms of attention, local and global, over channels and over places.

Source: GLAM, Song, Han & Avrithis, WACV 2022, section 3, equations 1 to 7: reference [34] of the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssr_lib.backbones import seeded
from ssr_lib.pooling import GeM
from ssr_lib.self_similarity import check_window


class Head(nn.Module):
    """F^gl = w_l F^l + w_g F^g + w F, where F is `last`; then `project` and GeM.

    `mid_channels`: c' of the spatial attentions. `window`: k of the convolutions along the channels (3 in the paper).
    Start: identity. What differs from the paper: the weights w_l, w_g, w are scalars that start at 0, 0 and 1, where
    the paper takes the softmax of three scalars, which cannot start there. Dilations are those of its text (1, 2, 3;
    the caption of its figure 3 says 1, 3, 5).
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        seed: int = 0,
        mid_channels: int = 64,
        window: int = 3,
        p: float = 3.0,
        learn_p: bool = False,
    ):
        super().__init__()
        self.width = channels[2]
        inside, c = channels[1], mid_channels
        with seeded(seed, "embedding"):
            along = {"kernel_size": check_window(window), "padding": window // 2}
            self.channel, self.query_c, self.key_c = (nn.Conv1d(1, 1, **along) for _ in range(3))
            self.reduce = nn.Conv2d(inside, c, 1)
            scales = [nn.Conv2d(c, c, 3, padding=d, dilation=d) for d in (1, 2, 3)]
            self.scales = nn.ModuleList([nn.Conv2d(c, c, 1), *scales])
            self.spatial = nn.Conv2d(4 * c, 1, 1)
            self.query_s, self.value_s = nn.Conv2d(inside, c, 1), nn.Conv2d(inside, c, 1)
            self.key_s = nn.Conv2d(inside, c, 1, bias=False)  # softmax is blind to a bias of the keys
            self.expand = nn.Conv2d(c, inside, 1)
        self.weights = nn.Parameter(torch.tensor([0.0, 0.0, 1.0]))  # w_l, w_g, w
        self.pooling = GeM(p, learn=learn_p)

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        return self.pooling(project(self.fuse(last)))  # (B, width)

    def fuse(self, x: Tensor) -> Tensor:
        """F^gl of F (B, C, H, W), same shape."""
        w_l, w_g, w = self.weights
        return w_l * self.local_attention(x) + w_g * self.global_attention(x) + w * x  # (7)

    def local_attention(self, x: Tensor) -> Tensor:
        """F^l of F, same shape."""
        mean = x.mean(dim=(2, 3))[:, None]  # (B, 1, C)
        of_channels = self.channel(mean).sigmoid()[:, 0, :, None, None]  # A_c^l (B, C, 1, 1)
        reduced = self.reduce(x)  # F' (B, c', H, W)
        of_places = self.spatial(torch.cat([scale(reduced) for scale in self.scales], dim=1))  # A_s^l (B, 1, H, W)
        by_channel = x * of_channels + x  # (1)
        return by_channel * of_places + by_channel  # (2)

    def global_attention(self, x: Tensor) -> Tensor:
        """F^g of F, same shape."""
        mean = x.mean(dim=(2, 3))[:, None]  # (B, 1, C)
        q, k = self.query_c(mean).sigmoid(), self.key_c(mean).sigmoid()  # (B, 1, C)
        a = (k.transpose(1, 2) @ q).softmax(dim=1)  # A_c^g (B, C, C), (3)
        of_channels = torch.einsum("bchw,bcd->bdhw", x, a)  # G_c = V_c A_c^g
        q, k, v = (layer(x).flatten(2) for layer in (self.query_s, self.key_s, self.value_s))  # (B, c', N)
        a = (k.transpose(1, 2) @ q).softmax(dim=1)  # A_s^g (B, N, N), (4)
        of_places = self.expand((v @ a).unflatten(2, x.shape[2:]))  # G_s (B, C, H, W)
        by_channel = x * of_channels  # (5)
        return by_channel * of_places + by_channel  # (6)

    def added(self, mid: Tensor | None, last: Tensor) -> tuple[Tensor, Tensor]:
        """F and what the attentions change of it."""
        return last, self.fuse(last) - last
