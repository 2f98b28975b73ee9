"""Classification losses with a margin on the sphere: ArcFace and CosFace.

A landmark is a class with a unit vector for its centre; the logit of an image is the cosine to the centre times a
scale. A margin on the true class asks for more than the first place: images of a class draw together and classes move
apart, which is what ranking by cosine needs. Landmark retrieval has trained so since DELG (Cao et al., ECCV 2020).
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

MARGINS = ("arcface", "cosface")
SMALLEST_SQUARED_SINE = 1e-6  # the sine's derivative is 1 / sine; float32 knows 1 - cos² to about 1e-7


def arcface_margin(cosines: torch.Tensor, margin: float) -> torch.Tensor:
    """cos(θ + m) for the cosines (...) of the true classes; `margin` m in radians (Deng et al., CVPR 2019, eq. 3).

    Where θ + m would pass π the cosine turns upwards again, so cos θ − m·sin m stands there, as in the authors' code.
    """
    sines = (1.0 - cosines.square()).clamp(min=SMALLEST_SQUARED_SINE).sqrt()
    shifted = cosines * math.cos(margin) - sines * math.sin(margin)
    return torch.where(cosines > -math.cos(margin), shifted, cosines - margin * math.sin(margin))


def cosface_margin(cosines: torch.Tensor, margin: float) -> torch.Tensor:
    """cos θ − m for the cosines (...) of the true classes; `margin` m is a cosine (Wang et al., CVPR 2018, eq. 4)."""
    return cosines - margin


def margin_logits(cosines: torch.Tensor, labels: torch.Tensor, kind: str, margin: float, scale: float) -> torch.Tensor:
    """Scaled logits (B, K) of K classes from their `cosines` (B, K), the true class (`labels` (B,)) with its margin.

    `kind`: "arcface" or "cosface"; raises `ValueError` for another.
    """
    if kind not in MARGINS:
        raise ValueError(f"no margin {kind!r}; there are {', '.join(MARGINS)}")
    true_class = labels[:, None]
    target = cosines.gather(1, true_class)  # (B, 1)
    target = arcface_margin(target, margin) if kind == "arcface" else cosface_margin(target, margin)
    return scale * cosines.scatter(1, true_class, target)


class MarginLoss(nn.Module):
    """Cross-entropy of margin logits over `classes` learned centres of dimension `dim`.

    `seed` draws the centres, whatever else was drawn before; margin and scale as in `margin_logits`.
    """

    def __init__(
        self, dim: int, classes: int, kind: str = "arcface", margin: float = 0.15, scale: float = 30.0, seed: int = 0
    ):
        super().__init__()
        if kind not in MARGINS:
            raise ValueError(f"no margin {kind!r}; there are {', '.join(MARGINS)}")
        if not (0.0 <= margin < math.pi / 2 and scale > 0.0):
            raise ValueError(f"margin {margin} and scale {scale}: 0 <= margin < π/2 and scale > 0 are wanted")
        self.kind, self.margin, self.scale = kind, margin, scale
        generator = torch.Generator().manual_seed(seed)
        self.centres = nn.Parameter(F.normalize(torch.randn(classes, dim, generator=generator)))

    def forward(self, descriptors: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean loss and the share of the batch whose nearest centre, without margin, is the right one: two scalars.

        `descriptors` (B, D) L2-normalised, `labels` (B,) int64. Always float32: in half precision a cosine near 1 is
        known to three digits, and the scale multiplies the error by 30.
        """
        with torch.autocast(descriptors.device.type, enabled=False):
            cosines = F.linear(descriptors.float(), F.normalize(self.centres))  # (B, K)
            logits = margin_logits(cosines, labels, self.kind, self.margin, self.scale)
            loss = F.cross_entropy(logits, labels)
        accuracy = (cosines.detach().argmax(1) == labels).float().mean()
        return loss, accuracy

    def extra_repr(self) -> str:
        classes, dim = self.centres.shape
        return f"{self.kind}, {classes} classes, dim {dim}, margin {self.margin}, scale {self.scale}"
