"""Token aggregation: places are shared out to a few tokens, which attention refines; the tokens are the feature.

Source: Wu et al., Learning token-based representation for image retrieval, AAAI 2022, with the authors' code:
reference [15] of the paper.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ssr_lib.backbones import seeded
from ssr_lib.heads._fitted import places, soft_assignment, some_batches


class Attention(nn.Module):
    """What multi-head attention adds: from `x` (B, N, d) to `y` (B, M, d); 0 at the start, as in the authors' code."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        nn.init.zeros_(self.attention.out_proj.weight)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.attention(x, y, y, need_weights=False)[0]


class Refinement(nn.Module):
    """Tokens t (B, L, d) → t + self-attention, + cross-attention to the places f (B, N, d), + MLP."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])
        self.among, self.across = Attention(width, heads), Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        nn.init.zeros_(self.mlp[2].weight)
        nn.init.zeros_(self.mlp[2].bias)

    def forward(self, t: Tensor, f: Tensor) -> Tensor:
        normed = self.norms[0](t)
        t = t + self.among(normed, normed)
        t = t + self.across(self.norms[1](t), f)
        return t + self.mlp(self.norms[2](t))


class Head(nn.Module):
    """f = 1 × 1 convolution of `project(last)` to `mid_channels` (d), + self-attention; a = softmax over tokens of W f.

    Token l = layer norm(Σ_p a_l(p) f(p) / Σ_p a_l(p)), refined `blocks` times; all `tokens` (L) side by side are the
    feature of width L · d. `attention_heads`: of every attention.
    Start: the convolution gives principal components, W assigns to L k-means centres, what attention and MLP add is
    0. What differs from the paper: that start (there only the attentions start at 0); no dropout, fewer channels (1,024
    there), a layer norm in place of batch norms; the whitening is its fully connected layer. The authors' code attends
    to the places first and among the tokens last, has linear layers after the attention of the places and before the
    layer norm, and does not divide by Σ_p a_l(p).
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        seed: int = 0,
        mid_channels: int = 256,
        tokens: int = 4,
        blocks: int = 2,
        attention_heads: int = 8,
    ):
        super().__init__()
        self.seed = seed
        self.width = tokens * mid_channels
        d = mid_channels
        with seeded(seed, "embedding"):
            self.reduce = nn.Conv2d(channels[2], d, 1)
            self.among_places = Attention(d, attention_heads)
            self.assign = nn.Linear(d, tokens)
            self.norm = nn.LayerNorm(d)
            self.refinement = nn.ModuleList([Refinement(d, attention_heads) for _ in range(blocks)])

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        f = self.reduce(project(last)).flatten(2).transpose(1, 2)  # (B, N, d)
        f = f + self.among_places(f, f)
        a = self.assign(f).log_softmax(dim=2).softmax(dim=1)  # a / Σ_p a (B, N, L), also where every a is about 0
        t = a.transpose(1, 2) @ f  # (B, L, d)
        t = self.norm(t)
        for block in self.refinement:
            t = block(t, f)
        return t.flatten(1)  # (B, width)

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor | None, Tensor, nn.Module]]) -> None:
        """Principal components of the places, scaled together to a mean square of 1, and their k-means centres."""
        x = torch.cat([places(project(last)) for _, last, project in some_batches(batches)])  # (N, C)
        centred = x - x.mean(dim=0)
        _, vectors = torch.linalg.eigh(
            (centred.T @ centred / len(x)).double()
        )  # float32 may fail where channels are dead
        axes = vectors.flip(1)[:, : len(self.reduce.weight)].to(
            x
        )  # (C, n), by falling variance: d, or the C that there are
        axes = axes / (centred @ axes).square().mean().sqrt()
        n = axes.shape[1]
        self.reduce.weight.zero_()[:n] = axes.T[:, :, None, None]
        self.reduce.bias.zero_()[:n] = -x.mean(dim=0) @ axes
        _, weight, bias = soft_assignment(centred @ axes, self.assign.out_features, self.seed)
        self.assign.weight.zero_()[:, :n] = weight
        self.assign.bias.copy_(bias)
