"""D2-Net's soft detection: a place is strong where a channel has a peak that no other channel of the place exceeds.

D (C, H, W): the positive part of the map, N(i, j): the 3 × 3 places around (i, j).

    α_ij^k = exp D_ij^k / Σ_{N(i, j)} exp D^k      a soft local maximum
    β_ij^k = D_ij^k / max_t D_ij^t                 ratio to the maximum over channels
    s_ij   = max_k α_ij^k β_ij^k, divided by its sum over the map

Source: Dusmanu et al., D2-Net: a trainable CNN for joint detection and description of local features, CVPR 2019,
section 3.2: reference [20] of the paper. As in its public code D is divided by its maximum before exp, and is 0 outside
of the map. What is left out: its training, of scores and descriptors jointly with a triplet margin loss, for the
network is frozen here; at test time its hard detection, the refinement of places, and the pyramid of scales.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ssr_lib.local import LocalFeatures, features_of
from ssr_lib.store import Maps


def soft_detection(x: Tensor) -> Tensor:
    """s (B, H, W) of maps (B, C, H, W); 0 everywhere where no number of a map is above 0."""
    d = F.relu(x)
    peak = (d / d.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)).exp()
    around = F.avg_pool2d(F.pad(peak, (1, 1, 1, 1), value=1.0), 3, stride=1) * 9  # exp 0 outside
    alpha = peak / around
    beta = d / d.amax(dim=1, keepdim=True).clamp(min=1e-12)
    scores = (alpha * beta).amax(dim=1)
    return scores / scores.sum(dim=(1, 2), keepdim=True).clamp(min=1e-12)


def describe(x: Tensor) -> tuple[Tensor, Tensor]:
    """Descriptors (B, C, H, W), which are the map's places, and scores (B, H, W)."""
    return x, soft_detection(x)


def extract(maps: Maps, *, count: int = 400, learned: None = None, place: str = "mid") -> list[LocalFeatures]:
    """The `count` places of the highest scores of each map; nothing is learned."""
    return features_of(maps, place, describe, count)
