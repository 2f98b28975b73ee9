"""Losses, one file each: descriptors and classes → a number to make small. Here is what ArcFace and CosFace share.

A loss's file has a class `Loss(width, classes, *, seed=0, **options)`, a `torch.nn.Module`, with
`forward(descriptors, labels) -> (loss, share of the batch that is right)` and `per_class`, the views of each class in a
batch, None where the images are shuffled. Optional: `start(descriptors, labels)` is given those of all training images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def nearest_is_right(descriptors: Tensor, labels: Tensor) -> Tensor:
    """The share of a batch (B, D), L2-normalised, whose nearest other image is of its class (B,): a scalar."""
    similarity = (descriptors @ descriptors.T).detach().fill_diagonal_(-2.0)
    return (labels[similarity.argmax(dim=1)] == labels).float().mean()


class MarginLoss(nn.Module):
    """Cross-entropy of scaled cosines to `classes` learned centres, that of the true class with its margin.

    A margin asks for more than the first place: images of a class draw together and classes move apart, which is what
    ranking by cosine needs. A subclass has `shift`: cosines of the true classes (B, 1) → with the margin, same shape.
    `width`: dimension of descriptors and centres; `seed` draws the centres, whatever else was drawn before.
    """

    per_class = None

    def __init__(self, width: int, classes: int, *, seed: int = 0, margin: float = 0.15, scale: float = 30.0):
        super().__init__()
        if not (0.0 <= margin < math.pi / 2 and scale > 0.0):
            raise ValueError(f"margin {margin} and scale {scale}: 0 <= margin < π/2 and scale > 0 are wanted")
        self.margin, self.scale = margin, scale
        generator = torch.Generator().manual_seed(seed)
        self.centres = nn.Parameter(F.normalize(torch.randn(classes, width, generator=generator)))

    @torch.no_grad()
    def start(self, descriptors: Tensor, labels: Tensor) -> None:
        """Put every centre at the mean of its class: imprinted weights, Qi et al., CVPR 2018."""
        sums = descriptors.new_zeros(self.centres.shape).index_add_(0, labels, descriptors)  # (K, D)
        self.centres.copy_(F.normalize(sums))

    def forward(self, descriptors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss and the share of the batch whose nearest centre, without margin, is the right one: two scalars.

        `descriptors` (B, D) L2-normalised, `labels` (B,) int64. Always float32: in half precision a cosine near 1 is
        known to three digits, and the scale multiplies the error by 30.
        """
        with torch.autocast(descriptors.device.type, enabled=False):
            cosines = F.linear(descriptors.float(), F.normalize(self.centres))  # (B, K)
            true_class = labels[:, None]
            logits = self.scale * cosines.scatter(1, true_class, self.shift(cosines.gather(1, true_class)))
            loss = F.cross_entropy(logits, labels)
        return loss, (cosines.detach().argmax(1) == labels).float().mean()
