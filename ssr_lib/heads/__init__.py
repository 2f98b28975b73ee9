"""Heads, one file each: a network's feature maps → one pooled feature. Here is what product, neighbour and conv share.

A head's file has a class `Head(channels, *, seed=0, **options)`, a `torch.nn.Module` with the channels of its three
maps (`mid`, `last`, and behind `project`), the `width` of its feature, and `forward(mid, last, project) -> (B, width)`.
The study's main protocol freezes the whole backbone: `last` is the stride-32 map, `project` the frozen layer behind it.
End to end, `mid` and `last` are both the stride-16 map and `project` is the whole trained tail behind it.
Optional: `fit(batches)` learns something before training from batches of what `forward` takes, `added(mid, last)` gives
a map and what the head adds to it, and `uses_mid = True` asks for the stride-16 map where the whole backbone is frozen.
`uses_mid = "class_token"` asks for that of a vision transformer in the place of both maps: (B, C, 1, 1) and None.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssr_lib.backbones import seeded
from ssr_lib.pooling import GeM
from ssr_lib.self_similarity import encoder_layers


def feed_forward_layers(channels: int) -> nn.Sequential:
    """Two 1 × 1 convolutions with a ReLU between, no residual."""
    return nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, channels, 1))


def check_choice(what: str, value: str, legal: tuple[str, ...]) -> None:
    """Raise `ValueError` naming `what` where its value is not one of the `legal` ones."""
    if value not in legal:
        raise ValueError(f"{what} is {value!r}; one of {', '.join(legal)} is wanted")


class EmbeddingHead(nn.Module):
    """X → F (1 × 1 convolution to c, L2) → `encode`d → S (1 × 1 convolution, batch norm); X joined with S; GeM.

    A subclass has `encode`: F (B, c, H, W) → the same shape. `place`: "mid": X is `last`, and `project` follows the
    join; "last": X is `project(last)`, and a feed-forward follows unless `feed_forward` is False. `mid_channels`: c.
    `encoder`: "full", convolutions c → c with bias; "shared", one kernel without bias for every channel by itself.
    `fusion`: "add" X + S, "concat" a 1 × 1 convolution of [X, S]. `initial_gain`: of the last batch norm; None: 0 at
    "mid", so that the head starts as the identity, else 1. `product_scale` multiplies the products (as its root on F,
    so that the controls get the same scale); None: c. 1 is the published arithmetic; there a product is about 1/c, and
    at c ≥ 128 the first batch norm divides by its eps instead of by the signal. Source: Lee et al., CVPR 2023.
    """

    padding = 0  # of the encoder's convolutions

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        seed: int = 0,
        place: str = "mid",
        mid_channels: int = 64,
        window: int = 7,
        encoder: str = "full",
        fusion: str = "add",
        feed_forward: bool | None = None,
        initial_gain: float | None = None,
        product_scale: float | None = None,
        p: float = 3.0,
        learn_p: bool = False,
    ):
        super().__init__()
        check_choice("place", place, ("mid", "last"))
        check_choice("fusion", fusion, ("add", "concat"))
        check_choice("encoder", encoder, ("full", "shared"))
        if place == "mid" and feed_forward:
            raise ValueError("feed_forward=True at place 'mid' would feed random layers to pretrained ones; use 'last'")
        self.place, self.window, self.fusion, self.shared = place, window, fusion, encoder == "shared"
        self.product_scale = mid_channels if product_scale is None else product_scale
        self.width = channels[2]
        inside = channels[1] if place == "mid" else channels[2]  # C
        with seeded(seed, "embedding"):
            self.reduce = nn.Conv2d(inside, mid_channels, 1, bias=False)
            width, bias = (1, False) if self.shared else (mid_channels, True)
            self.encoder = encoder_layers(width, window, self.padding, bias)
            self.expand = nn.Sequential(nn.Conv2d(mid_channels, inside, 1), nn.BatchNorm2d(inside))
            if fusion == "concat":
                self.join = nn.Conv2d(2 * inside, inside, 1)
            with_layers = place == "last" and feed_forward is not False
            self.feed_forward = feed_forward_layers(inside) if with_layers else nn.Identity()
        if initial_gain is None:
            initial_gain = 0.0 if place == "mid" else 1.0
        nn.init.constant_(self.expand[1].weight, initial_gain)
        if fusion == "concat":  # starts as X plus a random mixture of S: what follows was trained on X
            nn.init.dirac_(self.join.weight.data[:, :inside])
            nn.init.zeros_(self.join.bias)
        self.pooling = GeM(p, learn=learn_p)

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        if self.place == "mid":
            return self.pooling(project(self.fuse(last)))
        return self.pooling(self.feed_forward(self.fuse(project(last))))

    def fuse(self, x: Tensor) -> Tensor:
        """X joined with S, same shape."""
        s = self.embed(x)
        return x + s if self.fusion == "add" else self.join(torch.cat([x, s], dim=1))

    def embed(self, x: Tensor) -> Tensor:
        """The dense feature map S of X (B, C, H, W), same shape."""
        f = F.normalize(self.reduce(x), dim=1, eps=1e-12) * math.sqrt(self.product_scale)  # (B, c, H, W)
        with torch.autocast(x.device.type, enabled=False):  # an outer one would narrow products of small numbers
            encoded = self.encode_channels(f.to(self.reduce.weight.dtype))  # (B, c, H, W)
        return self.expand(encoded.to(x.dtype))  # (B, C, H, W)

    def encode_channels(self, f: Tensor) -> Tensor:
        """`encode`, which with the shared encoder is given every channel as a map of one channel."""
        return self.encode(f.flatten(0, 1)[:, None]).reshape(f.shape) if self.shared else self.encode(f)

    def added(self, mid: Tensor | None, last: Tensor) -> tuple[Tensor, Tensor]:
        """X and what joining S adds to it; at place "last" X is given as `last`, already projected."""
        return last, self.fuse(last) - last
