"""The self-similarity embedding, reading B: an attention score at every place times its neighbourhood, encoded.

Source: a public implementation that names the paper (chaos0211/img_search on GitHub, an independent student project);
its score map follows CBAM (Woo et al., ECCV 2018); docs/method.md, section 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssr_lib.backbones import seeded
from ssr_lib.heads import check_choice
from ssr_lib.heads._shared import encode_shared
from ssr_lib.pooling import GeM
from ssr_lib.self_similarity import encode_windows, encoder_layers, pad


class ScoreMap(nn.Module):
    """A = (X' ⊙ m) · s: channels weighted by m, places by s, which is 1 on average."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(channels // 16, 32)
        self.channel_mlp = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.ReLU(), nn.Conv2d(hidden, channels, 1, bias=False)
        )
        self.spatial_projection = nn.Conv2d(channels, 1, 1, bias=False)
        self.spatial_norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        mean, largest = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        m = torch.sigmoid(self.channel_mlp(mean) + self.channel_mlp(largest))  # (B, c, 1, 1)
        refined = x * m
        s = F.softplus(self.spatial_norm(self.spatial_projection(refined)))  # (B, 1, H, W)
        return refined * (s / s.mean(dim=(2, 3), keepdim=True).clamp(min=1e-6))


class Head(nn.Module):
    """X' → T[c, h, w, u, v] = A[c, h, w] · X'[c, h + u, w + v] → encoder → S; X joined with S; GeM.

    X' = ReLU(batch norm(1 × 1 convolution of X to c)), or X itself where `mid_channels` (c) is the number of its
    channels. `encoder`: "shared", one kernel for all channels, or "full", the one of `product`, c → c.
    `start`: "identity": X is `last`, S a 1 × 1 convolution to C and a batch norm whose gain starts at 0, and `project`
    follows X + S; no ReLU on S, for behind a gain of 0 it would pass no gradient. "random", the published form: X is
    `project(last)`, S has c channels and a ReLU, and two 1 × 1 convolutions follow S + batch norm(X').
    `initial_gain` of the batch norm of S; None: 0 and 1. `learn_p`: see `pooling.GeM`; None: with "random".
    """

    has_score = True

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        seed: int = 0,
        mid_channels: int = 64,
        window: int = 7,
        encoder: str = "shared",
        start: str = "identity",
        initial_gain: float | None = None,
        p: float = 3.0,
        learn_p: bool | None = None,
    ):
        super().__init__()
        check_choice("encoder", encoder, ("shared", "full"))
        check_choice("start", start, ("identity", "random"))
        c = mid_channels
        self.window, self.shared, self.identity = window, encoder == "shared", start == "identity"
        inside = channels[1] if self.identity else channels[2]  # C
        behind = inside if self.identity else c  # channels of S
        self.width = channels[2] if self.identity else c
        with seeded(seed, "embedding"):
            self.reduce = nn.Identity()
            if c != inside:
                self.reduce = nn.Sequential(nn.Conv2d(inside, c, 1, bias=False), nn.BatchNorm2d(c), nn.ReLU())
            self.encoder = encoder_layers(1, window, bias=False) if self.shared else encoder_layers(c, window)
            self.expand = nn.Sequential(nn.Conv2d(c, behind, 1, bias=False), nn.BatchNorm2d(behind))
            if not self.identity:
                self.expand.append(nn.ReLU())
                self.norm = nn.BatchNorm2d(c)
                self.feed_forward = nn.Sequential(
                    nn.Conv2d(c, c, 1, bias=False), nn.ReLU(), nn.Conv2d(c, c, 1, bias=False)
                )
            if self.has_score:  # drawn last, so that the control without it starts with the same layers
                self.score = ScoreMap(c)
        if initial_gain is None:
            initial_gain = 0.0 if self.identity else 1.0
        nn.init.constant_(self.expand[1].weight, initial_gain)
        self.pooling = GeM(p, learn=not self.identity if learn_p is None else learn_p)

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        if self.identity:
            return self.pooling(project(last + self.embed(last)))  # (B, width)
        x, s = self.added(mid, project(last))
        return self.pooling(self.feed_forward(x + s))

    def added(self, mid: Tensor | None, last: Tensor) -> tuple[Tensor, Tensor]:
        """X and S; with "random", where `last` is given as already projected, batch norm(X') and S."""
        if self.identity:
            return last, self.embed(last)
        x = self.reduce(last)
        return self.norm(x), self.expand(self.encode(x))

    def embed(self, x: Tensor) -> Tensor:
        """The dense feature map S of X (B, C, H, W): as many channels, or c with "random"."""
        return self.expand(self.encode(self.reduce(x)))

    def encode(self, x: Tensor) -> Tensor:
        """T of X' (B, c, H, W), encoded: same shape."""
        a = self.score(x)  # (B, c, H, W)
        if self.shared:
            return encode_shared([(a, x)], self.encoder, self.window)
        windows = pad(x, self.window).unfold(1, self.window, 1).unfold(2, self.window, 1).permute(0, 1, 2, 4, 5, 3)
        return encode_windows(windows * a.permute(0, 2, 3, 1)[:, :, :, None, None], self.encoder)
