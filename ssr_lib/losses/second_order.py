"""Second-order similarity beside the triplet loss: two views of a class are to see all other classes alike.

    triplet + λ · mean over pairs (a, p) of ( Σ_n (‖a − n‖² − ‖p − n‖²)² )^½, n the images of other classes in the batch

Source: Ng et al. (SOLAR), ECCV 2020, section 3.2: reference [14] of the paper, after Tian et al. (SOSNet), CVPR 2019.
In SOLAR's code the negatives are mined, the triplet loss squares its distances, one root is taken over all triplets of
a batch, and λ is 5.
"""

from __future__ import annotations

import torch
from pytorch_metric_learning import losses
from torch import Tensor, nn

from ssr_lib.losses import nearest_is_right


class Loss(nn.Module):
    """`margin` of the triplet loss, in distances; `weight`: λ."""

    per_class = 4

    def __init__(self, width: int, classes: int, *, seed: int = 0, margin: float = 0.1, weight: float = 1.0):
        super().__init__()
        self.triplet, self.weight = losses.TripletMarginLoss(margin=margin), weight

    def forward(self, descriptors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of descriptors (B, D), L2-normalised, with labels (B,), and the share whose nearest other is right."""
        loss = self.triplet(descriptors, labels) + self.weight * second_order(descriptors, labels)
        return loss, nearest_is_right(descriptors, labels)


def second_order(descriptors: Tensor, labels: Tensor) -> Tensor:
    """The second term without λ, a scalar."""
    squared = 2 - 2 * descriptors @ descriptors.T  # (B, B)
    same = labels[:, None] == labels
    a, p = torch.triu(same, diagonal=1).nonzero(as_tuple=True)
    gaps = (squared[a] - squared[p]).masked_fill(same[a], 0.0)  # (pairs, B)
    roots = (gaps.square().sum(dim=1) + 1e-12).sqrt()  # the root has no derivative at 0
    return roots.sum() / max(len(a), 1)  # 0 without a pair
