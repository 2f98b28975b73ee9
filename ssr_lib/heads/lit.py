"""Super-features of the local feature integration transformer (LIT), pooled: learned templates gather what fits them.

Source: Weinzaepfel et al., Learning super-features for image retrieval, ICLR 2022, section 3.1. Differs from the paper:
it matches super-features one by one with ASMK, here they are pooled and added to the GeM of the map. Its contrastive
loss on super-features of one template that are nearest neighbours of each other in two pictures of a landmark, and its
loss that keeps the attention of the templates apart (section 3.2), are left out: losses here see global descriptors.
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
    """GeM of `project(last)` + W · mean over templates of the L2-normalised super-features of `last`.

    `templates`: N, 256 in the paper, for larger maps. `iterations`: T, 6 in the paper. `dims`: D, of a super-feature.
    `start`: "identity": W starts at 0, so that the head starts as `plain`; "random": without the GeM, W at random.
    `p`, `learn_p`: see `pooling.GeM`.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        seed: int = 0,
        templates: int = 16,
        iterations: int = 3,
        dims: int = 256,
        start: str = "identity",
        p: float = 3.0,
        learn_p: bool = False,
    ):
        super().__init__()
        check_choice("start", start, ("identity", "random"))
        inside = channels[1]
        self.width, self.iterations, self.identity = channels[2], iterations, start == "identity"
        with seeded(seed, "embedding"):
            self.templates = nn.Parameter(torch.randn(templates, dims))
            self.norm_places, self.norm_templates = nn.LayerNorm(inside), nn.LayerNorm(dims)
            self.query = nn.Linear(dims, dims, bias=False)
            self.key = nn.Linear(inside, dims, bias=False)
            self.value = nn.Linear(inside, dims, bias=False)
            hidden = dims // 2
            layers = nn.LayerNorm(dims), nn.Linear(dims, hidden), nn.ReLU(), nn.Linear(hidden, dims)
            self.mlp = nn.Sequential(*layers)
            self.expand = nn.Linear(dims, self.width, bias=False)  # W
        if self.identity:
            nn.init.zeros_(self.expand.weight)
            self.pooling = GeM(p, learn=learn_p)

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        pooled = F.normalize(self.super_features(last), dim=2).mean(dim=1)  # (B, N, D) → (B, D)
        s = self.expand(pooled)  # (B, width)
        return self.pooling(project(last)) + s if self.identity else s

    def super_features(self, x: Tensor) -> Tensor:
        """What each template has gathered from the places of a map, (B, C, H, W) → (B, N, D)."""
        places = self.norm_places(x.flatten(2).transpose(1, 2))  # (B, HW, C)
        keys, values = self.key(places), self.value(places)  # (B, HW, D) both
        s = self.templates.expand(len(x), -1, -1)  # (B, N, D)
        for _ in range(self.iterations):
            queries = self.query(self.norm_templates(s))
            scores = keys @ queries.transpose(1, 2) / math.sqrt(queries.shape[2])  # (B, HW, N)
            shares = scores.softmax(dim=2)  # templates compete for each place;
            weights = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-8)  # each takes the mean of what it won
            s = s + weights.transpose(1, 2) @ values
            s = s + self.mlp(s)
        return s
