"""Super-features of the local feature integration transformer (LIT), pooled: learned templates gather what fits them.

Source: Weinzaepfel et al., Learning super-features for image retrieval, ICLR 2022, section 3.1: reference [22] of the
paper. It matches super-features one by one with ASMK, here they are pooled into one vector. Its losses (section 3.2)
are left out, for losses here see global descriptors: a contrastive one on super-features of one template that are
nearest neighbours of each other in two pictures of a landmark, and one that keeps the attention of the templates apart.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssr_lib.backbones import seeded
from ssr_lib.heads import check_choice
from ssr_lib.pooling import GeM


class Head(nn.Module):
    """Z, the mean over templates of the super-features of `last`, each L2-normalised, times the root of their width.

    `templates`: N, 256 in the paper, for larger maps. `iterations`: T, 6 in the paper. `dims`: D, of a super-feature.
    `start`: "random", as published, Z alone, D numbers; "identity", GeM of `project(last)` + W · Z, which starts as
    `plain`, for W is 0 then. `p`, `learn_p` of that: see `pooling.GeM`. The root gives Z the size of a GeM.
    A gain of Z over `plain` may be that of `last` over `project(last)`: pooled by their mean the two differ as well.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        seed: int = 0,
        templates: int = 16,
        iterations: int = 3,
        dims: int = 512,
        start: str = "random",
        p: float = 3.0,
        learn_p: bool = False,
    ):
        super().__init__()
        check_choice("start", start, ("identity", "random"))
        inside = channels[1]
        self.iterations = iterations
        self.identity = start == "identity"
        self.width = channels[2] if self.identity else dims
        with seeded(seed, "embedding"):
            self.templates = nn.Parameter(torch.randn(templates, dims))
            self.norm_places = nn.LayerNorm(inside)
            self.norm_templates = nn.LayerNorm(dims)
            self.query = nn.Linear(dims, dims, bias=False)
            self.key = nn.Linear(inside, dims, bias=False)
            self.value = nn.Linear(inside, dims, bias=False)
            hidden = dims // 2
            layers = nn.LayerNorm(dims), nn.Linear(dims, hidden), nn.ReLU(), nn.Linear(hidden, dims)
            self.mlp = nn.Sequential(*layers)
        if self.identity:
            self.expand = nn.Linear(dims, self.width, bias=False)  # W
            nn.init.zeros_(self.expand.weight)
            self.pooling = GeM(p, learn=learn_p)

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        s = self.super_features(last)  # (B, N, D)
        z = math.sqrt(s.shape[2]) * F.normalize(s, dim=2).mean(dim=1)
        if not self.identity:
            return z
        return self.pooling(project(last)) + self.expand(z)

    def super_features(self, x: Tensor) -> Tensor:
        """What each template has gathered from the places of a map, (B, C, H, W) → (B, N, D)."""
        places = self.norm_places(x.flatten(2).transpose(1, 2))  # (B, HW, C)
        keys = self.key(places)  # (B, HW, D)
        values = self.value(places)
        s = self.templates.expand(len(x), -1, -1)  # (B, N, D)
        for _ in range(self.iterations):
            queries = self.query(self.norm_templates(s))
            scores = keys @ queries.transpose(1, 2) / math.sqrt(queries.shape[2])  # (B, HW, N)
            shares = scores.softmax(dim=2)  # templates compete for each place;
            weights = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-8)  # each takes the mean of what it won
            s = s + weights.transpose(1, 2) @ values
            s = s + self.mlp(s)
        return s
