"""The self-similarity embedding, reading A: channel-wise products of every place with its neighbourhood, encoded.

Source: self-similarity encoding of Lee et al., CVPR 2023; docs/method.md, section 2.2.
"""

from __future__ import annotations

from torch import Tensor

from ssr_lib.heads import EmbeddingHead
from ssr_lib.self_similarity import encode


class Head(EmbeddingHead):
    """R[:, h, w, u, v] = max(F[:, h, w] ⊙ F[:, h + u, w + v], 0), brought to one vector a place by the encoder."""

    def encode(self, f: Tensor) -> Tensor:
        return encode(f, self.encoder, self.window)
