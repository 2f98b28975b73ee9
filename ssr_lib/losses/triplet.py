"""Triplet loss: an image is to be nearer to every other of its class than to any of another class, by a margin.

    mean of max( ‖a − p‖ − ‖a − n‖ + margin, 0 ) over the triplets of a batch in which it is not 0

Source: Schroff et al., CVPR 2015, section 3.1: reference [7] of the paper; there with squared distances and chosen
triplets, here with all of them.
"""

from __future__ import annotations

from pytorch_metric_learning import losses
from torch import Tensor, nn

from ssr_lib.losses import nearest_is_right


class Loss(nn.Module):
    """`margin` in distances of unit descriptors, which are at most 2."""

    per_class = 4

    def __init__(self, width: int, classes: int, *, seed: int = 0, margin: float = 0.1):
        super().__init__()
        self.loss = losses.TripletMarginLoss(margin=margin)

    def forward(self, descriptors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of descriptors (B, D), L2-normalised, with labels (B,), and the share whose nearest other is right."""
        return self.loss(descriptors, labels), nearest_is_right(descriptors, labels)
