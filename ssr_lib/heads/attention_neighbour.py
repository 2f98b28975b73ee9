"""The control of `attention`: the same layers see the neighbourhood X'[:, h + u, w + v] alone, without the score map.

What the score map does alone is seen in `attention_only`.
"""

from __future__ import annotations

from torch import Tensor

from ssr_lib.heads import attention
from ssr_lib.heads.neighbour import encode_neighbourhood
from ssr_lib.self_similarity import pad


class Head(attention.Head):
    """As `attention` with T[c, h, w, u, v] = X'[c, h + u, w + v]; its layers start with the same numbers."""

    has_score = False

    def encode(self, x: Tensor) -> Tensor:
        if not self.shared:
            return encode_neighbourhood(pad(x, self.window), self.encoder, self.window)
        each = x.flatten(0, 1)[:, None]  # (B·c, 1, H, W): every channel is a map of its own
        return encode_neighbourhood(pad(each, self.window), self.encoder, self.window).reshape(x.shape)
