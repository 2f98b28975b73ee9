"""CosFace: a margin on the cosine. Wang et al., CVPR 2018, eq. 4."""

from __future__ import annotations

from torch import Tensor

from ssr_lib.losses import MarginLoss


class Loss(MarginLoss):
    """See `MarginLoss`; `margin` is a cosine."""

    def shift(self, cosines: Tensor) -> Tensor:
        return cosines - self.margin  # cos θ − m
