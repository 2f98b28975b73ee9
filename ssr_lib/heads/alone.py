"""What another head adds to the map, without the map: the mean of its S over places. For the positive control only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from ssr_lib.files import load_part
from ssr_lib.pooling import spoc


class Head(nn.Module):
    """S of the head `of`, with its `options`, for maps of `width` channels: `last` (B, C, H, W) → (B, C).

    The mean, since GeM's clamp passes no gradient where S is negative. S starts with a gain of 1.
    """

    def __init__(
        self, channels: tuple[int, int, int], *, seed: int = 0, of: str = "product", width: int = 64, **options: Any
    ):
        super().__init__()
        self.width = width
        self.inner = load_part(of, "heads").Head((width,) * 3, seed=seed, initial_gain=1.0, **options)

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        return spoc(self.inner.embed(last))

    def fit(self, batches: Iterable[tuple[Tensor | None, Tensor, nn.Module]]) -> None:
        """Fit the head inside where it learns something before training."""
        if hasattr(self.inner, "fit"):
            self.inner.fit(batches)
