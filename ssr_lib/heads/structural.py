"""A descriptor of layout without parameters: statistics of the self-similarity of the stride-16 map."""

from __future__ import annotations

from torch import Tensor, nn

from ssr_lib.self_similarity import check_window, structural_descriptor


class Head(nn.Module):
    """`structural_descriptor` of `mid`; there is nothing to train. `window`: offsets a side."""

    uses_mid = True

    def __init__(self, channels: tuple[int, int, int], *, seed: int = 0, window: int = 7):
        super().__init__()
        self.window = check_window(window)
        offsets = window * window - 1
        self.width = offsets * (offsets + 1) // 2 + offsets

    def forward(self, mid: Tensor, last: Tensor, project: nn.Module) -> Tensor:
        return structural_descriptor(mid, self.window)  # (B, width)
