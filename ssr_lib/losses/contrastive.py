"""Contrastive loss: images of a class are drawn together, images of two classes pushed apart up to a margin.

    mean of ‖a − p‖ over pairs of a class + mean of max( margin − ‖a − n‖, 0 ) over those of two, if not 0

Source: Hadsell et al., CVPR 2006, equation 4, which squares both terms; here they are not squared, so that distances
pull alike near and far. Landmark retrieval trained with squares before margins on angles (Radenović et al., 2019). It
stands for reference [8] of the paper (Hu, Lu & Tan, CVPR 2014), which learns a metric for faces from pairs as well:
there a deep network brings the distances of pairs of a class below one threshold and those of other pairs above
another.
"""

from __future__ import annotations

from pytorch_metric_learning import losses
from torch import Tensor, nn

from ssr_lib.losses import nearest_is_right


class Loss(nn.Module):
    """`margin` in distances of unit descriptors, which are at most 2."""

    per_class = 4

    def __init__(self, width: int, classes: int, *, seed: int = 0, margin: float = 0.7):
        super().__init__()
        self.loss = losses.ContrastiveLoss(pos_margin=0, neg_margin=margin)

    def forward(self, descriptors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of descriptors (B, D), L2-normalised, with labels (B,), and the share whose nearest other is right."""
        return self.loss(descriptors, labels), nearest_is_right(descriptors, labels)
