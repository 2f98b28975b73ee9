"""Smooth-AP: average precision with a sigmoid for every "is ranked before", so that it has a derivative.

    1 − mean over a of 1/|P_a| Σ_{p ∈ P_a} (1 + Σ_{q ∈ P_a} σ((s_aq − s_ap)/τ)) / (1 + Σ_{all j} σ((s_aj − s_ap)/τ))

where P_a are the images of the class of a, itself among them. Source: Brown et al., ECCV 2020, equation 7.
"""

from __future__ import annotations

from pytorch_metric_learning import losses
from torch import Tensor, nn

from ssr_lib.losses import nearest_is_right


class Loss(nn.Module):
    """`temperature` is τ, in cosines."""

    per_class = 4

    def __init__(self, width: int, classes: int, *, seed: int = 0, temperature: float = 0.01):
        super().__init__()
        self.loss = losses.SmoothAPLoss(temperature=temperature)

    def forward(self, descriptors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of descriptors (B, D), L2-normalised, with labels (B,), and the share whose nearest other is right."""
        return self.loss(descriptors, labels), nearest_is_right(descriptors, labels)
