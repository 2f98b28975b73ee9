"""S beside X instead of added to it: both pooled, each standardised, and concatenated before the whitening.

Why: X + S drowns a map S that starts small, and the constant part of X hides its arrangement from S; docs/method.md,
section 4.3. The frozen path stays as it is: the first part of the feature is that of `plain`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ssr_lib.files import load_part
from ssr_lib.heads._fitted import settle_norms, some_batches
from ssr_lib.pooling import GeM, spoc


class Head(nn.Module):
    """GeM of `project(X)` (B, width of project) and the mean over places of S, which the head `of` makes of X minus its
    own mean over places (B, C): together (B, width). `options`: of the head `of`; its S starts with a gain of 1."""

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        seed: int = 0,
        of: str = "product",
        p: float = 3.0,
        learn_p: bool = True,
        **options: Any,
    ):
        super().__init__()
        self.inner = load_part(of, "heads").Head(channels, seed=seed, initial_gain=1.0, **options)
        self.pooling = GeM(p, learn=learn_p)
        self.width = channels[2] + channels[1]
        self.norm_x = nn.BatchNorm1d(channels[2], affine=False)
        self.norm_s = nn.BatchNorm1d(channels[1], affine=False)

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        centred = last - last.mean(dim=(2, 3), keepdim=True)
        x = self.norm_x(self.pooling(project(last)))  # (B, width of project)
        return torch.cat([x, self.norm_s(spoc(self.inner.embed(centred)))], dim=1)

    def fit(self, batches: Iterable[tuple[Tensor | None, Tensor, nn.Module]]) -> None:
        """Let the batch norms see some batches: the LDA before the first step takes their statistics."""
        batches = some_batches(batches)
        if hasattr(self.inner, "fit"):  # on X without its mean over places, as in `forward`
            self.inner.fit((mid, x - x.mean(dim=(2, 3), keepdim=True), project) for mid, x, project in batches)
        settle_norms(self, batches)
