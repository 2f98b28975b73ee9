"""The control of `attention` without a neighbourhood: the score map A itself is expanded to S."""

from __future__ import annotations

from torch import Tensor, nn

from ssr_lib.heads import attention


class Head(attention.Head):
    """As `attention` with A[c, h, w] in place of the encoded T; there is no encoder and no window."""

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        seed: int = 0,
        mid_channels: int = 64,
        start: str = "identity",
        initial_gain: float | None = None,
        p: float = 3.0,
        learn_p: bool | None = None,
    ):
        of_both = {"start": start, "initial_gain": initial_gain, "p": p, "learn_p": learn_p}
        super().__init__(channels, seed=seed, mid_channels=mid_channels, **of_both)
        self.encoder = nn.ModuleList()

    def encode(self, x: Tensor) -> Tensor:
        return self.score(x)
