"""ArcFace: a margin on the angle.

Source: Deng et al., CVPR 2019: reference [9] of the paper. Landmark retrieval has trained so since DELG (ECCV 2020).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ssr_lib.losses import MarginLoss

SMALLEST_SQUARED_SINE = 1e-6  # the sine's derivative is 1 / sine; float32 knows 1 - cos² to about 1e-7


def arcface_margin(cosines: Tensor, margin: float) -> Tensor:
    """cos(θ + m) for the cosines (...) of the true classes; `margin` m in radians (Deng et al., CVPR 2019, eq. 3).

    Where θ + m would pass π the cosine turns upwards again, so cos θ − m·sin m stands there, as in the authors' code.
    """
    sines = (1.0 - cosines.square()).clamp(min=SMALLEST_SQUARED_SINE).sqrt()
    shifted = cosines * math.cos(margin) - sines * math.sin(margin)
    return torch.where(cosines > -math.cos(margin), shifted, cosines - margin * math.sin(margin))


class Loss(MarginLoss):
    """See `MarginLoss`; `margin` in radians."""

    def shift(self, cosines: Tensor) -> Tensor:
        return arcface_margin(cosines, self.margin)
