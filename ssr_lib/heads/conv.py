"""A control with the parameters of `product` and no window: padded 3 × 3 convolutions of F, a twelfth of the work."""

from __future__ import annotations

from torch import Tensor

from ssr_lib.heads import EmbeddingHead


class Head(EmbeddingHead):
    """As `product` with ordinary convolutions over the places (h, w) for relation and encoder."""

    padding = 1

    def encode(self, f: Tensor) -> Tensor:
        for block in self.encoder:
            f = block(f)
        return f
