"""Second-order spatial attention: to every place is added a mean of all places, weighted by their resemblance to it.

Source: SOLAR, Ng et al., ECCV 2020, the section on second-order attention: reference [14] of the paper. Its
second-order loss is not here, but in `losses/second_order.py`.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from ssr_lib.backbones import seeded
from ssr_lib.pooling import GeM


class Head(nn.Module):
    """X + ψ(softmax(α q kᵀ) v), where X is `last`; then `project` and GeM.

    q, k: 1 × 1 convolution to C / `reduction`, batch norm, ReLU; v: 1 × 1 convolution; ψ: 1 × 1 convolution to C.
    α = 1 / √(C / reduction), as in the authors' code.
    Start: identity; ψ starts at 0, as in the authors' code too.
    What differs from the paper: one block, on the last map, where the paper's best network has one after each of the
    two last stages; here the frozen layers between them would see a map that they were not trained on.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        seed: int = 0,
        reduction: int = 2,
        p: float = 3.0,
        learn_p: bool = False,
    ):
        super().__init__()
        self.width = channels[2]
        inside = channels[1]  # C
        hidden = max(1, inside // reduction)
        self.alpha = 1 / math.sqrt(hidden)
        with seeded(seed, "embedding"):
            self.query = nn.Sequential(nn.Conv2d(inside, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU())
            self.key = nn.Sequential(nn.Conv2d(inside, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU())
            self.value = nn.Conv2d(inside, hidden, 1)
            self.expand = nn.Conv2d(hidden, inside, 1)  # ψ
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)
        self.pooling = GeM(p, learn=learn_p)

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        return self.pooling(project(last + self.embed(last)))  # (B, width)

    def embed(self, x: Tensor) -> Tensor:
        """What is added to X (B, C, H, W), same shape."""
        q, k, v = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))  # (B, c, N), N = H · W
        z = (self.alpha * q.transpose(1, 2) @ k).softmax(dim=2)  # (B, N, N): of every place, weights of all places
        return self.expand((v @ z.transpose(1, 2)).unflatten(2, x.shape[2:]))

    def added(self, mid: Tensor | None, last: Tensor) -> tuple[Tensor, Tensor]:
        """X and what is added to it."""
        return last, self.embed(last)
