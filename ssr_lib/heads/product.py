"""The self-similarity embedding, reading A: channel-wise products of every place with its neighbourhood, encoded.

Source: self-similarity encoding of Lee et al., CVPR 2023: reference [37] of the paper; docs/method.md, section 2.2.
"""

from __future__ import annotations

from torch import Tensor

from ssr_lib.heads import EmbeddingHead
from ssr_lib.heads._shared import encode_shared
from ssr_lib.self_similarity import encode


class Head(EmbeddingHead):
    """R[:, h, w, u, v] = max(F[:, h, w] ⊙ F[:, h + u, w + v], 0), brought to one vector a place by the encoder."""

    def encode(self, f: Tensor) -> Tensor:
        return encode(f, self.encoder, self.window)

    def encode_channels(self, f: Tensor) -> Tensor:
        if not self.shared:
            return self.encode(f)
        up, down = f.relu(), (-f).relu()  # max(ab, 0) = max(a, 0) max(b, 0) + max(−a, 0) max(−b, 0)
        return encode_shared([(up, up), (down, down)], self.encoder, self.window)
