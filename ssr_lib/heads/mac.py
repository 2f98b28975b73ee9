"""MAC, maximum activations of convolutions: each channel's largest answer, wherever it stands.

Source: Tolias et al., Particular object retrieval with integral max-pooling of CNN activations, ICLR 2016, background:
reference [11] of the paper. Differs from it: its L2 normalisation and PCA whitening are the network's own whitening.
"""

from __future__ import annotations

from torch import Tensor, nn

from ssr_lib.pooling import mac


class Head(nn.Module):
    """max over places of `project(last)`. Start: as it stays, for nothing in it is learned."""

    def __init__(self, channels: tuple[int, int, int], *, seed: int = 0):
        super().__init__()
        self.width = channels[2]

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        return mac(project(last))  # (B, C, H, W) → (B, C)
