"""Places of the last map look at those of the earlier one through attention, after DALG.

From Song et al., DALG: deep attentive local and global modeling for image retrieval, arXiv 2207.00287, come a local
branch of attention inside windows and attention over places, and the fusion of local and global features by
cross-attention: reference [35] of the paper. We could open the abstract only, and the backbone there is a transformer:
the formulas here are ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssr_lib.backbones import seeded
from ssr_lib.pooling import GeM


class Head(nn.Module):
    """X + cross-attention(X, y), where X is `last`; then `project` and GeM.

    Local branch: z = layer norm(1 × 1 convolution of `mid` to `mid_channels`), + attention inside windows of
    `window` × `window` places; y = 2σ(1 × 1 convolution of z) · z. Cross-attention: queries are the places of X, keys
    and values those of y. `attention_heads`: of both.
    Start: identity; the last layer of the cross-attention is 0, and every y = z. What differs from the paper: its
    transformer is the frozen network here; one block of attention in windows, not shifted, no position embedding.
    """

    uses_mid = True

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        seed: int = 0,
        mid_channels: int = 64,
        window: int = 4,
        attention_heads: int = 4,
        p: float = 3.0,
        learn_p: bool = False,
    ):
        super().__init__()
        self.width, self.window = channels[2], window
        inside, c = channels[1], mid_channels
        with seeded(seed, "embedding"):
            self.reduce = nn.Conv2d(channels[0], c, 1)
            self.norm = nn.LayerNorm(c)
            self.windows = nn.MultiheadAttention(c, attention_heads, batch_first=True)
            self.spatial = nn.Conv2d(c, 1, 1)
            self.query = nn.Sequential(nn.Conv2d(inside, c, 1), nn.Flatten(2))
            self.norm_query = nn.LayerNorm(c)
            self.across = nn.MultiheadAttention(c, attention_heads, batch_first=True)
            self.expand = nn.Conv2d(c, inside, 1)
        for layer in (self.spatial, self.expand):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.pooling = GeM(p, learn=learn_p)

    def forward(self, mid: Tensor, last: Tensor, project: nn.Module) -> Tensor:
        return self.pooling(project(last + self.embed(mid, last)))  # (B, width)

    def embed(self, mid: Tensor, last: Tensor) -> Tensor:
        """What is added to `last` (B, C, H, W), same shape."""
        y = self.local(mid).flatten(2).transpose(1, 2)  # (B, places of mid, c)
        q = self.norm_query(self.query(last).transpose(1, 2))  # (B, H · W, c)
        found = self.across(q, y, y, need_weights=False)[0]
        return self.expand(found.transpose(1, 2).unflatten(2, last.shape[2:]))

    def local(self, mid: Tensor) -> Tensor:
        """y of `mid` (B, C16, H, W), (B, c, H, W)."""
        z = self.norm(self.reduce(mid).movedim(1, 3)).movedim(3, 1)
        z = z + self.attend_windows(z)
        return 2 * self.spatial(z).sigmoid() * z  # 2σ(0) = 1

    def attend_windows(self, z: Tensor) -> Tensor:
        """What attention inside the windows gives, z (B, c, H, W) → same shape; places beyond the map are not seen."""
        (batch, c, height, width), side = z.shape, self.window
        margin = (0, -width % side, 0, -height % side)
        padded = F.pad(z, margin)
        inside = F.unfold(F.pad(torch.ones_like(z[:1, :1]), margin), side, stride=side)[0].T  # (windows, side²)
        tokens = F.unfold(padded, side, stride=side).reshape(batch, c, side * side, -1)
        tokens = tokens.permute(0, 3, 2, 1).flatten(0, 1)  # (B · windows, side², c)
        beyond = (inside == 0).repeat(batch, 1)
        seen = self.windows(tokens, tokens, tokens, key_padding_mask=beyond, need_weights=False)[0]
        seen = seen.unflatten(0, (batch, -1)).permute(0, 3, 2, 1).flatten(1, 2)  # (B, c · side², windows)
        return F.fold(seen, padded.shape[2:], side, stride=side)[:, :, :height, :width]

    def added(self, mid: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """X and what is added to it."""
        return last, self.embed(mid, last)
