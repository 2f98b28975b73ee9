"""Smooth-AP: average precision with a sigmoid for every "is ranked before", so that it has a derivative.

    1 − mean over a of 1/|P_a| Σ_{p ∈ P_a} (1 + Σ_{q ∈ P_a} σ((s_aq − s_ap)/τ)) / (1 + Σ_{all j} σ((s_aj − s_ap)/τ))

where P_a are the images of the class of a, itself among them, and no image stands before itself. Source: Brown et al.,
ECCV 2020, equation 7; another form of what reference [4] of the paper raises (`listwise_ap.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssr_lib.losses import nearest_is_right


class Loss(nn.Module):
    """`temperature` is τ, in cosines."""

    per_class = 4

    def __init__(self, width: int, classes: int, *, seed: int = 0, temperature: float = 0.01):
        super().__init__()
        self.temperature = temperature

    def forward(self, descriptors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of descriptors (B, D), L2-normalised, with labels (B,), and the share whose nearest other is right."""
        s = descriptors @ descriptors.T  # (B, B)
        same = (labels[:, None] == labels).to(s)
        before = ((s[:, None] - s[:, :, None]) / self.temperature).sigmoid()  # (B, B, B): of a, p and j
        before = before * (1 - torch.eye(len(s)).to(s))
        precision = (1 + (before * same[:, None]).sum(dim=2)) / (1 + before.sum(dim=2))  # (B, B): of a and p
        ap = (precision * same).sum(dim=1) / same.sum(dim=1)
        return 1 - ap.mean(), nearest_is_right(descriptors, labels)
