"""Listwise loss: average precision of a batch, each image a query, with similarities sorted into soft bins.

    1 − mean over a of Σ_m precision_m (recall_m − recall_{m−1}), m from the bin of the highest similarity to the lowest

where an image counts in the two bins beside its similarity, in shares that fall linearly with the distance to them.
Sources: Revaud et al., ICCV 2019, equations 5 to 10; Cakir et al. (FastAP), CVPR 2019, whose histogram of squared
distances 2 − 2s is the same up to the number of bins. Both follow reference [4] of the paper (He, Lu & Sclaroff, CVPR
2018), which raises the binned average precision of local descriptors. Left out: Revaud et al.'s gradient of batches of
thousands.
"""

from __future__ import annotations

from pytorch_metric_learning import losses
from torch import Tensor, nn

from ssr_lib.losses import nearest_is_right


class Loss(nn.Module):
    """`bins`: intervals between the centres of bins, from cosine −1 to 1."""

    per_class = 4

    def __init__(self, width: int, classes: int, *, seed: int = 0, bins: int = 19):
        super().__init__()
        self.loss = losses.FastAPLoss(num_bins=bins)

    def forward(self, descriptors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of descriptors (B, D), L2-normalised, with labels (B,), and the share whose nearest other is right."""
        return self.loss(descriptors, labels), nearest_is_right(descriptors, labels)
