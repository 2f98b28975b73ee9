"""The class token of a vision transformer: the descriptor that the pretrained model itself gives of the whole picture.

Source: Dosovitskiy et al., An image is worth 16 x 16 words, ICLR 2021, section 3.1. Its cosine is how DINO and its
successors retrieve (Caron et al., ICCV 2021). CLIP's is taken before the projection to its texts. SigLIP has none: in
its place stands what its attention pooling makes of the patch tokens (Zhai et al., ICCV 2023).
"""

from __future__ import annotations

from torch import Tensor, nn


class Head(nn.Module):
    """The class token behind the final norm, as it is. Start: as it stays, for nothing in it is learned."""

    uses_mid = "class_token"

    def __init__(self, channels: tuple[int, int, int], *, seed: int = 0):
        super().__init__()
        self.width = channels[0]

    def forward(self, mid: Tensor, last: Tensor | None, project: nn.Module) -> Tensor:
        return mid[:, :, 0, 0]  # (B, C, 1, 1) → (B, C)
